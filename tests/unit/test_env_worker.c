/* test_env_worker: the worker's edge and its real simulator against a coordinator, actor, PRM server and learner played here,
 * over real sockets in one process. What is promised: every leased episode comes to one end (delivered or given back with a
 * reason), whatever the servers do; what is delivered is what was played; look-ahead plays the candidate the scores prefer. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "env_worker/edge.h"
#include "env_worker/lookahead.h"
#include "proto/policy.pb-c.h"
#include "proto/prm.pb-c.h"
#include "proto/trajectory.pb-c.h"
#include "wire/server.h"

enum { IMAGE = 32, FRAME = IMAGE * IMAGE * 3, K = 7, WIDTH = 3, PATIENCE_MS = 30000, RUN_ID = 77, MANY = 64 };
enum { COORDINATOR, ACTOR, PRM, LEARNER, ROLES };

static const Gantry__Role roles[ROLES] = {
    GANTRY__ROLE__ROLE_COORDINATOR, GANTRY__ROLE__ROLE_ACTOR, GANTRY__ROLE__ROLE_PRM_SERVER, GANTRY__ROLE__ROLE_LEARNER,
};

struct delivered {              /* what came to the learner, as far as the tests look */
    uint64_t episode, fence;
    uint32_t steps, n_tokens, n_hidden, n_label, n_progress, n_action, first_token, last_token, state_digest;
    bool success, timeout, first_frame_is_last;
    char instruction[96];
    float first_action[SIM_ACTION_DIMS];
};

static struct fixture {
    char dir[64], address[ROLES][96];
    struct loop *loop;
    struct lifecycle *lifecycle;
    struct wire *wire, *worker_wire;
    struct wire_server *servers[ROLES];
    struct edge *edge;

    Gantry__Lease leases[MANY];
    unsigned n_leases, granted;
    struct { uint64_t episode; Gantry__LeaseReturn__Reason reason; char text[128]; } returned[MANY];
    struct delivered delivered[MANY];
    unsigned n_returned, n_delivered, hellos, byes, acts, scores;
    uint64_t revoke;            /* tell the worker that this lease has ended */
    unsigned held, held_most;   /* of the last heartbeat / Hello */

    /* how the servers behave */
    bool nan_action, mute_actor;
    unsigned chunk;             /* actions in one answer; 0: 1 */
    bool chain;                 /* pictures are made as the OpenVLA evaluations make them */
    uint8_t first_picture[FRAME];       /* of the last delivery */
    uint32_t n_turns, turns[MANY];      /* of the last delivery */
    unsigned loading, internal; /* so many answers of this kind before good ones */
    unsigned mute_deliveries;
} f;

/* ---- the servers --------------------------------------------------------------------------------------------- */

static void reply(struct request *request, const ProtobufCMessage *body)
{
    assert_true(wire_reply(request, body, NULL, 0) <= 0);
}

static void on_hello(struct request *request)
{
    const char *config = f.chain ? "run: {name: t, dir: t}\npolicy: {init: x}\nsuite: {name: tabletop, tasks: [pick_up_object], "
                                   "image: 32, chain: rot180+jpeg95+lanczos3, render: 64}\n"
                                 : "run: {name: t, dir: t}\npolicy: {init: x}\n"
                                   "suite: {name: tabletop, tasks: [pick_up_object], image: 32}\n";
    const Gantry__Hello *hello = (const Gantry__Hello *)request->message->body;
    Gantry__Welcome body = GANTRY__WELCOME__INIT;
    Gantry__Endpoint endpoints[ROLES], *list[ROLES];
    uint64_t version = 3;
    int i;

    for (i = ACTOR; i < ROLES; i++) {
        gantry__endpoint__init(&endpoints[i]);
        endpoints[i].role = roles[i];
        endpoints[i].member = (uint32_t)(100 + i);
        endpoints[i].address = f.address[i];
        endpoints[i].versions = &version;
        endpoints[i].n_versions = 1;
        list[i - ACTOR] = &endpoints[i];
    }
    f.hellos++;
    f.held = (unsigned)hello->n_leases;
    assert_int_equal(hello->role, GANTRY__ROLE__ROLE_ENV_WORKER);
    body.member = 9;
    body.epoch = 1;
    body.run = RUN_ID;
    body.seed = 5;
    body.heartbeat_ms = 50;
    body.config = (char *)config;
    body.run_dir = f.dir;
    body.endpoints = list;
    body.n_endpoints = ROLES - ACTOR;
    reply(request, &body.base);
}

