#include "env_worker/slot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "version.h"
#include "env_worker/lookahead.h"

static void step_player(struct slot *slot, const struct player_event *event);

void slot_init(struct slot *slot, struct slot_shared *shared, unsigned index)
{
    *slot = (struct slot) { .shared = shared, .index = index };
    player_init(&slot->player, &player_limits_default, (uint64_t)index << 48);
}

void slot_release(struct slot *slot)
{
    lookahead_cancel(TAKE_PTR(slot->search));
    pending_cancel(&slot->call);
    frames_unref(slot->search_frames);
    episode_release(&slot->episode);
    free(slot->moves);
    free(slot->at);
    free(slot->scores);
}

static int reserve_moves(struct slot *slot, uint32_t n)
{
    struct move *moves;

    if (slot->move_room >= n)
        return 0;
    moves = realloc(slot->moves, sizeof(*moves) * n);
    if (!moves)
        return -ENOMEM;
    slot->moves = moves;
    slot->move_room = n;
    return 0;
}

/* ---- simulator jobs -------------------------------------------------------------------------------------- */

static bool is_current(const struct slot *slot, uint64_t ticket)
{
    return slot->player.ticket == ticket;       /* else the player has given it up: its outcome must not be kept */
}

static void on_reset(struct sim_job *job)
{
    struct slot *slot = job->owner;

    if (is_current(slot, job->ticket)) {
        snprintf(slot->episode.instruction, sizeof(slot->episode.instruction), "%s", job->instruction);
        if (job->drawn)
            episode_observed(&slot->episode, 0);
        slot->episode.sim_us += job->us;
        slot->shared->totals.sim_us += job->us;
        slot->shared->totals.sim_wall_us += job->wall_us;
        step_player(slot, &(struct player_event) {
            .kind = PLAYER_RESET_DONE, .ticket = job->ticket, .sim = { .result = job->result, .text = job->text } });
    }
    sim_job_free(job);
}

static int record(struct slot *slot, const struct sim_job *job, const struct move *move)
{
    struct episode_step step = { .action = job->action, .reward = job->reward };

    if (move) {
        step.tokens = move->tokens;
        step.logp = move->logp;
        step.n_tokens = move->n_tokens;
        step.value = move->value;
        step.version = move->version;
        step.begins_turn = move->begins_turn;
    } else {
        step.label = job->label;
    }
    return episode_record(&slot->episode, &step);
}

static void on_step(struct sim_job *job)
{
    struct slot *slot = job->owner;
    int r = job->result;

    if (is_current(slot, job->ticket)) {
        slot->episode.sim_us += job->us;
        slot->shared->totals.sim_us += job->us;
        slot->shared->totals.sim_wall_us += job->wall_us;
        slot->shared->totals.steps += r == 0;
        if (job->perturbed)
            slot->episode.perturbed_at = slot->episode.steps + 1;
        if (r == 0)
            r = record(slot, job, job->kind == SIM_JOB_STEP ? &slot->moves[job->candidate] : NULL);
        if (r == 0 && job->drawn)
            episode_observed(&slot->episode, slot->episode.steps);
        step_player(slot, &(struct player_event) {
            .kind = PLAYER_STEP_DONE, .ticket = job->ticket,
            .sim = { .result = r, .success = job->success,
                     .text = job->result < 0 ? job->text : "the episode's record is full" } });
    }
    sim_job_free(job);
}

/* A job of this slot after which the episode is at o_t; NULL: out of memory (the player hears of it). */
static struct sim_job *new_job(struct slot *slot, enum sim_job_kind kind, uint64_t ticket, uint32_t t,
                               void (*done)(struct sim_job *))
{
    struct sim_job *job = sim_job_new(kind, slot->index, ticket, done, slot);

    if (!job) {
        step_player(slot, &(struct player_event) {
            .kind = kind == SIM_JOB_RESET ? PLAYER_RESET_DONE : PLAYER_STEP_DONE, .ticket = ticket,
            .sim = { .result = -ENOMEM, .text = "out of memory" } });
        return NULL;
    }
    job->frames = frames_ref(slot->episode.frames);
    job->frame = slot->episode.n_observed;
    job->row = t;
    return job;
}

