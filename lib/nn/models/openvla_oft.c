/* openvla_oft.c - what OpenVLA-OFT adds to the pass: the robot's state as a token, and the heads over the answers. */
#include <errno.h>

#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"

static const float norm_eps = 1e-5f;    /* torch's LayerNorm default */

struct tensor *oft_state_tokens(const struct openvla *model, struct tape *tape, const float *states, int n)
{
    const struct affine *fc = model->w->oft.proprio;
    struct tensor *x = tape_input(tape, states, n, model->config.oft.proprio);

    x = op_gelu(tape, op_linear(tape, x, fc[0].weight, fc[0].bias));
    return op_linear(tape, x, fc[1].weight, fc[1].bias);
}

struct tensor *oft_answers(const struct openvla *model, struct tape *tape, const struct openvla_pass *pass, int n)
{
    int slots = oft_slots(&model->config);
    int32_t *row = tape_alloc(tape, (size_t)n * (size_t)slots * sizeof(*row));

    for (int i = 0; row && i < n * slots; i++)
        row[i] = pass->first[i / slots] + i % slots;
    return row ? op_gather(tape, pass->hidden, row, (int64_t)n * slots) : NULL;
}

static struct tensor *missing_head(struct tape *tape)
{
    tape->error = tape->error ? tape->error : -EINVAL;
    return NULL;
}

/* The dims of one action side by side. */
static struct tensor *by_action(const struct openvla *model, struct tape *tape, struct tensor *answers)
{
    int dims = model->config.action_dims;

    return answers ? op_reshape(tape, answers, answers->rows / dims, answers->cols * dims) : NULL;
}

struct tensor *oft_actions(const struct openvla *model, struct tape *tape, struct tensor *answers)
{
    const struct oft_weights *w = &model->w->oft;
    struct tensor *x, *h;

    if (!model->config.oft.head_width)
        return missing_head(tape);
    x = by_action(model, tape, answers);
    x = op_layernorm(tape, x, w->norm1.weight, w->norm1.bias, norm_eps);
    x = op_relu(tape, op_linear(tape, x, w->fc1.weight, w->fc1.bias));
    for (int i = 0; i < model->config.oft.head_blocks; i++) {
        h = op_layernorm(tape, x, w->block_norm[i].weight, w->block_norm[i].bias, norm_eps);
        h = op_relu(tape, op_linear(tape, h, w->block[i].weight, w->block[i].bias));
        x = op_add(tape, x, h);
    }
    x = op_layernorm(tape, x, w->norm2.weight, w->norm2.bias, norm_eps);
    return op_linear(tape, x, w->fc2.weight, w->fc2.bias);
}

struct tensor *oft_log_scale(const struct openvla *model, struct tape *tape, struct tensor *answers)
{
    const struct head *head = &model->w->oft.scale;
    struct tensor *x;

    if (!model->config.oft.scale_width)
        return missing_head(tape);
    x = by_action(model, tape, answers);
    x = op_relu(tape, op_linear(tape, x, head->fc1.weight, head->fc1.bias));
    x = op_linear(tape, x, head->fc2.weight, head->fc2.bias);
    return op_clamp(tape, x, OFT_LOG_SCALE_MIN, OFT_LOG_SCALE_MAX);
}

void oft_normalise_state(const struct action_stats *stats, const double *state, double *ret)
{
    for (int i = 0; i < stats->proprio; i++) {
        double low = stats->proprio_low[i], high = stats->proprio_high[i];
        double x = 2 * (state[i] - low) / (high - low + 1e-8) - 1;

        ret[i] = CLAMP(x, -1.0, 1.0);
    }
}
