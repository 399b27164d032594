#include "train/policy_rows.h"

#include <errno.h>
#include <string.h>

#include "nn/models/openvla_oft.h"
#include "train/passes.h"

int policy_ref_width(const struct dataset *data)
{
    const struct openvla_config *c = &data->model->config;

    return c->oft.kind == OFT_LAPLACE ? 2 : data->full ? c->vocab_padded : OPENVLA_ACTION_BINS;
}

/* Columns of the support, or the numbers themselves by their bits; 0 where nothing is recorded. */
static void fill_target(const struct dataset *data, struct step_ref at, int count, int32_t *ret)
{
    const struct openvla_config *c = &data->model->config;
    const int32_t *recorded = data->list[at.episode].tokens + at.step * data->token_dims;
    int32_t base = c->oft.kind == OFT_LAPLACE || data->full ? 0 : c->vocab - OPENVLA_ACTION_BINS;

    memset(ret, 0, (size_t)data->width * sizeof *ret);
    for (int k = 0; k < count; k++)
        ret[k] = recorded[k] - base;
}

static struct token_stats *stats_of(const struct openvla *model, struct tape *tape, const struct dataset *data,
                                    const struct openvla_pass *pass, int n, const int32_t *target, float temperature,
                                    const float *ref)
{
    struct tensor *rows;

    if (model->config.oft.kind == OFT_NONE)
        return op_token_stats(tape,
                              openvla_logits(model, tape, gather_action_rows(tape, pass, n, data->width), !data->full), target,
                              temperature, ref);
    rows = oft_answers(model, tape, pass, n);
    if (model->config.oft.kind == OFT_TOKENS)
        return op_token_stats(tape, openvla_logits(model, tape, rows, !data->full), target, temperature, ref);
    return op_laplace_stats(tape, oft_actions(model, tape, rows), oft_log_scale(model, tape, rows), (const float *)target,
                            temperature, ref);
}

int policy_rows(const struct openvla *model, struct tape *tape, const struct dataset *data, const struct step_ref *steps, int n,
                bool tokens, float temperature, const float *ref, struct policy_rows *ret)
{
    struct openvla_item *items = tape_alloc(tape, (size_t)n * sizeof *items);
    int32_t *target = tape_alloc(tape, (size_t)n * (size_t)data->width * sizeof *target);
    int *count = tape_alloc(tape, (size_t)n * sizeof *count), r;
    struct policy_rows out = {.width = data->width, .count = count};

    if (!items || !target || !count)
        return tape->error;
    if (model->config.oft.kind == OFT_L1)
        return -EINVAL;
    for (int i = 0; i < n; i++) {
        items[i] = dataset_policy_item(data, steps[i], tokens ? data->token_dims - 1 : 0);
        count[i] = 0;
        if (!tokens)
            continue;           /* it may be the last picture, at which nobody acted */
        count[i] = dataset_executed(data, steps[i]) * data->token_dims;
        fill_target(data, steps[i], count[i], target + i * data->width);
    }
    r = openvla_forward_tail(model, tape, items, n, &out.pass);
    if (r < 0)
        return r;
    if (tokens) {
        out.stats = stats_of(model, tape, data, &out.pass, n, target, temperature, ref);
        if (!out.stats)
            return tape->error ? tape->error : -ENOMEM;
    }
    *ret = out;
    return 0;
}
