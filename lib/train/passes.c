#include "train/passes.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "train/policy_rows.h"
#include "train/reward_items.h"

struct tensor *gather_action_rows(struct tape *tape, const struct openvla_pass *pass, int n, int rows)
{
    int32_t *index = tape_alloc(tape, (size_t)n * (size_t)rows * sizeof *index);

    if (!index)
        return NULL;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < rows; k++)
            index[i * rows + k] = pass->first[i] + k;
    return op_gather(tape, pass->hidden, index, (int64_t)n * rows);
}

struct policy_call {
    const struct openvla *model;
    const struct dataset *data;
    const struct step_ref *steps;
    double temperature;
    const struct policy_pass *out;
};

static int policy_pass(struct tape *tape, const struct policy_call *call, int first, int last)
{
    const struct policy_pass *out = call->out;
    int n = last - first, width = call->data->width, hidden = call->model->config.hidden, r;
    int ref_width = policy_ref_width(call->data);
    const float *states = NULL, *log_probs;
    struct policy_rows rows;

    r = policy_rows(call->model, tape, call->data, call->steps + first, n, out->logp || out->log_probs, (float)call->temperature,
                    NULL, &rows);
    if (r < 0)
        return r;
    if (out->hidden) {
        states = tape_values(tape, rows.pass.hidden);
        if (!states)
            return tape->error;
    }
    for (int i = 0; i < n && out->hidden; i++)
        memcpy(out->hidden + (size_t)(first + i) * (size_t)hidden,
               states + (size_t)rows.pass.first[i] * (size_t)hidden, (size_t)hidden * sizeof(float));
    if (out->logp)
        memcpy(out->logp + (size_t)first * (size_t)width, rows.stats->logp, (size_t)n * (size_t)width * sizeof(float));
    if (!out->log_probs)
        return 0;
    log_probs = token_log_probs(tape, rows.stats, ref_width);
    if (!log_probs)
        return tape->error;
    memcpy(out->log_probs + (size_t)first * (size_t)width * (size_t)ref_width, log_probs,
           (size_t)n * (size_t)width * (size_t)ref_width * sizeof(float));
    return 0;
}

static int policy_chunk(struct tape *tape, _unused_ int shard, int first, int last, void *arg)
{
    const struct policy_call *call = arg;
    int r;

    tape->plain = call->out->plain;
    r = policy_pass(tape, call, first, last);
    tape->plain = false;        /* the tape is the thread's */
    return r;
}

int pass_policy(const struct openvla *model, struct shards *shards, const struct dataset *data, const struct step_ref *steps,
                int n, double temperature, const struct policy_pass *out)
{
    struct policy_call call = {model, data, steps, temperature, out};

    if (model->params.device != shards_device(shards))
        return -EXDEV;
    return shards_infer(shards, n, PASS_CHUNK, policy_chunk, &call);
}

struct reward_call {
    const struct openvla *model;
    const struct dataset *data;
    const struct step_ref *frames;
    const uint8_t *blank;
    float *progress;
};

/* (n, 1) logits as shares. */
static int keep_progress(struct tape *tape, struct tensor *logit, float *progress, int n)
{
    const float *values = tape_values(tape, logit);

    if (!values)
        return tape->error;
    for (int i = 0; i < n; i++)
        progress[i] = (float)(1 / (1 + exp(-(double)values[i])));
    return 0;
}

/* The same of a reward model of its own backbone. */
static int backbone_chunk(struct tape *tape, _unused_ int shard, int first, int last, void *arg)
{
    struct reward_call *call = arg;
    _cleanup_(reward_items_release) struct reward_items items = {0};
    struct tensor *logit;
    int n = last - first, r = reward_items_make(call->data, call->frames + first, n, call->blank, &items);

    if (r >= 0)
        r = reward_items_logits(call->data->reward, tape, items.items, n, &logit);
    return r < 0 ? r : keep_progress(tape, logit, call->progress + first, n);
}

static int reward_chunk(struct tape *tape, _unused_ int shard, int first, int last, void *arg)
{
    struct reward_call *call = arg;
    int n = last - first;
    struct openvla_item items[PASS_CHUNK] = {0};
    struct openvla_pass pass;
    struct tensor *logit;
    int r;

    for (int i = 0; i < n; i++)
        items[i] = dataset_reward_item(call->data, call->frames[first + i], call->blank);
    r = openvla_forward_tail(call->model, tape, items, n, &pass);
    if (r < 0)
        return r;
    logit = openvla_reward(call->model, tape, gather_action_rows(tape, &pass, n, 1));
    if (!logit)
        return tape->error ? tape->error : -ENOMEM;
    return keep_progress(tape, logit, call->progress + first, n);
}

int pass_reward(const struct openvla *model, struct shards *shards, const struct dataset *data, const struct step_ref *frames,
                int n, const uint8_t *blank, float *ret_progress)
{
    struct reward_call call = {model, data, frames, blank, ret_progress};

    return shards_infer(shards, n, PASS_CHUNK, data->reward ? backbone_chunk : reward_chunk, &call);
}
