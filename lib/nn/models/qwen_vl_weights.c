/* qwen_vl_weights.c - one table per kind of module: tensor names, shapes, and the place in qwen_weights.
 *
 * What a file has beyond the tables is kept, frozen, and written again on save. */
#include <errno.h>
#include <string.h>

#include "nn/models/qwen_vl_internal.h"
#include "nn/tokenizer.h"

enum size { END, THREE, DIM, DIM_3, MLP, PATCH, TEMPORAL, GROUP, HIDDEN, FEED, VOCAB, Q, KV, SIZES };

struct spec {
    const char *name;
    size_t offset;              /* of the const struct param * */
    uint8_t shape[5];
    bool linear;
};

#define WEIGHT(name, type, field, out, in) {name ".weight", offsetof(type, field), {out, in}, true}
#define AFFINE(name, type, field, out, in) \
    {name ".weight", offsetof(type, field.weight), {out, in}, true}, {name ".bias", offsetof(type, field.bias), {out}, false}
#define SCALE(name, type, field) {name ".weight", offsetof(type, field.weight), {DIM}, false}
#define NORM(name, type, field) SCALE(name, type, field), {name ".bias", offsetof(type, field.bias), {DIM}, false}

static const struct spec patch_table[] = {
    {"patch_embed.proj.weight", offsetof(struct qwen_weights, patch), {DIM, THREE, TEMPORAL, PATCH, PATCH}, true},
};
static const struct spec block_2[] = {
    NORM("norm1", struct qwen_block, norm1),
    AFFINE("attn.qkv", struct qwen_block, qkv, DIM_3, DIM),
    AFFINE("attn.proj", struct qwen_block, proj, DIM, DIM),
    NORM("norm2", struct qwen_block, norm2),
    AFFINE("mlp.fc1", struct qwen_block, fc1, MLP, DIM),
    AFFINE("mlp.fc2", struct qwen_block, fc2, DIM, MLP),
};
static const struct spec block_2_5[] = {
    SCALE("norm1", struct qwen_block, norm1),
    AFFINE("attn.qkv", struct qwen_block, qkv, DIM_3, DIM),
    AFFINE("attn.proj", struct qwen_block, proj, DIM, DIM),
    SCALE("norm2", struct qwen_block, norm2),
    AFFINE("mlp.gate_proj", struct qwen_block, gate, MLP, DIM),
    AFFINE("mlp.up_proj", struct qwen_block, up, MLP, DIM),
    AFFINE("mlp.down_proj", struct qwen_block, down, DIM, MLP),
};
static const struct spec merger_2[] = {
    NORM("ln_q", struct qwen_weights, merger_norm),
    AFFINE("mlp.0", struct qwen_weights, merger[0], GROUP, GROUP),
    AFFINE("mlp.2", struct qwen_weights, merger[1], HIDDEN, GROUP),
};
static const struct spec merger_2_5[] = {
    SCALE("ln_q", struct qwen_weights, merger_norm),
    AFFINE("mlp.0", struct qwen_weights, merger[0], GROUP, GROUP),
    AFFINE("mlp.2", struct qwen_weights, merger[1], HIDDEN, GROUP),
};
static const struct spec language_table[] = {
    {"embed_tokens.weight", offsetof(struct qwen_weights, embedding), {VOCAB, HIDDEN}, false},
    {"norm.weight", offsetof(struct qwen_weights, norm), {HIDDEN}, false},
};
static const struct spec head_table[] = {
    {"lm_head.weight", offsetof(struct qwen_weights, lm_head), {VOCAB, HIDDEN}, false},     /* only picked rows of it are used */
};
static const struct spec layer_table[] = {
    {"input_layernorm.weight", offsetof(struct qwen_layer, norm1), {HIDDEN}, false},
    AFFINE("self_attn.q_proj", struct qwen_layer, q, Q, HIDDEN),
    AFFINE("self_attn.k_proj", struct qwen_layer, k, KV, HIDDEN),
    AFFINE("self_attn.v_proj", struct qwen_layer, v, KV, HIDDEN),
    WEIGHT("self_attn.o_proj", struct qwen_layer, o, HIDDEN, Q),
    {"post_attention_layernorm.weight", offsetof(struct qwen_layer, norm2), {HIDDEN}, false},
    WEIGHT("mlp.gate_proj", struct qwen_layer, gate, FEED, HIDDEN),
    WEIGHT("mlp.up_proj", struct qwen_layer, up, FEED, HIDDEN),
    WEIGHT("mlp.down_proj", struct qwen_layer, down, HIDDEN, FEED),
};