static void do_reset(struct slot *slot, const struct player_effect *effect)
{
    struct sim_job *job = new_job(slot, SIM_JOB_RESET, effect->ticket, 0, on_reset);

    if (!job)
        return;
    snprintf(job->task, sizeof(job->task), "%s", slot->episode.task);
    job->split = (enum sim_split)slot->episode.lease.split;
    job->seed = slot->episode.lease.state_seed;
    simulation_submit(slot->shared->simulation, job);
}

static void do_step(struct slot *slot, const struct player_effect *effect)
{
    bool expert = slot->player.terms.expert;
    const struct episode *e = &slot->episode;
    struct sim_job *job = new_job(slot, expert ? SIM_JOB_DEMONSTRATE : SIM_JOB_STEP, effect->ticket, effect->step + 1, on_step);

    if (!job)
        return;
    if (expert) {       /* its noise is keyed like the policy's sampling: by run and episode, never by who plays */
        snprintf(job->style, sizeof(job->style), "%s", e->style);
        job->seed = slot->shared->seed * 0x9E3779B97F4A7C15u ^ (e->lease.sample_key ? e->lease.sample_key : e->lease.episode);
        job->step = (int)effect->step;
    } else {
        job->candidate = effect->action;        /* which of the moves this is */
        memcpy(job->action, slot->moves[effect->action].action, sizeof(job->action));
        job->between_turns = e->lease.draw_turns && effect->action + 1 < slot->n_moves && effect->step + 1 < e->lease.max_steps;
    }
    if (e->perturb[0] && !e->perturbed_at) {
        snprintf(job->perturb, sizeof(job->perturb), "%s", e->perturb);
        job->perturb_seed = e->lease.state_seed;        /* the same for all who are compared on this state */
        job->step = (int)effect->step;
        job->limit = (int)e->lease.max_steps;
    }
    simulation_submit(slot->shared->simulation, job);
}

/* ---- requests --------------------------------------------------------------------------------------------- */

/* The call is over: forget it and say what it was for. */
static uint64_t call_ended(struct slot *slot, int result)
{
    servers_took(&slot->shared->servers, slot->call.client, result, slot->call.since_ms);
    slot->call = (struct pending_call) {0};
    return slot->call_ticket;
}

static void send_acted(struct slot *slot, uint64_t ticket, enum player_answer answer, uint32_t actions, const char *text)
{
    step_player(slot, &(struct player_event) {
        .kind = PLAYER_ACTED, .ticket = ticket, .acted = { .answer = answer, .actions = actions, .text = text } });
}

/* What that says of the server. */
static void note_server(struct slot *slot, const struct wire_client *server, enum player_answer answer)
{
    if (server && (answer == PLAYER_OK || answer == PLAYER_NO_ANSWER || answer == PLAYER_BAD_ANSWER))
        servers_note(&slot->shared->servers, server, answer == PLAYER_OK);
}

static void on_act(int result, const struct message *reply, void *arg)
{
    struct slot *slot = arg;
    const struct wire_client *server = slot->call.client;
    uint64_t ticket = call_ended(slot, result), us = (clock_mono_ns() - slot->call_since_ns) / 1000;
    char text[120] = "";
    uint32_t chunk = act_chunk(result, reply);
    enum player_answer answer = PLAYER_NO_ANSWER;

    if (reserve_moves(slot, chunk) == 0)
        answer = act_answer(result, reply, &slot->episode, slot->moves, chunk, text, sizeof(text));
    if (result != -ECANCELED)
        note_server(slot, server, answer);
    if (answer == PLAYER_OK && episode_note_hidden(&slot->episode, (const Gantry__ActReply *)reply->body) < 0)
        answer = PLAYER_NO_ANSWER;
    slot->episode.act_us += us;
    slot->shared->totals.act_wait_us += us;
    slot->n_moves = chunk;
    send_acted(slot, ticket, answer, chunk, text);
}

