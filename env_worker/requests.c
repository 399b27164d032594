#include "env_worker/requests.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

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
        *ret_call = (struct pending_call) { client, id };
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

int request_act(struct wire_client *client, const struct episode *episode, float temperature, uint32_t step, uint32_t sample,
                struct frames *frames, uint32_t frame, wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call)
{
    struct wire_part image = frames_part(frames, frame, 1);
    Gantry__ActRequest body = GANTRY__ACT_REQUEST__INIT;

    body.episode = episode->lease.episode;
    body.sample_key = episode->lease.sample_key;
    body.step = step;
    body.sample = sample;
    body.instruction = (char *)episode->instruction;
    body.temperature = temperature;
    body.height = frames->height;
    body.width = frames->width;
    body.images = 1;
    body.want_hidden = episode->lease.purpose == GANTRY__PURPOSE__PURPOSE_TRAIN;
    return start_call(client, &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_ACT, .version = episode->lease.policy_version, .body = &body.base,
        .parts = &image, .n_parts = 1, .deadline_ms = ACT_DEADLINE_MS, .on_reply = on_reply, .arg = arg,
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

enum player_answer act_answer(int result, const struct message *reply, const struct episode *episode, struct move *ret_move,
                              char *text, size_t size)
{
    const Gantry__ActReply *act;
    enum player_answer answer = player_answer_of(result, reply, text, size);

    if (answer != PLAYER_OK)
        return answer;
    act = (const Gantry__ActReply *)reply->body;
    if (act->policy_version != episode->lease.policy_version)
        snprintf(text, size, "act: the actor used version %" PRIu64 ", the lease says %" PRIu64, act->policy_version,
                 (uint64_t)episode->lease.policy_version);
    else if (act->n_action != SIM_ACTION_DIMS)
        snprintf(text, size, "act: the policy's actions have %zu dimensions, the simulator takes %d; name another policy.init", act->n_action, SIM_ACTION_DIMS);
    else if (!all_finite(act->action, act->n_action))
        snprintf(text, size, "act: the action is not finite");
    else if (act->n_tokens < 1 || act->n_tokens > EPISODE_TOKENS_MAX || act->n_logp != act->n_tokens)
        snprintf(text, size, "act: %zu tokens with %zu log-probabilities", act->n_tokens, act->n_logp);
    else if (!all_finite(act->logp, act->n_logp) || !all_finite(act->hidden, act->n_hidden) || !isfinite(act->value))
        snprintf(text, size, "act: a log-probability, a hidden state or the value is not finite");
    else {
        ret_move->n_tokens = (uint32_t)act->n_tokens;
        memcpy(ret_move->tokens, act->tokens, sizeof(uint32_t) * act->n_tokens);
        memcpy(ret_move->logp, act->logp, sizeof(float) * act->n_logp);
        memcpy(ret_move->action, act->action, sizeof(ret_move->action));
        ret_move->value = act->value;
        ret_move->version = act->policy_version;
        return PLAYER_OK;
    }
    return PLAYER_BAD_ANSWER;
}

/* ---- Score -------------------------------------------------------------------------------------------- */

int request_score(struct wire_client *client, const struct episode *episode, const struct score_images *images,
                  wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call)
{
    struct wire_part part = frames_part(images->frames, images->first, images->n);
    Gantry__ScoreRequest body = GANTRY__SCORE_REQUEST__INIT;

    body.episode = episode->lease.episode;
    body.instruction = (char *)episode->instruction;
    body.height = images->frames->height;
    body.width = images->frames->width;
    body.images = images->n;
    body.at = (uint32_t *)images->at;
    body.n_at = images->n_at;
    return start_call(client, &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_SCORE, .version = episode->lease.prm_version, .body = &body.base,
        .parts = &part, .n_parts = 1, .deadline_ms = SCORE_DEADLINE_MS, .on_reply = on_reply, .arg = arg,
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

int request_deliver(struct wire_client *client, const Gantry__Trajectory *trajectory, struct frames *frames,
                    wire_reply_fn *on_reply, void *arg, struct pending_call *ret_call)
{
    struct wire_part images = frames_part(frames, 0, trajectory->steps + 1);

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