static void on_heartbeat(struct request *request)
{
    const Gantry__Heartbeat *heartbeat = (const Gantry__Heartbeat *)request->message->body;
    Gantry__HeartbeatReply body = GANTRY__HEARTBEAT_REPLY__INIT;

    f.held = (unsigned)heartbeat->n_leases;
    f.held_most = MAX(f.held_most, f.held);
    body.known = 1;
    if (f.revoke) {
        body.revoked = &f.revoke;
        body.n_revoked = 1;
    }
    reply(request, &body.base);
    f.revoke = 0;
}

static void on_lease_request(struct request *request)
{
    const Gantry__LeaseRequest *ask = (const Gantry__LeaseRequest *)request->message->body;
    Gantry__LeaseGrant body = GANTRY__LEASE_GRANT__INIT;
    Gantry__Lease *list[MANY];

    assert_int_equal(ask->member, 9);
    while (f.granted < f.n_leases && body.n_leases < ask->slots)
        list[body.n_leases++] = &f.leases[f.granted++];
    body.leases = list;
    body.retry_ms = 20;
    reply(request, &body.base);
}

static void on_lease_return(struct request *request)
{
    const Gantry__LeaseReturn *back = (const Gantry__LeaseReturn *)request->message->body;
    Gantry__LeaseReturnReply body = GANTRY__LEASE_RETURN_REPLY__INIT;

    assert_true(f.n_returned < MANY);
    f.returned[f.n_returned].episode = back->episode;
    f.returned[f.n_returned].reason = back->reason;
    snprintf(f.returned[f.n_returned++].text, sizeof(f.returned[0].text), "%s", back->text);
    reply(request, &body.base);
}

static void on_coordinator(struct request *request, void *arg _unused_)
{
    Gantry__ByeReply bye = GANTRY__BYE_REPLY__INIT;

    switch (request->message->envelope.kind) {
    case GANTRY__KIND__KIND_HELLO: on_hello(request); break;
    case GANTRY__KIND__KIND_HEARTBEAT: on_heartbeat(request); break;
    case GANTRY__KIND__KIND_LEASE_REQUEST: on_lease_request(request); break;
    case GANTRY__KIND__KIND_LEASE_RETURN: on_lease_return(request); break;
    case GANTRY__KIND__KIND_BYE: f.byes++; reply(request, &bye.base); break;
    default: fail_msg("kind %u", request->message->envelope.kind);
    }
}

/* Token 0 tells the sample, token 1 the step. Sample 2 lifts the hand, the others lower it. A chunk's actions are told apart by
 * their fifth number; its tokens speak of the steps they are meant for. */
static void on_act(struct request *request, void *arg _unused_)
{
    const Gantry__ActRequest *act = (const Gantry__ActRequest *)request->message->body;
    Gantry__ActReply body = GANTRY__ACT_REPLY__INIT;
    unsigned chunk = f.chunk ? f.chunk : 1;
    uint32_t tokens[MANY * K] = {0};
    float logp[MANY * K] = {0}, hidden[WIDTH] = { (float)act->step }, action[MANY * SIM_ACTION_DIMS] = {0};
    size_t size;

    for (unsigned i = 0; i < chunk && i < MANY; i++) {
        tokens[i * K] = act->sample;
        tokens[i * K + 1] = act->step + i;
        for (unsigned k = 0; k < K; k++)
            logp[i * K + k] = -(float)(k + 1);
        action[i * SIM_ACTION_DIMS + 2] = act->sample == 2 ? 1.0f : -1.0f;
        action[i * SIM_ACTION_DIMS + 4] = (float)i / 8;
        action[i * SIM_ACTION_DIMS + 6] = 1;
    }

    f.acts++;
    (void)message_part(request->message, 0, &size);
    assert_int_equal(size, FRAME);
    assert_int_equal(act->images, 1);
    assert_true(strlen(act->instruction) > 5);
    if (f.mute_actor) {
        request_drop(request);
        return;
    }
    if (f.loading > 0 || f.internal > 0) {
        wire_refuse(request, f.loading ? GANTRY__STATUS__STATUS_LOADING : GANTRY__STATUS__STATUS_INTERNAL, "not now");
        f.loading ? f.loading-- : f.internal--;
        return;
    }
    if (f.nan_action)
        action[3] = NAN;
    body.tokens = tokens;
    body.logp = logp;
    body.n_tokens = body.n_logp = chunk * K;
    body.action = action;
    body.n_action = chunk * SIM_ACTION_DIMS;
    body.chunk = f.chunk;
    body.policy_version = request->message->envelope.version;
    body.hidden = hidden;
    body.n_hidden = act->want_hidden ? WIDTH : 0;
    reply(request, &body.base);
}

