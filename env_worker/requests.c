#include "env_worker/requests.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

void pending_cancel(struct pending_call *call)
{
    if (call->client)
        wire_cancel(call->client, call->id);
    *call = (struct pending_call) {0};
}

static int start_call(struct wire_client *client, const struct wire_call *call, struct pending_call *ret_call)
{
    uint64_t id;
    int r = wire_call(client, call, &id);

    if (r == 0)
        *ret_call = (struct pending_call) { client, id, clock_mono_ms() };
    return r;
}

enum player_answer player_answer_of(int result, const struct message *reply, char *text, size_t size)
{
    if (result < 0)
        snprintf(text, size, "%s", reply && reply->envelope.error[0] ? reply->envelope.error : strerror(-result));
    switch (result) {
    case 0:
        return PLAYER_OK;
    case -ESTALE:
    case -EAGAIN:
        return PLAYER_NOT_YET;
    case -EBADMSG:
    case -EMSGSIZE:
        return PLAYER_BAD_REQUEST;
    default:
        return PLAYER_NO_ANSWER;
    }
}

/* ---- Act ---------------------------------------------------------------------------------------------- */

int request_act(struct wire_client *client, const struct episode *episode, const struct act_ways *ways, const struct act_ask *ask,
                wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call)
{
    struct wire_part pictures[FRAMES_CAMERAS_MAX];
    uint32_t n = ask->frames->shape.cameras;
    Gantry__ActRequest body = GANTRY__ACT_REQUEST__INIT;

    body.episode = episode->lease.episode;
    body.sample_key = episode->lease.sample_key;
    body.step = ask->step;
    body.sample = ask->sample;
    body.value_only = ask->value_only;
    body.want_confidence = ask->confidence;
    body.instruction = (char *)episode->instruction;
    body.image_chain = (char *)ways->chain;
    body.full = ways->full;
    body.end_token = ways->ended;
    body.temperature = ask->temperature;
    body.height = ask->frames->shape.height;
    body.width = ask->frames->shape.width;
    body.images = n;
    body.state = frames_state(ask->frames, ask->row);
    body.n_state = ask->frames->shape.state;
    body.want_hidden = episode->lease.want_hidden;
    for (uint32_t i = 0; i < n; i++)
        pictures[i] = frames_picture(ask->frames, ask->frame, i);
    return start_call(client, &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_ACT, .version = episode->lease.policy_version, .body = &body.base,
        .parts = pictures, .n_parts = n, .deadline_ms = ask->deadline_ms, .on_reply = on_reply, .arg = arg,
    }, ret_call);
}

