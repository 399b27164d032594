/* qwen_vl_forward.c - the whole pass: pictures, text, the splice of both, and what is read off the last hidden state. */
#include <errno.h>

#include "nn/models/qwen_vl_internal.h"

static int forward(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n, bool full,
                   struct qwen_pass *ret)
{
    struct qwen_layout *layout = tape_alloc(tape, sizeof(*layout));
    struct qwen_pass pass = {.layout = layout};
    struct tensor *x, *embeds = NULL;
    int r;

    if (!layout)
        return tape->error;
    r = qwen_layout(model, tape, items, n, layout);
    if (r < 0)
        return tape->error ? tape->error : r;
    if (full) {
        pass.block = tape_alloc(tape, (size_t)model->config.vision.depth * sizeof(*pass.block));
        pass.layer = tape_alloc(tape, ((size_t)model->config.layers + 1) * sizeof(*pass.layer));
        if (!pass.block || !pass.layer)
            return tape->error;
    }
    if (layout->n_pictures)
        embeds = qwen_vision(model, tape, layout, &pass);
    x = op_embedding(tape, model->w->embedding, layout->ids, layout->text);
    if (layout->n_pictures)
        x = op_splice(tape, x, embeds, layout->splice, layout->rows);
    x = qwen_text(model, tape, x, layout, !full, pass.layer);
    pass.hidden = full ? x : NULL;
    pass.last = full ? op_gather(tape, x, layout->last, n) : x;
    if (!pass.last)
        return tape->error ? tape->error : -EINVAL;
    *ret = pass;
    return 0;
}

int qwen_vl_forward(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n, struct qwen_pass *ret)
{
    return forward(model, tape, items, n, false, ret);
}

int qwen_vl_forward_full(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n,
                         struct qwen_pass *ret)
{
    return forward(model, tape, items, n, true, ret);
}

struct tensor *qwen_vl_reward(const struct qwen_vl *model, struct tape *tape, struct tensor *last)
{
    const struct qwen_weights *w = model->w;

    if (model->config.reward_width == 0) {
        tape->error = tape->error ? tape->error : -ENOTSUP;
        return NULL;
    }
    last = op_relu(tape, op_linear(tape, last, w->reward.fc1.weight, w->reward.fc1.bias));
    return op_linear(tape, last, w->reward.fc2.weight, w->reward.fc2.bias);
}

struct tensor *qwen_vl_logits(const struct qwen_vl *model, struct tape *tape, struct tensor *rows, const int32_t *ids, int64_t n)
{
    return op_linear_picked(tape, rows, model->w->lm_head, ids, n);
}
