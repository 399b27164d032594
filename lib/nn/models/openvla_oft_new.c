/* openvla_oft_new.c - fresh heads for an OpenVLA that is to become an OpenVLA-OFT. */
#include <errno.h>
#include <stdio.h>

#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"

enum { MAX_WIDTH = 1 << 16 };

/* name.weight (rows, cols), or (rows) of a norm when cols is 0; name.bias (rows). */
static int add_affine(struct openvla *model, const char *name, int64_t rows, int64_t cols, struct affine *to)
{
    char full[128];

    snprintf(full, sizeof(full), "%s.weight", name);
    to->weight = param_add(&model->params, full, cols ? 2 : 1, (int64_t[]){rows, cols}, cols != 0);
    snprintf(full, sizeof(full), "%s.bias", name);
    to->bias = param_add(&model->params, full, 1, (int64_t[]){rows}, false);
    return to->weight && to->bias ? 0 : -ENOMEM;
}

/* config.json says what the files beside it cannot: that it is one, and how many actions a chunk has. */
static int say_chunk(struct openvla *model, const char *kind, int chunk)
{
    char member[96];

    snprintf(member, sizeof(member), "\"gantry_oft\": {%s\"chunk\": %d, \"images\": %d}", kind, chunk,
             MAX(model->config.oft.images, 1));
    return openvla_say(&model->files, member);
}

int oft_make_tokens(struct openvla *model, int chunk)
{
    struct openvla_config *c = &model->config;
    int r;

    if (c->oft.kind != OFT_NONE)
        return -EEXIST;
    if (chunk < 1 || chunk * c->action_dims > OFT_MAX_SLOTS)
        return -EINVAL;
    r = say_chunk(model, "\"kind\": \"tokens\", ", chunk);
    if (r >= 0)
        c->oft = (struct oft_config) {.kind = OFT_TOKENS, .chunk = chunk, .images = MAX(c->oft.images, 1)};
    return r;
}

static int add_blocks(struct openvla *model, int width, int blocks)
{
    struct oft_weights *w = &model->w->oft;
    int r = 0;

    for (int i = 0; i < blocks && r >= 0; i++) {
        char name[96];

        snprintf(name, sizeof(name), "action_head.model.mlp_resnet_blocks.%d.ffn.0", i);
        r = add_affine(model, name, width, 0, &w->block_norm[i]);
        snprintf(name, sizeof(name), "action_head.model.mlp_resnet_blocks.%d.ffn.1", i);
        if (r >= 0)
            r = add_affine(model, name, width, width, &w->block[i]);
    }
    return r;
}

int oft_add_action_head(struct openvla *model, int chunk, int width, int blocks, uint64_t seed)
{
    struct openvla_config *c = &model->config;
    struct oft_weights *w = &model->w->oft;
    int64_t held = model->params.numel, inputs = (int64_t)c->action_dims * c->hidden;
    int r;

    if (c->oft.kind != OFT_NONE)
        return -EEXIST;
    if (chunk < 1 || chunk * c->action_dims > OFT_MAX_SLOTS || width < 1 || width > MAX_WIDTH || blocks < 0 ||
        blocks > OFT_MAX_BLOCKS)
        return -EINVAL;
    r = add_affine(model, "action_head.model.layer_norm1", inputs, 0, &w->norm1);
    if (r >= 0)
        r = add_affine(model, "action_head.model.fc1", width, inputs, &w->fc1);
    if (r >= 0)
        r = add_blocks(model, width, blocks);
    if (r >= 0)
        r = add_affine(model, "action_head.model.layer_norm2", width, 0, &w->norm2);
    if (r >= 0)
        r = add_affine(model, "action_head.model.fc2", c->action_dims, width, &w->fc2);
    if (r >= 0)
        r = params_grow(&model->params, held);
    if (r >= 0)
        r = say_chunk(model, "", chunk);
    if (r < 0)
        return r;
    openvla_initialise_norm(&w->norm1);
    openvla_initialise_affine(&w->fc1, seed);
    for (int i = 0; i < blocks; i++) {
        openvla_initialise_norm(&w->block_norm[i]);
        openvla_initialise_affine(&w->block[i], seed);
    }
    openvla_initialise_norm(&w->norm2);
    openvla_initialise_affine(&w->fc2, seed);
    c->oft.kind = OFT_L1;
    c->oft.chunk = chunk;
    c->oft.images = MAX(c->oft.images, 1);
    c->oft.head_width = width;
    c->oft.head_blocks = blocks;
    return 0;
}

int oft_add_state(struct openvla *model, int numbers, uint64_t seed)
{
    struct affine *fc = model->w->oft.proprio;
    int64_t held = model->params.numel, hidden = model->config.hidden;
    int r;

    if (model->config.oft.proprio)
        return -EEXIST;
    if (numbers < 1 || numbers > OPENVLA_MAX_PROPRIO)
        return -EINVAL;
    r = add_affine(model, "proprio_projector.fc1", hidden, numbers, &fc[0]);
    if (r >= 0)
        r = add_affine(model, "proprio_projector.fc2", hidden, hidden, &fc[1]);
    if (r >= 0)
        r = params_grow(&model->params, held);
    if (r < 0)
        return r;
    openvla_initialise_affine(&fc[0], seed);
    openvla_initialise_affine(&fc[1], seed);
    model->config.oft.proprio = numbers;
    return 0;
}

int oft_add_scale_head(struct openvla *model, int width, float log_scale, uint64_t seed)
{
    struct head *head = &model->w->oft.scale;
    int64_t held = model->params.numel, dims = model->config.action_dims;
    int r;

    if (model->config.oft.scale_width)
        return -EEXIST;
    if (!model->config.oft.head_width || width < 1 || width > MAX_WIDTH)
        return -EINVAL;
    r = add_affine(model, "scale_head.fc1", width, dims * model->config.hidden, &head->fc1);
    if (r >= 0)
        r = add_affine(model, "scale_head.fc2", dims, width, &head->fc2);
    if (r >= 0)
        r = params_grow(&model->params, held);
    if (r < 0)
        return r;
    openvla_initialise_head(head, seed);
    for (int64_t i = 0; i < dims; i++)
        head->fc2.bias->value[i] = log_scale;
    model->config.oft.scale_width = width;
    model->config.oft.kind = OFT_LAPLACE;
    return 0;
}