static void on_searched(struct slot *slot, const struct lookahead_result *result)
{
    uint64_t ticket = slot->call_ticket;
    enum player_answer answer = result->answer;

    slot->search = NULL;
    slot->episode.act_us += (clock_mono_ns() - slot->call_since_ns) / 1000;
    if (answer == PLAYER_OK && reserve_moves(slot, result->n_moves) < 0)
        answer = PLAYER_NO_ANSWER;
    if (answer == PLAYER_OK) {
        memcpy(slot->moves, result->moves, sizeof(*slot->moves) * result->n_moves);
        slot->n_moves = result->n_moves;
        slot->episode.state_digest = slot->episode.state_digest * 31 + result->state_digest;
    }
    send_acted(slot, ticket, answer, slot->n_moves, result->text);
}

static void do_act(struct slot *slot, const struct player_effect *effect)
{
    const Gantry__Lease *lease = &slot->episode.lease;
    struct wire_client *actor = servers_pick(&slot->shared->servers, GANTRY__ROLE__ROLE_ACTOR, effect->version,
                                            slot->index + slot->player.failures);
    char text[120] = "no actor is known";
    int r = -ENOTCONN;

    slot->call_ticket = effect->ticket;
    slot->call_since_ns = clock_mono_ns();
    if (lease->search_n > 1) {      /* refine, too, has a lease with n > 1 */
        r = lookahead_start(slot, on_searched, &slot->search, text, sizeof(text));
        if (r == -EINVAL) {
            send_acted(slot, effect->ticket, PLAYER_BROKEN, 0, text);
            return;
        }
    } else if (actor) {
        slot->episode.policy_steps++;
        r = request_act(actor, &slot->episode, &(struct act_ways) {slot->shared->chain, slot->shared->full, slot->shared->ended},
                        &(struct act_ask) {
            .temperature = lease->temperature, .step = effect->step, .frames = slot->episode.frames,
            .frame = slot->episode.n_observed - 1, .row = effect->step,
            .deadline_ms = servers_patience(&slot->shared->servers, actor, ACT_DEADLINE_MS),
        }, on_act, slot, &slot->call);
        snprintf(text, sizeof(text), "act: %s", strerror(-r));
    }
    if (r < 0)
        send_acted(slot, effect->ticket, PLAYER_NO_ANSWER, 0, text);
}

static void send_scored(struct slot *slot, uint64_t ticket, enum player_answer answer, const char *text)
{
    step_player(slot, &(struct player_event) {
        .kind = PLAYER_SCORED, .ticket = ticket, .answered = { .answer = answer, .text = text } });
}

static void on_score(int result, const struct message *reply, void *arg)
{
    struct slot *slot = arg;
    const struct wire_client *server = slot->call.client;
    uint64_t ticket = call_ended(slot, result);
    char text[120] = "";
    enum player_answer answer = score_answer(result, reply, &slot->episode, slot->scores, slot->n_at, text, sizeof(text));

    if (result != -ECANCELED)
        note_server(slot, server, answer);
    slot->episode.score_us += (clock_mono_ns() - slot->call_since_ns) / 1000;
    if (answer == PLAYER_OK)
        episode_set_progress(&slot->episode, slot->at, slot->scores, slot->n_at);
    send_scored(slot, ticket, answer, text);
}

static int reserve_scores(struct slot *slot, uint32_t n)
{
    uint32_t *at;
    float *scores;

    if (slot->at_room >= n)
        return 0;
    at = realloc(slot->at, sizeof(*at) * n);
    if (at)
        slot->at = at;
    scores = realloc(slot->scores, sizeof(*scores) * n);
    if (scores)
        slot->scores = scores;
    if (!at || !scores)
        return -ENOMEM;
    slot->at_room = n;
    return 0;
}