struct walk {
    struct qwen_vl *model;
    const struct hf_shards *shards;     /* NULL: none is read, and everything in the tables is as it should be */
    int64_t size[SIZES];
    struct hf_problems *problems;       /* NULL: stop at the first */
    struct error *error;
};

static int check_tensor(const struct walk *walk, const char *name, const int64_t *dim, int ndim)
{
    const struct st_tensor *tensor = hf_shards_find(walk->shards, name);
    char have[96], want[96];

    shape_text(dim, ndim, want, sizeof(want));
    if (!tensor)
        return hf_problem(walk->problems, walk->error, ENOENT, "%s: tensor %s is missing, expected one of shape [%s]",
                          walk->model->dir, name, want);
    shape_text(tensor->dim, tensor->ndim, have, sizeof(have));
    if (strcmp(have, want))
        return hf_problem(walk->problems, walk->error, EINVAL, "%s: tensor %s: shape [%s], expected [%s]",
                          hf_shards_path(walk->shards, tensor, NULL), name, have, want);
    if (!dtype_is_weight(tensor->dtype))
        return hf_problem(walk->problems, walk->error, EINVAL, "%s: tensor %s: dtype %s, expected BF16, F16 or F32",
                          hf_shards_path(walk->shards, tensor, NULL), name, dtype_name(tensor->dtype));
    return 0;
}

static int add_spec(const struct walk *walk, const char *prefix, const struct spec *spec, void *base)
{
    char name[256];
    struct param *param;
    int64_t dim[5];
    int ndim = 0, r;

    snprintf(name, sizeof(name), "%s%s", prefix, spec->name);
    while (ndim < 5 && spec->shape[ndim] != END) {
        dim[ndim] = walk->size[spec->shape[ndim]];
        ndim++;
    }
    r = walk->shards ? check_tensor(walk, name, dim, ndim) : 0;
    if (r < 0)
        return r;
    param = param_add(&walk->model->params, name, ndim, dim, spec->linear);
    if (!param)
        return error_set(walk->error, EINVAL, "%s: tensor %s: out of memory, or it is there twice", walk->model->dir, name);
    *(const struct param **)((char *)base + spec->offset) = param;
    return 0;
}

static int add_table(const struct walk *walk, const char *prefix, const struct spec *table, size_t n, void *base)
{
    int r = 0;

    for (size_t i = 0; i < n && r >= 0; i++)
        r = add_spec(walk, prefix, &table[i], base);
    return r;
}

static int add_vision(const struct walk *walk, const char *prefix)
{
    const struct qwen_vl_config *c = &walk->model->config;
    struct qwen_weights *w = walk->model->w;
    bool old = c->family == QWEN2_VL;
    char name[128];
    int r;

    w->blocks = calloc((size_t)c->vision.depth, sizeof(*w->blocks));
    if (!w->blocks)
        return error_set(walk->error, ENOMEM, "out of memory");
    r = add_table(walk, prefix, patch_table, ARRAY_SIZE(patch_table), w);
    for (int i = 0; i < c->vision.depth && r >= 0; i++) {
        snprintf(name, sizeof(name), "%sblocks.%d.", prefix, i);
        r = add_table(walk, name, old ? block_2 : block_2_5, old ? ARRAY_SIZE(block_2) : ARRAY_SIZE(block_2_5), &w->blocks[i]);
    }
    snprintf(name, sizeof(name), "%smerger.", prefix);
    return r < 0 ? r : add_table(walk, name, old ? merger_2 : merger_2_5, old ? ARRAY_SIZE(merger_2) : ARRAY_SIZE(merger_2_5), w);
}

static int add_language(const struct walk *walk, const char *prefix)
{
    const struct qwen_vl_config *c = &walk->model->config;
    struct qwen_weights *w = walk->model->w;
    char name[128];
    int r;

    w->layers = calloc((size_t)c->layers, sizeof(*w->layers));
    if (!w->layers)
        return error_set(walk->error, ENOMEM, "out of memory");
    r = add_table(walk, prefix, language_table, ARRAY_SIZE(language_table), w);
    for (int i = 0; i < c->layers && r >= 0; i++) {
        snprintf(name, sizeof(name), "%slayers.%d.", prefix, i);
        r = add_table(walk, name, layer_table, ARRAY_SIZE(layer_table), &w->layers[i]);
    }
    if (r >= 0 && !c->tied)
        r = add_table(walk, "", head_table, ARRAY_SIZE(head_table), w);
    if (c->tied)
        w->lm_head = w->embedding;
    return r;
}

