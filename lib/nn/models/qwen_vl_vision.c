/* qwen_vl_vision.c - the vision tower: patches in merge order, blocks with 2-D rotary attention, 2x2 groups merged into tokens.
 *
 * A still picture fills both frames of a patch: each channel's part of the row stands twice, so that the row meets the Conv3d
 * kernel as it is in the file. (Adding the kernel's halves instead would save a thousandth of the tower.) */
#include <errno.h>
#include <string.h>

#include "image/smart_resize.h"
#include "nn/models/qwen_vl_internal.h"

static const float eps = 1e-6f;         /* of every norm in the tower */

/* The same on a device: the picture's bytes go there, cut into patches, an eighth of what rows in fp32 take; they are one tall
 * picture to the op. */
static struct tensor *pixels_on(const struct qwen_vl *model, struct tape *tape, const struct qwen_layout *l)
{
    const struct qwen_vision_config *c = &model->config.vision;
    int64_t area = (int64_t)c->patch * c->patch;
    uint8_t *cut = tape_alloc(tape, (size_t)(3 * l->patches * area));
    const uint8_t **image = tape_alloc(tape, sizeof(*image));
    struct pictures all = {.b = 1, .height = (int)l->patches * c->patch, .width = c->patch, .patch = c->patch};

    if (!cut || !image)
        return NULL;
    for (int p = 0; p < l->n_pictures && !tape->planning; p++) {
        const struct qwen_picture *picture = &l->pictures[p];

        if (image_qwen_cut(picture->rgb, picture->height, picture->width, c->patch, c->merge,
                           cut + 3 * l->picture_start[p] * area) < 0) {
            tape->error = -EINVAL;
            return NULL;
        }
    }
    *image = cut;
    all.images = image;
    return op_repeat(tape, op_patches(tape, &all, model->lut[0]), area, c->temporal);
}

/* (patches, 3 * temporal * patch * patch), a constant input. */
static struct tensor *pixels(const struct qwen_vl *model, struct tape *tape, const struct qwen_layout *l)
{
    const struct qwen_vision_config *c = &model->config.vision;
    int64_t area = (int64_t)c->patch * c->patch, still = 3 * area, cols = still * c->temporal;
    float *x = tape_host_numbers(tape, l->patches * cols), *once = tape_host_numbers(tape, l->patches * still);

    for (int p = 0; x && once && p < l->n_pictures; p++) {
        const struct qwen_picture *picture = &l->pictures[p];

        if (image_qwen_patches(picture->rgb, picture->height, picture->width, c->patch, c->merge, model->lut,
                               once + l->picture_start[p] * still) < 0) {
            tape->error = -EINVAL;
            return NULL;
        }
    }
    for (int64_t r = 0; x && once && r < l->patches; r++)
        for (int64_t k = 0; k < 3 * c->temporal; k++)
            memcpy(x + r * cols + k * area, once + r * still + k / c->temporal * area, (size_t)area * sizeof(*x));
    return tape->error ? NULL : tape_input(tape, x, l->patches, cols);
}

static struct tensor *norm(struct tape *tape, struct tensor *x, const struct qwen_affine *n)
{
    return n->bias ? op_layernorm(tape, x, n->weight, n->bias, eps) : op_rmsnorm(tape, x, n->weight, eps);
}

static struct tensor *linear(struct tape *tape, struct tensor *x, const struct qwen_affine *a)
{
    return op_linear(tape, x, a->weight, a->bias);
}

/* looked_at: x itself is still wanted, by who compares blocks. */
static struct tensor *block(const struct qwen_vl *model, struct tape *tape, struct tensor *x, const struct qwen_block *b,
                            struct spans spans, const float *table, bool looked_at)
{
    const struct qwen_vision_config *c = &model->config.vision;
    const struct tensor *before = x;
    size_t mark = tape_mark(tape);
    struct tensor *h = linear(tape, norm(tape, x, &b->norm1), &b->qkv);

    h = op_rope_table(tape, h, table, 2 * c->heads, c->dim / c->heads);
    h = op_attention_qkv(tape, h, spans, c->heads, ATTENTION_FULL);
    h = linear(tape, h, &b->proj);
    x = looked_at ? op_residual(tape, x, h, NULL) : op_add_to(tape, x, h, NULL);
    h = norm(tape, x, &b->norm2);
    if (model->config.family == QWEN2_VL)
        h = linear(tape, op_quick_gelu(tape, linear(tape, h, &b->fc1)), &b->fc2);
    else
        h = linear(tape, op_swiglu(tape, linear(tape, h, &b->gate), linear(tape, h, &b->up)), &b->down);
    return tape_keep_block(tape, mark, before, op_add_to(tape, x, h, NULL));
}

struct tensor *qwen_vision(const struct qwen_vl *model, struct tape *tape, const struct qwen_layout *l, struct qwen_pass *pass)
{
    const struct qwen_vision_config *c = &model->config.vision;
    const struct qwen_weights *w = model->w;
    struct spans whole = {l->n_pictures, l->picture_start}, windows = {l->n_windows, l->window_start};
    float *table = qwen_vision_table(c, tape, l);
    size_t mark = tape_mark(tape);
    struct tensor *x = op_linear(tape, tape->on ? pixels_on(model, tape, l) : pixels(model, tape, l), w->patch, NULL);

    pass->patches = x;
    if (c->window)
        x = op_gather(tape, x, l->window_rows, l->patches);
    x = tape_keep(tape, mark, x);
    for (int i = 0; i < c->depth; i++) {
        x = block(model, tape, x, &w->blocks[i], c->window && !c->whole[i] ? windows : whole, table, pass->block != NULL);
        if (pass->block)
            pass->block[i] = x;
    }
    x = op_merge(tape, norm(tape, x, &w->merger_norm), c->merge * c->merge);
    x = linear(tape, op_gelu(tape, linear(tape, x, &w->merger[0])), &w->merger[1]);
    pass->merged = x;
    if (c->window)
        x = op_gather(tape, x, l->window_back, l->merged);
    pass->embeds = x = tape_keep(tape, mark, x);
    return x;
}