static void do_score(struct slot *slot, const struct player_effect *effect)
{
    struct wire_client *prm = servers_pick(&slot->shared->servers, GANTRY__ROLE__ROLE_PRM_SERVER, effect->version,
                                          slot->index + slot->player.failures);
    const struct episode *e = &slot->episode;
    _cleanup_free_ float *actions = episode_observed_actions(e);
    int r = !prm ? -ENOTCONN : actions ? reserve_scores(slot, e->n_observed) : -ENOMEM;

    slot->call_ticket = effect->ticket;
    slot->call_since_ns = clock_mono_ns();
    if (r == 0) {
        slot->n_at = episode_score_at(&slot->episode, slot->at);
        r = request_score(prm, &slot->episode, &(struct score_images) {
            .frames = e->frames, .n = e->n_observed, .at = slot->at, .n_at = slot->n_at,
            .step = e->n_observed <= e->steps ? e->observed : NULL, .action = actions, .whole = true,
            .deadline_ms = servers_patience(&slot->shared->servers, prm, SCORE_DEADLINE_MS),
        }, on_score, slot, &slot->call);
    }
    if (r < 0)
        send_scored(slot, effect->ticket, PLAYER_NO_ANSWER, prm ? strerror(-r) : "no prm_server is known");
}

static void send_delivered(struct slot *slot, uint64_t ticket, enum player_answer answer, enum deliver_verdict verdict,
                           const char *text)
{
    step_player(slot, &(struct player_event) {
        .kind = PLAYER_DELIVERED, .ticket = ticket, .delivered = { .answer = answer, .verdict = verdict, .text = text } });
}

static void on_deliver(int result, const struct message *reply, void *arg)
{
    struct slot *slot = arg;
    uint64_t ticket = call_ended(slot, result);
    char text[120] = "";
    enum player_answer answer = player_answer_of(result, reply, text, sizeof(text));
    const Gantry__DeliverReply *deliver = answer == PLAYER_OK ? (const Gantry__DeliverReply *)reply->body : NULL;

    if (deliver && deliver->verdict == GANTRY__DELIVER_REPLY__VERDICT__REFUSED) {
        log_warn("delivery refused", "episode=%" PRIu64 " reason=%s", (uint64_t)slot->episode.lease.episode,
                 LOG_Q(deliver->text));
        if (deliver->answers)
            answer = PLAYER_BAD_ANSWER;
    }
    send_delivered(slot, ticket, answer, deliver ? (enum deliver_verdict)deliver->verdict : DELIVER_ACCEPTED,
                   deliver ? deliver->text : text);
}

static void do_deliver(struct slot *slot, const struct player_effect *effect)
{
    struct wire_client *learner = servers_pick(&slot->shared->servers, GANTRY__ROLE__ROLE_LEARNER, 0, 0);
    Gantry__Trajectory trajectory;
    int r = -ENOTCONN;

    slot->call_ticket = effect->ticket;
    if (learner) {
        episode_trajectory(&slot->episode, effect->success, effect->timeout, &trajectory);
        trajectory.run = slot->shared->wire->run;
        trajectory.member = member_id(slot->shared->member);
        trajectory.worker_build = (char *)GANTRY_BUILD;
        trajectory.image_chain = slot->shared->chain;
        trajectory.full_support = slot->shared->full && !slot->episode.style[0];
        trajectory.end_token = slot->shared->ended && !slot->episode.style[0];
        r = request_deliver(learner, &trajectory, slot->episode.frames, slot->episode.n_observed, on_deliver, slot, &slot->call);
    }
    if (r < 0)
        send_delivered(slot, effect->ticket, PLAYER_NO_ANSWER, DELIVER_ACCEPTED, learner ? strerror(-r) : "no learner is known");
}

/* ---- the player --------------------------------------------------------------------------------------------- */

static void do_return(struct slot *slot, const struct player_effect *effect)
{
    static const char *const faults[] = {[LEASE_GIVEN_BACK] = "none", [LEASE_SIMULATOR_ERROR] = "simulator",
                                         [LEASE_SERVER_ERROR] = "server"};

    log_warn("lease given back", "episode=%" PRIu64 " slot=%u fault=%s reason=%s", effect->episode, slot->index,
             faults[effect->reason], LOG_Q(effect->text));
    slot->shared->totals.returned++;
    request_return(member_client(slot->shared->member), member_id(slot->shared->member), effect->episode, effect->fence,
                   effect->reason, effect->text);
}

