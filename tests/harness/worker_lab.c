#include "tests/harness/worker_lab.h"

#include "base/atomic_file.h"

struct worker_lab lab;

static const Gantry__Role roles[ROLES] = {
    GANTRY__ROLE__ROLE_COORDINATOR, GANTRY__ROLE__ROLE_ACTOR, GANTRY__ROLE__ROLE_PRM_SERVER, GANTRY__ROLE__ROLE_LEARNER,
};

/* ---- the servers --------------------------------------------------------------------------------------------- */

static void reply(struct request *request, const ProtobufCMessage *body)
{
    assert_true(wire_reply(request, body, NULL, 0) <= 0);
}

static void on_hello(struct request *request)
{
    char config[400];
    const Gantry__Hello *hello = (const Gantry__Hello *)request->message->body;
    Gantry__Welcome body = GANTRY__WELCOME__INIT;
    Gantry__Endpoint endpoints[ROLES], *list[ROLES];
    uint64_t version = 3;
    int i;

    snprintf(config, sizeof(config),
             "run: {name: t, dir: t}\npolicy: {init: x%s}\nsuite: {%s, image: 32%s%s}\n",
             lab.policy ? lab.policy : "", lab.suite[0] ? lab.suite : "name: tabletop, tasks: [pick_up_object]",
             lab.chain ? ", chain: rot180+jpeg95+lanczos3, render: 64" : "", lab.state ? ", state: true" : "");
    for (i = ACTOR; i < ROLES; i++) {
        gantry__endpoint__init(&endpoints[i]);
        endpoints[i].role = roles[i];
        endpoints[i].member = (uint32_t)(100 + i);
        endpoints[i].address = lab.address[i];
        endpoints[i].versions = &version;
        endpoints[i].n_versions = 1;
        list[i - ACTOR] = &endpoints[i];
    }
    lab.hellos++;
    lab.held = (unsigned)hello->n_leases;
    lab.pushes_to = request->peer;
    assert_int_equal(hello->role, GANTRY__ROLE__ROLE_ENV_WORKER);
    body.member = 9;
    body.epoch = 1;
    body.run = RUN_ID;
    body.seed = lab.seed ? lab.seed : 5;
    body.kept_leases = lab.kept;
    body.n_kept_leases = lab.n_kept;
    body.heartbeat_ms = 50;
    body.config = config;
    body.run_dir = lab.dir;
    body.endpoints = list;
    body.n_endpoints = ROLES - ACTOR;
    reply(request, &body.base);
}

static void on_heartbeat(struct request *request)
{
    const Gantry__Heartbeat *heartbeat = (const Gantry__Heartbeat *)request->message->body;
    Gantry__HeartbeatReply body = GANTRY__HEARTBEAT_REPLY__INIT;

    lab.held = (unsigned)heartbeat->n_leases;
    if (heartbeat->n_leases) {
        const Gantry__HeldLease *first = heartbeat->leases[0];

        lab.held_first = first->episode;
        lab.waits = first->waits;
        lab.step = first->step;
        lab.played = first->played;
    }
    lab.held_most = MAX(lab.held_most, lab.held);
    body.known = !lab.forget;
    body.drain = body.sent_away = lab.send_away;
    if (lab.revoke) {
        body.revoked = &lab.revoke;
        body.n_revoked = 1;
    }
    reply(request, &body.base);
    lab.revoke = 0;
    lab.forget = false;
}

static void on_lease_request(struct request *request)
{
    const Gantry__LeaseRequest *ask = (const Gantry__LeaseRequest *)request->message->body;
    Gantry__LeaseGrant body = GANTRY__LEASE_GRANT__INIT;
    Gantry__Lease *list[MANY];

    assert_int_equal(ask->member, 9);
    if (lab.on_lease_request)
        lab.on_lease_request();
    while (lab.granted < lab.n_leases && body.n_leases < ask->slots)
        list[body.n_leases++] = &lab.leases[lab.granted++];
    body.leases = list;
    body.retry_ms = lab.retry_ms ? lab.retry_ms : 20;
    body.drain = lab.drain;
    reply(request, &body.base);
}

static void on_lease_return(struct request *request)
{
    const Gantry__LeaseReturn *back = (const Gantry__LeaseReturn *)request->message->body;
    Gantry__LeaseReturnReply body = GANTRY__LEASE_RETURN_REPLY__INIT;

    assert_true(lab.n_returned < MANY);
    lab.returned[lab.n_returned].episode = back->episode;
    lab.returned[lab.n_returned].reason = back->reason;
    snprintf(lab.returned[lab.n_returned++].text, sizeof(lab.returned[0].text), "%s", back->text);
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
    case GANTRY__KIND__KIND_BYE: lab.byes++; reply(request, &bye.base); break;
    default: fail_msg("kind %u", request->message->envelope.kind);
    }
}