/* What no table knows belongs to another model. Only a tied lm_head, which some save beside the embedding, is kept as it is. */
static int add_rest(const struct walk *walk)
{
    for (int s = 0; s < walk->shards->n; s++)
        for (int i = 0; i < walk->shards->file[s]->count; i++) {
            const struct st_tensor *tensor = &walk->shards->file[s]->list[i];
            char shape[96];
            int r = 0;

            if (param_find(&walk->model->params, tensor->name))
                continue;
            if (walk->model->config.tied && !strcmp(tensor->name, "lm_head.weight") && tensor->ndim == 2) {
                struct param *param = param_add(&walk->model->params, tensor->name, tensor->ndim, tensor->dim, false);

                if (!param)
                    return error_set(walk->error, ENOMEM, "out of memory");
                param->frozen = true;
                continue;
            }
            shape_text(tensor->dim, tensor->ndim, shape, sizeof(shape));
            r = hf_problem(walk->problems, walk->error, EINVAL, "%s: tensor %s: unexpected, found %s [%s], a model of this "
                           "config.json has none of that name", walk->shards->file[s]->path, tensor->name,
                           dtype_name(tensor->dtype), shape);
            if (r < 0)
                return r;
        }
    return 0;
}

int qwen_vl_register(struct qwen_vl *model, const struct hf_shards *shards, struct hf_problems *problems, struct error *error)
{
    const struct qwen_vl_config *c = &model->config;
    bool nested = shards && hf_shards_find(shards, "model.language_model.embed_tokens.weight") != NULL;
    struct walk walk = {.model = model, .shards = shards, .problems = problems, .error = error};
    int64_t *size = walk.size;
    int r;

    size[THREE] = 3;
    size[DIM] = c->vision.dim;
    size[DIM_3] = 3 * (int64_t)c->vision.dim;
    size[MLP] = c->vision.mlp;
    size[PATCH] = c->vision.patch;
    size[TEMPORAL] = c->vision.temporal;
    size[GROUP] = (int64_t)c->vision.merge * c->vision.merge * c->vision.dim;
    size[HIDDEN] = size[Q] = c->hidden;
    size[KV] = (int64_t)c->kv_heads * c->head_dim;
    size[FEED] = c->intermediate;
    size[VOCAB] = c->vocab;
    r = add_vision(&walk, nested ? "model.visual." : "visual.");
    if (r >= 0)
        r = add_language(&walk, nested ? "model.language_model." : "model.");
    if (r >= 0 && shards)
        r = add_rest(&walk);
    model->w->reward_begin = model->params.count;
    return r;
}

int qwen_vl_register_head(struct qwen_vl *model, int width)
{
    struct qwen_weights *w = model->w;
    const struct { const char *name; int ndim; int64_t dim[2]; bool linear; const struct param **to; } list[] = {
        {"reward_head.fc1.weight", 2, {width, model->config.hidden}, true, &w->reward.fc1.weight},
        {"reward_head.fc1.bias", 1, {width}, false, &w->reward.fc1.bias},
        {"reward_head.fc2.weight", 2, {1, width}, true, &w->reward.fc2.weight},
        {"reward_head.fc2.bias", 1, {1}, false, &w->reward.fc2.bias},
    };

    w->reward_begin = model->params.count;
    for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
        *list[i].to = param_add(&model->params, list[i].name, list[i].ndim, list[i].dim, list[i].linear);
        if (!*list[i].to)
            return -ENOMEM;
    }
    return 0;
}

/* Ids that the prompt needs: the tokenizer's must be the model's. */
int qwen_vl_find_words(struct qwen_vl *model, struct error *error)
{
    struct qwen_vl_config *c = &model->config;
    const struct { const char *piece; int id; } list[] = {
        {"<|image_pad|>", c->image_id}, {"<|vision_start|>", c->vision_start_id}, {"<|vision_end|>", c->vision_end_id},
    };

    for (size_t i = 0; i < ARRAY_SIZE(list); i++)
        if (tokenizer_id(model->tokenizer, list[i].piece) != list[i].id)
            return error_set(error, EINVAL, "%s: %s is id %d in config.json and %d in tokenizer.json", model->dir, list[i].piece,
                             list[i].id, tokenizer_id(model->tokenizer, list[i].piece));
    if (tokenizer_id(model->tokenizer, "<|im_start|>") < 0 || tokenizer_id(model->tokenizer, "<|im_end|>") < 0)
        return error_set(error, EINVAL, "%s/tokenizer.json: <|im_start|> or <|im_end|> is missing", model->dir);
    if (tokenizer_size(model->tokenizer) > c->vocab)
        return error_set(error, EINVAL, "%s: the tokenizer has %d pieces, the model %d ids", model->dir,
                         tokenizer_size(model->tokenizer), c->vocab);
    c->yes_id = MAX(tokenizer_id(model->tokenizer, "Yes"), -1);
    c->no_id = MAX(tokenizer_id(model->tokenizer, "No"), -1);
    return 0;
}