static void do_effect(struct slot *slot, const struct player_effect *effect)
{
    switch (effect->kind) {
    case PLAYER_DO_RESET:
        do_reset(slot, effect);
        break;
    case PLAYER_DO_ACT:
        do_act(slot, effect);
        break;
    case PLAYER_DO_STEP:
        do_step(slot, effect);
        break;
    case PLAYER_DO_SCORE:
        do_score(slot, effect);
        break;
    case PLAYER_DO_DELIVER:
        do_deliver(slot, effect);
        break;
    case PLAYER_DO_RETURN:
        do_return(slot, effect);
        break;
    case PLAYER_DO_CANCEL:      /* a simulator job comes back with an old ticket and is dropped then */
        pending_cancel(&slot->call);
        lookahead_cancel(TAKE_PTR(slot->search));
        break;
    case PLAYER_DO_FREE:
        slot->shared->totals.episodes += effect->played;
        slot->shared->on_free(slot, slot->shared->arg);
        break;
    }
}

static void step_player(struct slot *slot, const struct player_event *event)
{
    struct player_effects effects = {0};
    unsigned i;

    player_step(&slot->player, event, loop_now_ms(slot->shared->loop), &effects);
    for (i = 0; i < effects.n; i++)
        do_effect(slot, &effects.items[i]);
}

void slot_lease(struct slot *slot, const Gantry__Lease *lease)
{
    const struct frames_shape *shape = &slot->shared->shape;
    const uint32_t dims = (uint32_t)simulation_action_dims(slot->shared->simulation);
    int limit = simulation_max_steps(slot->shared->simulation, lease->task), r;
    uint32_t max_steps = lease->max_steps ? lease->max_steps : (uint32_t)MAX(limit, 0);
    struct player_effect refuse = {
        .kind = PLAYER_DO_RETURN, .episode = lease->episode, .fence = lease->fence, .reason = LEASE_SIMULATOR_ERROR,
    };

    if (limit < 0) {
        snprintf(refuse.text, sizeof(refuse.text), "this worker's simulator has no task '%.60s'", lease->task);
    } else if (lease->split == GANTRY__SPLIT__SPLIT_TEST && lease->purpose != GANTRY__PURPOSE__PURPOSE_EVAL) {
        snprintf(refuse.text, sizeof(refuse.text), "a test state for another purpose than an evaluation");
    } else if (max_steps < 1 || (size_t)max_steps + 1 > WIRE_FRAME_MAX / frames_one(shape)) {
        snprintf(refuse.text, sizeof(refuse.text), "max_steps %u does not fit a trajectory", max_steps);
    } else if ((r = episode_begin(&slot->episode, lease, max_steps, shape, dims)) < 0) {
        refuse.reason = r == -ENOMEM ? LEASE_GIVEN_BACK : LEASE_SIMULATOR_ERROR;
        snprintf(refuse.text, sizeof(refuse.text), "episode cannot begin: %s", strerror(-r));
    } else {
        log_debug("lease", "episode=%" PRIu64 " slot=%u task=%s", (uint64_t)lease->episode, slot->index, lease->task);
        step_player(slot, &(struct player_event) { .kind = PLAYER_LEASE, .terms = {
            .episode = lease->episode, .fence = lease->fence, .policy_version = lease->policy_version,
            .prm_version = lease->prm_version, .max_steps = max_steps, .expert = slot->episode.style[0] != '\0' } });
        return;
    }
    do_return(slot, &refuse);
}

void slot_revoke(struct slot *slot, uint64_t episode)
{
    step_player(slot, &(struct player_event) { .kind = PLAYER_REVOKED, .episode = episode });
}

void slot_give_up(struct slot *slot, const char *reason)
{
    step_player(slot, &(struct player_event) { .kind = PLAYER_GIVE_UP, .reason = reason });
}

bool slot_waits(const struct slot *slot)
{
    if (slot->call.client)
        return wire_client_up(slot->call.client);
    return slot->search && lookahead_waits(slot->search);
}

void slot_tick(struct slot *slot)
{
    if (slot_busy(slot))
        step_player(slot, &(struct player_event) { .kind = PLAYER_TICK });
}