/* The higher the fingers stand in the picture, the better. */
static float score_of(const uint8_t *rgb)
{
    int i, n = 0, sum = 0;

    for (i = 0; i < IMAGE * IMAGE; i++)
        if (rgb[3 * i] > 150 && rgb[3 * i + 1] > 60 && rgb[3 * i + 1] < 160 && rgb[3 * i + 2] < 60) {
            sum += i / IMAGE;
            n++;
        }
    return n ? 1 - (float)sum / (float)n / IMAGE : 1;
}

static void on_score(struct request *request, void *arg _unused_)
{
    const Gantry__ScoreRequest *score = (const Gantry__ScoreRequest *)request->message->body;
    Gantry__ScoreReply body = GANTRY__SCORE_REPLY__INIT;
    float progress[MANY];
    const uint8_t *images;
    size_t size;

    f.scores++;
    assert_int_equal(request->message->n_parts, 1);
    assert_true(score->n_at <= MANY);
    images = message_part(request->message, 0, &size);
    assert_int_equal(size, score->images * FRAME);
    for (body.n_progress = 0; body.n_progress < score->n_at; body.n_progress++)
        progress[body.n_progress] = score_of(images + (size_t)score->at[body.n_progress] * FRAME);
    body.progress = progress;
    body.prm_version = request->message->envelope.version;
    reply(request, &body.base);
}

static void on_deliver(struct request *request, void *arg _unused_)
{
    const Gantry__Trajectory *t = (const Gantry__Trajectory *)request->message->body;
    Gantry__DeliverReply body = GANTRY__DELIVER_REPLY__INIT;
    struct delivered *d = &f.delivered[f.n_delivered];
    const uint8_t *frames;
    size_t size;

    if (f.mute_deliveries > 0) {
        f.mute_deliveries--;
        wire_refuse(request, GANTRY__STATUS__STATUS_INTERNAL, "disk trouble");
        return;
    }
    frames = message_part(request->message, 0, &size);
    assert_int_equal(size, (t->steps + 1) * FRAME);
    assert_true(f.n_delivered < MANY);
    f.n_delivered++;
    *d = (struct delivered) {
        .episode = t->episode, .fence = t->fence, .steps = t->steps, .n_tokens = (uint32_t)t->n_tokens,
        .n_hidden = (uint32_t)t->n_hidden, .n_label = (uint32_t)t->n_label,
        .n_progress = (uint32_t)t->n_progress, .n_action = (uint32_t)t->n_action, .success = t->success, .timeout = t->timeout,
        .state_digest = (uint32_t)t->state_digest, .first_token = t->n_tokens ? t->tokens[0] : 0,
        .last_token = t->n_tokens ? t->tokens[t->n_tokens - K] : 0,
        .first_frame_is_last = memcmp(frames, frames + (size_t)t->steps * FRAME, FRAME) == 0,
    };
    memcpy(d->first_action, t->action, sizeof(d->first_action));
    snprintf(d->instruction, sizeof(d->instruction), "%s", t->instruction);
    assert_int_equal(t->run, RUN_ID);
    assert_int_equal(t->member, 9);
    assert_int_equal(t->n_logp, t->n_tokens);
    assert_int_equal(t->n_step_version, t->n_value);
    for (size_t i = 0; i < t->n_value; i++)
        assert_int_equal(t->tokens[i * K + 1], i);      /* the sampling counter was the step */
    for (size_t i = 0; i < t->n_hidden / WIDTH; i++)
        assert_true(t->hidden[i * WIDTH] == (float)i);
    assert_string_equal(t->image_chain, f.chain ? "rot180+jpeg95+lanczos3" : "render");
    memcpy(f.first_picture, frames, FRAME);
    f.n_turns = (uint32_t)t->n_turns;
    for (size_t i = 0; i < t->n_turns && i < MANY; i++)
        f.turns[i] = t->turns[i];
    for (size_t i = 0, begun = 0; i < t->steps && t->n_turns; i++) {    /* which of its chunk was executed */
        begun = begun + 1 < t->n_turns && t->turns[begun + 1] == i ? begun + 1 : begun;
        assert_true(t->action[i * SIM_ACTION_DIMS + 4] == (float)(i - t->turns[begun]) / 8);
    }
    body.episode = t->episode;
    reply(request, &body.base);
}