static float worth(uint32_t sample) { return !lab.critic ? 0 : sample == 1 ? .9f : .2f; }

/* Token 0 tells the sample, token 1 the step. Sample 2 lifts the hand, the others lower it. A chunk's actions are told apart by
 * their fifth number; its tokens speak of the steps they are meant for. */
static void on_act(struct request *request, void *arg _unused_)
{
    const Gantry__ActRequest *act = (const Gantry__ActRequest *)request->message->body;
    Gantry__ActReply body = GANTRY__ACT_REPLY__INIT;
    unsigned chunk = lab.chunk ? lab.chunk : 1;
    uint32_t tokens[MANY * K] = {0};
    float logp[MANY * K] = {0}, hidden[WIDTH] = { (float)act->step }, action[MANY * SIM_ACTION_DIMS] = {0};
    float confidence = act->want_confidence ? (float)act->sample : 0;
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

    lab.acts++;
    (void)message_part(request->message, 0, &size);
    assert_int_equal(size, FRAME);
    assert_int_equal(act->images, 1);
    assert_true(strlen(act->instruction) > 5);
    if (lab.mute_actor) {
        request_drop(request);
        return;
    }
    if (lab.loading > 0 || lab.internal > 0) {
        wire_refuse(request, lab.loading ? GANTRY__STATUS__STATUS_LOADING : GANTRY__STATUS__STATUS_INTERNAL, "not now");
        lab.loading ? lab.loading-- : lab.internal--;
        return;
    }
    if (lab.on_act)
        lab.on_act(act, action, &confidence);
    if (lab.nan_action)
        action[3] = NAN;
    body.tokens = tokens;
    body.logp = logp;
    body.n_tokens = body.n_logp = chunk * K;
    body.action = action;
    body.n_action = chunk * SIM_ACTION_DIMS;
    body.chunk = lab.chunk;
    body.policy_version = request->message->envelope.version;
    body.confidence = confidence;
    body.value = worth(act->sample);
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

    lab.scores++;
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
    struct delivered *d = &lab.delivered[lab.n_delivered];
    const uint8_t *frames;
    size_t size;

    if (lab.mute_deliveries > 0) {
        lab.mute_deliveries--;
        wire_refuse(request, GANTRY__STATUS__STATUS_INTERNAL, "disk trouble");
        return;
    }
    frames = message_part(request->message, 0, &size);
    assert_int_equal(size, (t->n_observed ? t->n_observed : t->steps + 1) * FRAME);
    assert_true(lab.n_delivered < MANY);
    lab.n_delivered++;
    *d = (struct delivered) {
        .episode = t->episode, .fence = t->fence, .steps = t->steps, .n_tokens = (uint32_t)t->n_tokens,
        .n_hidden = (uint32_t)(t->n_hidden + t->n_turn_hidden), .n_label = (uint32_t)t->n_label,
        .n_progress = (uint32_t)t->n_progress, .n_action = (uint32_t)t->n_action, .success = t->success, .timeout = t->timeout,
        .policy_steps = t->policy_steps, .perturbed_at = t->perturbed_at, .search_chosen = t->search_chosen,
        .search_all = t->search_all, .state_digest = (uint32_t)t->state_digest, .first_token = t->n_tokens ? t->tokens[0] : 0,
        .last_token = t->n_tokens ? t->tokens[t->n_tokens - K] : 0,
        .first_frame_is_last = memcmp(frames, frames + (t->n_observed ? t->n_observed - 1 : t->steps) * FRAME, FRAME) == 0,
    };
    memcpy(d->first_action, t->action, sizeof(d->first_action));
    snprintf(d->instruction, sizeof(d->instruction), "%s", t->instruction);
    assert_int_equal(t->run, RUN_ID);
    assert_int_equal(t->member, 9);
    assert_int_equal(t->n_logp, t->n_tokens);
    assert_int_equal(t->n_step_version, t->n_value);
    for (size_t i = 0; i < t->n_value; i++) {           /* as on_act said it; the sampling counter was the step */
        assert_int_equal(t->tokens[i * K + 1], i);
        for (unsigned k = 0; k < K; k++)
            assert_true(t->logp[i * K + k] == -(float)(k + 1));
        assert_true(t->value[i] == worth(t->tokens[i * K]));
        assert_int_equal(t->step_version[i], t->policy_version);
    }
    for (size_t i = 0; i < t->n_hidden / WIDTH; i++)
        assert_true(t->hidden[i * WIDTH] == (float)i);
    for (size_t i = 0; i < t->n_turn_hidden / WIDTH; i++)
        assert_true(t->turn_hidden[i * WIDTH] == (float)t->turns[i]);
    assert_string_equal(t->image_chain, lab.chain ? "rot180+jpeg95+lanczos3" : "render");
    memcpy(lab.first_picture, frames, FRAME);
    lab.n_turns = (uint32_t)t->n_turns;
    for (size_t i = 0; i < t->n_turns && i < MANY; i++)
        lab.turns[i] = t->turns[i];
    for (size_t i = 0, begun = 0; i < t->steps && t->n_turns; i++) {    /* which of its chunk was executed */
        begun = begun + 1 < t->n_turns && t->turns[begun + 1] == i ? begun + 1 : begun;
        assert_true(t->action[i * SIM_ACTION_DIMS + 4] == (float)(i - t->turns[begun]) / 8);
    }
    lab.n_observed = (uint32_t)t->n_observed;
    for (size_t i = 0; i < t->n_observed && i < MANY; i++)
        lab.observed[i] = t->observed[i];
    if (lab.on_delivery)
        lab.on_delivery(t, frames);
    body.episode = t->episode;
    reply(request, &body.base);
}

