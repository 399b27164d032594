/* openvla_heads.c - what is read off hidden states: logits, value, progress; and adding a head to a model without one. */
#include <errno.h>

#include "nn/models/openvla_internal.h"

struct tensor *openvla_logits(const struct openvla *model, struct tape *tape, struct tensor *rows, bool action_only)
{
    if (!action_only)
        return op_linear(tape, rows, model->w->lm_head, NULL);
    return op_linear_rows(tape, rows, model->w->lm_head, model->config.vocab - OPENVLA_ACTION_BINS, OPENVLA_ACTION_BINS);
}

static struct tensor *head_forward(struct tape *tape, struct tensor *x, const struct head *head)
{
    x = op_relu(tape, op_linear(tape, x, head->fc1.weight, head->fc1.bias));
    return op_linear(tape, x, head->fc2.weight, head->fc2.bias);
}

struct tensor *openvla_value(const struct openvla *model, struct tape *tape, struct tensor *rows, const float *extra, bool detach)
{
    const struct openvla_config *c = &model->config;

    if (c->value_width == 0 || (extra != NULL) != (c->value_inputs > 0)) {
        tape->error = tape->error ? tape->error : -EINVAL;
        return NULL;
    }
    if (detach)
        rows = op_detach(tape, rows);
    if (extra)
        rows = op_append_constant(tape, rows, extra, c->value_inputs);
    return head_forward(tape, rows, &model->w->value);
}

struct tensor *openvla_reward(const struct openvla *model, struct tape *tape, struct tensor *rows)
{
    if (model->config.reward_width == 0) {
        tape->error = tape->error ? tape->error : -EINVAL;
        return NULL;
    }
    return head_forward(tape, rows, &model->w->reward);
}

/* Register the head, then move all values into an arena that has room for it. */
static int add_head(struct openvla *model, const char *name, int inputs, int width, struct head *head)
{
    int64_t held = model->params.numel;
    int r = openvla_register_head(model, name, inputs, width, head);

    return r < 0 ? r : params_grow(&model->params, held);
}

int openvla_add_value_head(struct openvla *model, int width, int extra_inputs, uint64_t seed)
{
    int r;

    if (model->config.value_width || width < 1 || extra_inputs < 0)
        return model->config.value_width ? -EEXIST : -EINVAL;
    r = add_head(model, "value_head", model->config.hidden + extra_inputs, width, &model->w->value);
    if (r < 0)
        return r;
    openvla_initialise_head(&model->w->value, seed);
    model->config.value_width = width;
    model->config.value_inputs = extra_inputs;
    return 0;
}

int openvla_add_reward_head(struct openvla *model, int width, uint64_t seed)
{
    int r;

    if (model->config.reward_width || width < 1)
        return model->config.reward_width ? -EEXIST : -EINVAL;
    r = add_head(model, "reward_head", model->config.hidden, width, &model->w->reward);
    if (r < 0)
        return r;
    openvla_initialise_head(&model->w->reward, seed);
    model->config.reward_width = width;
    return 0;
}