/* ---- set-up ------------------------------------------------------------------------------------------------------ */

static void open_server(int role)
{
    static void (*const on_request[ROLES])(struct request *, void *) = { on_coordinator, on_act, on_score, on_deliver };
    struct wire_server_options options = { .address = f.address[role], .on_request = on_request[role] };
    struct error error = {0};

    if (wire_server_new(f.wire, &options, &f.servers[role], &error) < 0)
        fail_msg("%s", error.text);
}

static void on_drain(const char *reason, void *arg _unused_)
{
    env_edge_drain(f.edge, reason);
}

static int start(void **state _unused_)
{
    static const char *const names[ROLES] = { "coordinator", "actor", "prm", "learner" };
    struct lifecycle_options lifecycle = { .on_drain = on_drain };
    struct env_edge_options options = { .join = f.address[COORDINATOR], .build = "test", .device = -1, .slots = 3 };
    struct error error = {0};
    int i;

    memset(&f, 0, sizeof(f));
    snprintf(f.dir, sizeof(f.dir), "/tmp/gantry-test-XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    for (i = 0; i < ROLES; i++)
        snprintf(f.address[i], sizeof(f.address[i]), "ipc://%s/%s.ipc", f.dir, names[i]);
    if (loop_new(&f.loop) < 0 || lifecycle_new(f.loop, &lifecycle, &f.lifecycle) < 0 ||
        wire_new(loop_uv(f.loop), GANTRY__ROLE__ROLE_COORDINATOR, &f.wire) < 0 ||
        wire_new(loop_uv(f.loop), GANTRY__ROLE__ROLE_ENV_WORKER, &f.worker_wire) < 0)
        return -1;
    wire_set_run(f.wire, RUN_ID, 1);
    for (i = 0; i < ROLES; i++)
        open_server(i);
    if (env_edge_new(f.loop, f.worker_wire, f.lifecycle, &options, &f.edge, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int stop(void **state _unused_)
{
    char command[128];
    int i;

    f.edge = env_edge_free(f.edge);
    for (i = 0; i < ROLES; i++)
        f.servers[i] = wire_server_free(f.servers[i]);
    f.worker_wire = wire_free(f.worker_wire);
    f.wire = wire_free(f.wire);
    f.lifecycle = lifecycle_free(f.lifecycle);
    f.loop = loop_free(f.loop);
    fault_arm("");
    snprintf(command, sizeof(command), "rm -rf %s", f.dir);
    return system(command);
}

/* Turn the loop until the condition holds. */
#define TURN_UNTIL(condition)                                                                       \
    do {                                                                                            \
        uint64_t give_up_ = clock_mono_ms() + PATIENCE_MS;                                          \
        while (!(condition) && clock_mono_ms() < give_up_)                                          \
            loop_turn(f.loop, true);                                                                \
        assert_true(condition);                                                                     \
    } while (0)

static Gantry__Lease *add_lease(uint64_t episode, const char *task, const char *style)
{
    Gantry__Lease *lease = &f.leases[f.n_leases];

    gantry__lease__init(lease);
    lease->episode = episode;
    lease->fence = 1ull << 32 | episode;
    lease->purpose = GANTRY__PURPOSE__PURPOSE_TRAIN;
    lease->task = (char *)task;
    lease->split = GANTRY__SPLIT__SPLIT_VAL;
    lease->state_seed = episode;
    lease->style = (char *)style;
    lease->policy_version = 3;
    lease->temperature = 1;
    f.n_leases++;
    return lease;
}

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void test_demonstrations(void **state _unused_)
{
    static const char *const tasks[] = { "pick_up_object", "open_drawer", "push_to_target", "stack_two_blocks" };
    unsigned i, won = 0;

    for (i = 0; i < 12; i++)
        add_lease(i + 1, tasks[i % 4], i < 8 ? "clean" : "slow")->max_steps = 60;
    TURN_UNTIL(f.n_delivered == 12);
    for (i = 0; i < 12; i++) {
        const struct delivered *d = &f.delivered[i];

        won += d->success;
        assert_int_equal(d->n_tokens, 0);
        assert_int_equal(d->n_label, d->steps * SIM_ACTION_DIMS);
        assert_int_equal(d->n_action, d->n_label);
        assert_int_equal(d->n_progress, 0);
        assert_true(d->success != d->timeout);
        assert_false(d->first_frame_is_last);
        assert_true(strlen(d->instruction) > 5);
        assert_int_equal(d->fence, 1ull << 32 | d->episode);
    }
    assert_true(won >= 10);
    assert_int_equal(f.acts, 0);
    assert_int_equal(f.n_returned, 0);
}

/* The same lease gives the same trajectory, whoever plays it and beside whom. */
static void test_demonstrations_repeat(void **state _unused_)
{
    struct delivered first;

    add_lease(5, "pick_up_object", "slow");
    TURN_UNTIL(f.n_delivered == 1);
    first = f.delivered[0];
    add_lease(6, "open_drawer", "slow");
    add_lease(7, "open_drawer", "slow");
    add_lease(5, "pick_up_object", "slow");
    TURN_UNTIL(f.n_delivered == 4);
    for (unsigned i = 1; i < 4; i++)
        if (f.delivered[i].episode == 5) {
            assert_int_equal(f.delivered[i].steps, first.steps);
            assert_memory_equal(f.delivered[i].first_action, first.first_action, sizeof(first.first_action));
            assert_string_equal(f.delivered[i].instruction, first.instruction);
        }
}

static void test_policy_plays(void **state _unused_)
{
    unsigned i;

    for (i = 0; i < 8; i++)
        add_lease(i + 1, "pick_up_object", "")->prm_version = i < 4 ? 2 : 0;
    f.leases[5].purpose = GANTRY__PURPOSE__PURPOSE_ROLLOUT;
    TURN_UNTIL(f.n_delivered == 8);
    for (i = 0; i < 8; i++) {
        const struct delivered *d = &f.delivered[i];

        assert_int_equal(d->steps, 24);         /* the suite's limit */
        assert_true(d->timeout);
        assert_int_equal(d->n_tokens, 24 * K);
        assert_int_equal(d->n_hidden, d->episode == 6 ? 0 : 24 * WIDTH);     /* critics read those of training episodes only */
        assert_int_equal(d->n_progress, d->episode <= 4 ? 25 : 0);
        assert_int_equal(d->n_label, 0);
    }
    assert_int_equal(f.acts, 8 * 24);
    assert_int_equal(f.scores, 4);
    TURN_UNTIL(f.held == 0);
    assert_true(f.held_most <= 3);
}

/* Five actions an answer: the policy is asked at every fifth step, and what is left over at the end is dropped. */
static void test_chunks(void **state _unused_)
{
    f.chunk = 5;
    add_lease(1, "pick_up_object", "")->max_steps = 12;
    TURN_UNTIL(f.n_delivered == 1);
    assert_int_equal(f.delivered[0].steps, 12);
    assert_int_equal(f.delivered[0].n_tokens, 12 * K);
    assert_int_equal(f.delivered[0].n_hidden, 0);
    assert_int_equal(f.acts, 3);
    assert_int_equal(f.n_turns, 3);
    assert_memory_equal(f.turns, ((uint32_t[]){0, 5, 10}), 3 * sizeof(uint32_t));
    f.chunk = 1;
    add_lease(2, "pick_up_object", "")->max_steps = 4;
    TURN_UNTIL(f.n_delivered == 2);
    assert_int_equal(f.n_turns, 0);             /* asked at every step: nothing to say */
}

static int brightness(const uint8_t *rgb, int from, int to)     /* of columns from..to-1 */
{
    int sum = 0;

    for (int i = 0; i < IMAGE * IMAGE * 3; i++)
        sum += i / 3 % IMAGE >= from && i / 3 % IMAGE < to ? rgb[i] : 0;
    return sum;
}

/* The same state drawn both ways: turned by 180 degrees from the bottom row up, a picture is upright, left and right exchanged. */
static void test_picture_chain(void **state _unused_)
{
    static uint8_t plain[FRAME];
    int left, right, turned_left, turned_right;

    add_lease(1, "open_drawer", "")->max_steps = 2;
    TURN_UNTIL(f.n_delivered == 1);
    memcpy(plain, f.first_picture, FRAME);
    stop(NULL);
    start(NULL);
    f.chain = true;
    add_lease(1, "open_drawer", "")->max_steps = 2;
    TURN_UNTIL(f.n_delivered == 1);
    left = brightness(plain, 0, IMAGE / 2);
    right = brightness(plain, IMAGE / 2, IMAGE);
    turned_left = brightness(f.first_picture, 0, IMAGE / 2);
    turned_right = brightness(f.first_picture, IMAGE / 2, IMAGE);
    assert_true(abs(left - right) > (left + right) / 50);
    assert_true(abs(turned_left - right) < abs(left - right) / 2 && abs(turned_right - left) < abs(left - right) / 2);
}

static void test_servers_stumble(void **state _unused_)
{
    f.loading = 3;
    f.internal = 2;
    f.mute_deliveries = 2;
    add_lease(1, "pick_up_object", "")->max_steps = 4;
    add_lease(2, "pick_up_object", "")->max_steps = 4;
    TURN_UNTIL(f.n_delivered == 2);
    assert_int_equal(f.n_returned, 0);
}

static void test_nan_action_is_refused(void **state _unused_)
{
    f.nan_action = true;
    add_lease(1, "pick_up_object", "");
    TURN_UNTIL(f.n_returned == 1);
    assert_int_equal(f.returned[0].episode, 1);
    assert_non_null(strstr(f.returned[0].text, "not finite"));
    assert_int_equal(f.returned[0].reason, GANTRY__LEASE_RETURN__REASON__SERVER_ERROR);
    assert_int_equal(f.acts, 3);                        /* it is asked again, then it is the actor's fault */
    f.nan_action = false;
    add_lease(2, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(f.n_delivered == 1);
    assert_int_equal(f.delivered[0].episode, 2);
}

static void test_simulator_errors(void **state _unused_)
{
    assert_int_equal(fault_arm("sim.step=eio@5"), 0);
    add_lease(1, "pick_up_object", "slow");
    TURN_UNTIL(f.n_returned == 1);
    assert_int_equal(f.returned[0].reason, GANTRY__LEASE_RETURN__REASON__SIMULATOR_ERROR);
    add_lease(2, "juggle", "");
    TURN_UNTIL(f.n_returned == 2);
    assert_non_null(strstr(f.returned[1].text, "juggle"));
    add_lease(3, "pick_up_object", "clean");
    TURN_UNTIL(f.n_delivered == 1);
}

static void test_revoked_while_the_actor_is_silent(void **state _unused_)
{
    f.mute_actor = true;
    add_lease(1, "pick_up_object", "");
    TURN_UNTIL(f.acts > 0 && f.held == 1);
    f.revoke = 1;
    TURN_UNTIL(f.held == 0);
    f.mute_actor = false;
    add_lease(2, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(f.n_delivered == 1);
    assert_int_equal(f.delivered[0].episode, 2);
    assert_int_equal(f.n_returned, 0);
}

static void test_without_coordinator(void **state _unused_)
{
    unsigned i;

    for (i = 0; i < 3; i++)
        add_lease(i + 1, "pick_up_object", "");
    TURN_UNTIL(f.acts > 3);
    f.servers[COORDINATOR] = wire_server_free(f.servers[COORDINATOR]);
    TURN_UNTIL(f.n_delivered == 3);         /* what was leased is played and delivered */
    assert_int_equal(f.n_returned, 0);
    open_server(COORDINATOR);
    add_lease(4, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(f.n_delivered == 4);         /* and when it is back, work goes on */
}

static void test_drain_finishes_what_is_held(void **state _unused_)
{
    add_lease(1, "pick_up_object", "");
    add_lease(2, "pick_up_object", "");
    TURN_UNTIL(f.acts > 4);
    add_lease(3, "pick_up_object", "");
    env_edge_drain(f.edge, "test");
    TURN_UNTIL(lifecycle_phase(f.lifecycle) == LIFECYCLE_STOPPED);
    /* a third lease may have been on its way: then it came back */
    assert_int_equal(f.n_delivered + f.n_returned, f.granted);
    assert_true(f.n_delivered >= 2);
    assert_int_equal(f.byes, 1);
    assert_int_equal(lifecycle_exit_code(f.lifecycle), 0);
}

static void test_alone(void **state _unused_)
{
    unsigned i;

    add_lease(1, "pick_up_object", "");
    add_lease(2, "pick_up_object", "")->alone = true;
    add_lease(3, "pick_up_object", "");
    TURN_UNTIL(f.n_delivered == 3);
    for (i = 0; i < 3; i++)
        assert_true(f.delivered[i].episode != 2 || i > 0);      /* not before the ones it found */
}

/* ---- look-ahead ------------------------------------------------------------------------------------------------------ */

static void test_choice(void **state _unused_)
{
    static const float scores[3 * 2] = { .625f, .375f, .25f, .5f, .5f, .5f };
    static const bool all[3] = { true, true, true }, none[3], second[3] = { false, true, false };
    static const float ties[3 * 2] = { .5f, .25f, .25f, .5f, .25f, .5f };

    assert_int_equal(lookahead_choose(scores, all, 3, 2, false), 1);    /* last: .5 twice, lower index */
    assert_int_equal(lookahead_choose(scores, all, 3, 2, true), 2);     /* mean: .5 .375 .5, the higher last score */
    assert_int_equal(lookahead_choose(ties, all, 3, 2, true), 1);       /* all .375: higher last, lower index */
    assert_int_equal(lookahead_choose(scores, second, 3, 2, true), 1);
    assert_int_equal(lookahead_choose(scores, none, 3, 2, false), -1);
}

static void test_lookahead(void **state _unused_)
{
    Gantry__Lease *lease = add_lease(1, "pick_up_object", "");

    lease->max_steps = 10;
    lease->prm_version = 2;
    lease->search_n = 4;
    lease->search_horizon = 4;
    lease->search_execute = 4;
    lease->search_score = (char *)"last";
    TURN_UNTIL(f.n_delivered == 1);
    assert_int_equal(f.delivered[0].steps, 10);
    assert_int_equal(f.delivered[0].first_token, 2);            /* the candidate that lifts the hand */
    assert_true(f.delivered[0].first_action[2] == 1);
    assert_int_equal(f.acts, 4 * (4 + 4 + 2));                  /* the last search looks no further than the limit */
    assert_int_equal(f.scores, 3 * 4 + 1);
    assert_true(f.delivered[0].state_digest != 0);
}

static void test_lookahead_needs_a_judge(void **state _unused_)
{
    add_lease(1, "pick_up_object", "")->search_n = 4;
    TURN_UNTIL(f.n_returned == 1);
    assert_non_null(strstr(f.returned[0].text, "PRM"));
}

static void test_lookahead_cancelled(void **state _unused_)
{
    Gantry__Lease *lease = add_lease(1, "pick_up_object", "");

    lease->prm_version = 2;
    lease->search_n = 8;
    TURN_UNTIL(f.acts > 12);
    f.revoke = 1;
    TURN_UNTIL(f.revoke == 0);
    add_lease(2, "pick_up_object", "")->max_steps = 3;
    TURN_UNTIL(f.n_delivered == 1);
    assert_int_equal(f.delivered[0].episode, 2);
}

int main(void)
{
#define WORKER_TEST(t) cmocka_unit_test_setup_teardown(t, start, stop)
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        WORKER_TEST(test_demonstrations),
        WORKER_TEST(test_demonstrations_repeat),
        WORKER_TEST(test_policy_plays),
        WORKER_TEST(test_chunks),
        WORKER_TEST(test_picture_chain),
        WORKER_TEST(test_servers_stumble),
        WORKER_TEST(test_nan_action_is_refused),
        WORKER_TEST(test_simulator_errors),
        WORKER_TEST(test_revoked_while_the_actor_is_silent),
        WORKER_TEST(test_without_coordinator),
        WORKER_TEST(test_drain_finishes_what_is_held),
        WORKER_TEST(test_alone),
        WORKER_TEST(test_lookahead),
        WORKER_TEST(test_lookahead_needs_a_judge),
        WORKER_TEST(test_lookahead_cancelled),
    };
    struct sim_renderer *renderer;
    struct error error = {0};

    if (sim_renderer_open(-1, 8, 8, &renderer, &error) < 0) {
        printf("SKIP env_worker: %s\n", error.text);
        return 0;
    }
    sim_renderer_close(renderer);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