/* ---- set-up ------------------------------------------------------------------------------------------------------ */

void worker_lab_open(int role)
{
    static void (*const on_request[ROLES])(struct request *, void *) = { on_coordinator, on_act, on_score, on_deliver };
    struct wire_server_options options = { .address = lab.address[role], .on_request = on_request[role] };
    struct error error = {0};

    if (wire_server_new(lab.wire, &options, &lab.servers[role], &error) < 0)
        fail_msg("%s", error.text);
}

static void on_drain(const char *reason, void *arg _unused_)
{
    env_edge_drain(lab.edge, reason);
}

int worker_lab_start(void **state _unused_) { return worker_lab_start_with(0, 0); }

int worker_lab_start_with(uint32_t give_back_ms, uint32_t give_up_ms)
{
    static const char *const names[ROLES] = { "coordinator", "actor", "prm", "learner" };
    struct lifecycle_options lifecycle = { .on_drain = on_drain };
    struct env_edge_options options = { .join = lab.address[COORDINATOR], .build = "test", .device = -1, .slots = 3,
                                        .give_back_ms = give_back_ms, .give_up_ms = give_up_ms };
    struct error error = {0};
    int i;

    memset(&lab, 0, sizeof(lab));
    scratch_new(lab.dir);
    for (i = 0; i < ROLES; i++)
        snprintf(lab.address[i], sizeof(lab.address[i]), "ipc://%s/%s.ipc", lab.dir, names[i]);
    if (loop_new(&lab.loop) < 0 || lifecycle_new(lab.loop, &lifecycle, &lab.lifecycle) < 0 ||
        wire_new(loop_uv(lab.loop), GANTRY__ROLE__ROLE_COORDINATOR, &lab.wire) < 0 ||
        wire_new(loop_uv(lab.loop), GANTRY__ROLE__ROLE_ENV_WORKER, &lab.worker_wire) < 0)
        return -1;
    wire_set_run(lab.wire, RUN_ID, 1);
    for (i = 0; i < ROLES; i++)
        worker_lab_open(i);
    if (env_edge_new(lab.loop, lab.worker_wire, lab.lifecycle, &options, &lab.edge, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

int worker_lab_stop(void **state _unused_)
{
    int i;

    lab.edge = env_edge_free(lab.edge);
    for (i = 0; i < ROLES; i++)
        lab.servers[i] = wire_server_free(lab.servers[i]);
    lab.worker_wire = wire_free(lab.worker_wire);
    lab.wire = wire_free(lab.wire);
    lab.lifecycle = lifecycle_free(lab.lifecycle);
    lab.loop = loop_free(lab.loop);
    fault_arm("");
    return remove_tree(lab.dir);
}

Gantry__Lease *worker_lab_lease(uint64_t episode, const char *task, const char *style)
{
    Gantry__Lease *lease = &lab.leases[lab.n_leases];

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
    lab.n_leases++;
    return lease;
}

int worker_lab_can_draw(const char *program)
{
    struct sim_renderer *renderer;
    struct error error = {0};

    if (sim_renderer_open(-1, 8, 8, &renderer, &error) < 0) {
        printf("SKIP %s: %s\n", program, error.text);
        return 0;
    }
    sim_renderer_close(renderer);
    return 1;
}