static bool all_finite(const float *x, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

uint32_t act_chunk(int result, const struct message *reply)
{
    const Gantry__ActReply *act = result < 0 ? NULL : (const Gantry__ActReply *)reply->body;

    return act ? CLAMP(act->chunk, 1u, (uint32_t)ACT_CHUNK_MAX) : 1;
}

/* NULL: the numbers of an answer with c actions can be believed. */
static const char *act_problem(const Gantry__ActReply *act, uint32_t c)
{
    if (!all_finite(act->action, act->n_action))
        return "the action is not finite";
    if (act->n_tokens < c || act->n_tokens % c || act->n_tokens / c > EPISODE_TOKENS_MAX || act->n_logp != act->n_tokens)
        return "tokens and log-probabilities are not equally many for each action";
    if (!all_finite(act->logp, act->n_logp) || !all_finite(act->hidden, act->n_hidden) || !isfinite(act->value) ||
        !isfinite(act->confidence))
        return "a log-probability, a hidden state, the value or the confidence is not finite";
    return NULL;
}

static void take_moves(const Gantry__ActReply *act, uint32_t c, uint32_t dims, struct move *ret_moves)
{
    size_t k = act->n_tokens / c;

    for (uint32_t i = 0; i < c; i++) {
        struct move *move = &ret_moves[i];

        move->n_tokens = (uint32_t)k;
        memcpy(move->tokens, act->tokens + i * k, sizeof(uint32_t) * k);
        memcpy(move->logp, act->logp + i * k, sizeof(float) * k);
        memcpy(move->action, act->action + i * dims, sizeof(float) * dims);
        move->value = act->value;
        move->confidence = act->confidence;
        move->version = act->policy_version;
        move->begins_turn = i == 0;
    }
}

enum player_answer act_answer(int result, const struct message *reply, const struct episode *episode, struct move *ret_moves,
                              uint32_t room, char *text, size_t size)
{
    uint32_t c = act_chunk(result, reply);
    const Gantry__ActReply *act;
    const char *problem;
    enum player_answer answer = player_answer_of(result, reply, text, size);

    if (answer != PLAYER_OK)
        return answer;
    act = (const Gantry__ActReply *)reply->body;
    problem = act_problem(act, c);
    if (act->policy_version != episode->lease.policy_version)
        snprintf(text, size, "act: the actor used version %" PRIu64 ", the lease says %" PRIu64, act->policy_version,
                 (uint64_t)episode->lease.policy_version);
    else if (MAX(act->chunk, 1u) > room)
        snprintf(text, size, "act: %u actions in one answer, %u can be played", act->chunk, room);
    else if (act->n_action != (size_t)c * episode->action_dims)
        snprintf(text, size,
                 "act: the policy's %u actions have %zu dimensions, the simulator takes %u each; name another policy.init", c,
                 act->n_action, episode->action_dims);
    else if (problem)
        snprintf(text, size, "act: %s", problem);
    else {
        take_moves(act, c, episode->action_dims, ret_moves);
        return PLAYER_OK;
    }
    return PLAYER_BAD_ANSWER;
}

enum player_answer value_answer(int result, const struct message *reply, const struct episode *episode, float *ret_value,
                                char *text, size_t size)
{
    enum player_answer answer = player_answer_of(result, reply, text, size);
    const Gantry__ActReply *act;

    if (answer != PLAYER_OK)
        return answer;
    act = (const Gantry__ActReply *)reply->body;
    if (act->policy_version != episode->lease.policy_version || !isfinite(act->value)) {
        snprintf(text, size, "act: a value of version %" PRIu64 " that is %g, wanted a finite one of %" PRIu64,
                 act->policy_version, (double)act->value, (uint64_t)episode->lease.policy_version);
        return PLAYER_BAD_ANSWER;
    }
    *ret_value = act->value;
    return PLAYER_OK;
}

/* ---- Score -------------------------------------------------------------------------------------------- */

int request_score(struct wire_client *client, const struct episode *episode, const struct score_images *images,
                  wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call)
{
    struct wire_part part = frames_part(images->frames, images->first, images->n);
    Gantry__ScoreRequest body = GANTRY__SCORE_REQUEST__INIT;

    body.episode = episode->lease.episode;
    body.instruction = (char *)episode->instruction;
    body.height = images->frames->shape.height;
    body.width = images->frames->shape.width;
    body.images = images->n;
    body.cameras = images->frames->shape.cameras;
    body.at = (uint32_t *)images->at;
    body.n_at = images->n_at;
    body.whole = images->whole;
    body.step = (uint32_t *)images->step;
    body.n_step = images->step ? images->n : 0;
    body.action_dims = images->action ? episode->action_dims : 0;
    body.action = (float *)images->action;
    body.n_action = images->action ? (size_t)(images->n - 1) * episode->action_dims : 0;
    return start_call(client, &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_SCORE, .version = episode->lease.prm_version, .body = &body.base,
        .parts = &part, .n_parts = 1, .deadline_ms = images->deadline_ms, .on_reply = on_reply, .arg = arg,
    }, ret_call);
}

enum player_answer score_answer(int result, const struct message *reply, const struct episode *episode, float *ret_scores,
                                uint32_t n, char *text, size_t size)
{
    const Gantry__ScoreReply *score;
    enum player_answer answer = player_answer_of(result, reply, text, size);
    uint32_t i;

    if (answer != PLAYER_OK)
        return answer;
    score = (const Gantry__ScoreReply *)reply->body;
    if (score->prm_version != episode->lease.prm_version || score->n_progress != n) {
        snprintf(text, size, "score: %zu scores of version %" PRIu64 ", wanted %u of version %" PRIu64, score->n_progress,
                 score->prm_version, n, (uint64_t)episode->lease.prm_version);
        return PLAYER_BAD_ANSWER;
    }
    for (i = 0; i < n; i++)
        if (!(score->progress[i] >= 0 && score->progress[i] <= 1)) {
            snprintf(text, size, "score: %g is not in [0,1]", (double)score->progress[i]);
            return PLAYER_BAD_ANSWER;
        }
    memcpy(ret_scores, score->progress, sizeof(float) * n);
    return PLAYER_OK;
}

/* ---- Deliver, LeaseReturn ---------------------------------------------------------------------------------- */

int request_deliver(struct wire_client *client, const Gantry__Trajectory *trajectory, struct frames *frames, uint32_t n_frames,
                    wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call)
{
    struct wire_part images = frames_part(frames, 0, n_frames);

    return start_call(client, &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_DELIVER, .version = trajectory->policy_version, .body = &trajectory->base,
        .parts = &images, .n_parts = 1, .deadline_ms = DELIVER_DEADLINE_MS, .on_reply = on_reply, .arg = arg,
    }, ret_call);
}

static void on_returned(int result _unused_, const struct message *reply _unused_, void *arg _unused_)
{
}   /* the lease runs out by itself if the message is lost */

void request_return(struct wire_client *client, uint32_t member, uint64_t episode, uint64_t fence, enum lease_return reason,
                    const char *text)
{
    Gantry__LeaseReturn body = GANTRY__LEASE_RETURN__INIT;

    body.member = member;
    body.episode = episode;
    body.fence = fence;
    body.reason = (Gantry__LeaseReturn__Reason)reason;
    body.text = (char *)text;
    (void)wire_call(client, &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_LEASE_RETURN, .body = &body.base, .deadline_ms = RETURN_DEADLINE_MS, .on_reply = on_returned,
    }, NULL);
}
