/* openvla_weights.c - one table per kind of module: tensor names, shapes, initial values, and the place in openvla_weights.
 *
 * The same walk over the tables registers a model that is read and one that is made. A file must have what the tables have and
 * nothing beyond: a tensor that no table knows belongs to another architecture. */
#include <errno.h>
#include <math.h>

#include "base/crc32c.h"
#include "base/philox.h"
#include "base/strbuf.h"
#include "nn/models/openvla_internal.h"

/* Sizes that shapes are made of; tower's and model's in one array. */
enum size { END, ONE, THREE, DIM, DIM_2, DIM_3, MLP, PATCH, PATCHES, REGISTERS, FUSED, FUSED_4, HIDDEN, FEED, VOCAB, KV, SIZES };
enum init { INIT_ZERO, INIT_ONE, INIT_UNIFORM /* +-1/sqrt(inputs) */, INIT_TOKEN, INIT_POSITION, INIT_EMBEDDING };
enum flag { LINEAR = 1, OPTIONAL = 2, UNUSED = 4 /* in the file, never run */, SCALE = 8, PREFIX = 16, POOL = 32 };

struct spec {
    const char *name;
    size_t offset;              /* of the const struct param * */
    uint8_t shape[4];
    uint8_t init, flags;
};

#define AFFINE(name, type, field, out, in)                                           \
    {name ".weight", offsetof(type, field.weight), {out, in}, INIT_UNIFORM, LINEAR}, \
    {                                                                                \
        name ".bias", offsetof(type, field.bias), {out}, INIT_ZERO, 0                \
    }
#define NORM(name, type, field)                                         \
    {name ".weight", offsetof(type, field.weight), {DIM}, INIT_ONE, 0}, \
    {                                                                   \
        name ".bias", offsetof(type, field.bias), {DIM}, INIT_ZERO, 0   \
    }
#define UNUSED_AFFINE(name, out, in, kind) \
    {name ".weight", 0, {out, in}, kind, UNUSED | OPTIONAL | POOL}, {name ".bias", 0, {out}, INIT_ZERO, UNUSED | OPTIONAL | POOL}

static const struct spec vit_table[] = {
    {"cls_token", offsetof(struct vit, cls), {ONE, ONE, DIM}, INIT_TOKEN, OPTIONAL | PREFIX},
    {"reg_token", offsetof(struct vit, reg), {ONE, REGISTERS, DIM}, INIT_TOKEN, OPTIONAL | PREFIX},
    {"pos_embed", offsetof(struct vit, position), {ONE, PATCHES, DIM}, INIT_POSITION, 0},
    {"patch_embed.proj.weight", offsetof(struct vit, patch.weight), {DIM, THREE, PATCH, PATCH}, INIT_UNIFORM, LINEAR},
    {"patch_embed.proj.bias", offsetof(struct vit, patch.bias), {DIM}, INIT_ZERO, 0},
};
static const struct spec block_table[] = {
    NORM("norm1", struct vit_block, norm1),
    AFFINE("attn.qkv", struct vit_block, qkv, DIM_3, DIM),
    AFFINE("attn.proj", struct vit_block, proj, DIM, DIM),
    {"ls1.scale_factor", offsetof(struct vit_block, scale1), {DIM}, INIT_ONE, OPTIONAL | SCALE},
    NORM("norm2", struct vit_block, norm2),
    AFFINE("mlp.fc1", struct vit_block, fc1, MLP, DIM),
    AFFINE("mlp.fc2", struct vit_block, fc2, DIM, MLP),
    {"ls2.scale_factor", offsetof(struct vit_block, scale2), {DIM}, INIT_ONE, OPTIONAL | SCALE},
};
static const struct spec vit_unused_table[] = {
    {"norm.weight", 0, {DIM}, INIT_ONE, UNUSED | OPTIONAL},
    {"norm.bias", 0, {DIM}, INIT_ZERO, UNUSED | OPTIONAL},
    {"attn_pool.latent", 0, {ONE, ONE, DIM}, INIT_TOKEN, UNUSED | OPTIONAL | POOL},
    UNUSED_AFFINE("attn_pool.q", DIM, DIM, INIT_UNIFORM),
    UNUSED_AFFINE("attn_pool.kv", DIM_2, DIM, INIT_UNIFORM),
    UNUSED_AFFINE("attn_pool.proj", DIM, DIM, INIT_UNIFORM),
    UNUSED_AFFINE("attn_pool.norm", DIM, END, INIT_ONE),
    UNUSED_AFFINE("attn_pool.mlp.fc1", MLP, DIM, INIT_UNIFORM),
    UNUSED_AFFINE("attn_pool.mlp.fc2", DIM, MLP, INIT_UNIFORM),
};
static const struct spec trunk_table[] = {
    AFFINE("projector.fc1", struct openvla_weights, projector[0], FUSED_4, FUSED),
    AFFINE("projector.fc2", struct openvla_weights, projector[1], HIDDEN, FUSED_4),
    AFFINE("projector.fc3", struct openvla_weights, projector[2], HIDDEN, HIDDEN),
    {"language_model.model.embed_tokens.weight", offsetof(struct openvla_weights, embedding), {VOCAB, HIDDEN}, INIT_EMBEDDING, 0},
    {"language_model.model.norm.weight", offsetof(struct openvla_weights, norm), {HIDDEN}, INIT_ONE, 0},
    {"language_model.lm_head.weight", offsetof(struct openvla_weights, lm_head), {VOCAB, HIDDEN}, INIT_UNIFORM, LINEAR},
};
#define WEIGHT(name, field, out, in) {name ".weight", offsetof(struct llama_layer, field), {out, in}, INIT_UNIFORM, LINEAR}
static const struct spec layer_table[] = {
    {"input_layernorm.weight", offsetof(struct llama_layer, norm1), {HIDDEN}, INIT_ONE, 0},
    WEIGHT("self_attn.q_proj", q, HIDDEN, HIDDEN), WEIGHT("self_attn.k_proj", k, KV, HIDDEN),
    WEIGHT("self_attn.v_proj", v, KV, HIDDEN),     WEIGHT("self_attn.o_proj", o, HIDDEN, HIDDEN),
    {"post_attention_layernorm.weight", offsetof(struct llama_layer, norm2), {HIDDEN}, INIT_ONE, 0},
    WEIGHT("mlp.gate_proj", gate, FEED, HIDDEN),   WEIGHT("mlp.up_proj", up, FEED, HIDDEN),
    WEIGHT("mlp.down_proj", down, HIDDEN, FEED),
};

struct walk {
    struct openvla *model;
    const struct hf_shards *shards;     /* NULL: a fresh model */
    int64_t size[SIZES];
    uint8_t absent;                     /* flags of optional tensors a fresh model goes without */
    uint8_t wanted;                     /* flags of optional tensors of which the files have some: then all must be there */
    bool frozen;
    struct hf_problems *problems;       /* NULL: stop at the first */
    struct error *error;
};

static int check_tensor(const struct walk *walk, const struct st_tensor *tensor, const struct param *want)
{
    const char *path = hf_shards_path(walk->shards, tensor, NULL);
    char have_shape[96], want_shape[96];

    shape_text(tensor->dim, tensor->ndim, have_shape, sizeof(have_shape));
    shape_text(want->dim, want->ndim, want_shape, sizeof(want_shape));
    if (tensor->ndim != want->ndim || memcmp(tensor->dim, want->dim, (size_t)want->ndim * sizeof(want->dim[0])))
        return hf_problem(walk->problems, walk->error, EINVAL, "%s: tensor %s: shape [%s], expected [%s]", path, want->name,
                          have_shape, want_shape);
    if (!dtype_is_weight(tensor->dtype))
        return hf_problem(walk->problems, walk->error, EINVAL, "%s: tensor %s: dtype %s, expected BF16, F16 or F32", path,
                          want->name, dtype_name(tensor->dtype));
    return 0;
}

static int missing(const struct walk *walk, const struct param *want)
{
    char shape[96];

    shape_text(want->dim, want->ndim, shape, sizeof(shape));
    return hf_problem(walk->problems, walk->error, ENOENT, "%s: tensor %s is missing, expected one of shape [%s]",
                      walk->shards->n == 1 ? walk->shards->file[0]->path : walk->model->dir, want->name, shape);
}

/* By parameter: how a fresh model fills it, and how it lay in the files. */
static int note(const struct walk *walk, const struct st_tensor *tensor, uint8_t init)
{
    struct openvla_weights *w = walk->model->w;
    uint8_t *inits = reallocarray(w->init, (size_t)w->trunk + 1, sizeof(*inits));
    struct openvla_layout *layouts;
    int file = 0;

    if (inits)
        w->init = inits;
    layouts = reallocarray(w->layout, (size_t)w->trunk + 1, sizeof(*layouts));
    if (layouts)
        w->layout = layouts;
    if (!inits || !layouts)
        return error_set(walk->error, ENOMEM, "out of memory");
    inits[w->trunk] = init;
    layouts[w->trunk] = (struct openvla_layout) {.dtype = DTYPE_F32};
    if (tensor) {
        (void)hf_shards_path(walk->shards, tensor, &file);
        layouts[w->trunk] = (struct openvla_layout) {
            .shard = file, .place = (int)(tensor - walk->shards->file[file]->list), .dtype = tensor->dtype,
        };
    }
    w->trunk++;
    return 0;
}

/* Register one tensor of a table below `prefix`; base is the struct its offset counts from. */
static int add_spec(const struct walk *walk, const char *prefix, const struct spec *spec, void *base)
{
    _cleanup_(strbuf_release) struct strbuf name = STRBUF_INIT;
    const struct st_tensor *tensor = NULL;
    struct param *param;
    int64_t dim[4];
    int ndim = 0, r;

    strbuf_addf(&name, "%s%s", prefix, spec->name);
    if (name.failed)
        return error_set(walk->error, ENOMEM, "out of memory");
    if (walk->shards)
        tensor = hf_shards_find(walk->shards, name.text);
    if (walk->shards ? !tensor && (spec->flags & OPTIONAL) && !(spec->flags & walk->wanted) : (spec->flags & walk->absent) != 0)
        return 0;
    while (ndim < 4 && spec->shape[ndim] != END) {
        dim[ndim] = walk->size[spec->shape[ndim]];
        ndim++;
    }
    param = param_add(&walk->model->params, name.text, ndim, dim, (spec->flags & LINEAR) && !walk->frozen);
    if (!param)
        return error_set(walk->error, ENOMEM, "tensor %s: out of memory, or it is there twice", name.text);
    param->frozen = walk->frozen || (spec->flags & UNUSED);
    r = note(walk, tensor, spec->init);
    if (r >= 0 && walk->shards)
        r = tensor ? check_tensor(walk, tensor, param) : missing(walk, param);
    if (r < 0)
        return r;
    if (!(spec->flags & UNUSED))
        *(const struct param **)((char *)base + spec->offset) = param;
    return 0;
}

static int add_table(const struct walk *walk, const char *prefix, const struct spec *table, size_t n, void *base)
{
    for (size_t i = 0; i < n; i++) {
        int r = add_spec(walk, prefix, &table[i], base);

        if (r < 0)
            return r;
    }
    return 0;
}

static bool any_scale(const struct hf_shards *shards, const char *prefix, int depth)
{
    char name[96];

    for (int i = 0; i < 2 * depth; i++) {
        snprintf(name, sizeof(name), "%sblocks.%d.ls%d.scale_factor", prefix, i / 2, i % 2 + 1);
        if (hf_shards_find(shards, name))
            return true;
    }
    return false;
}

static int add_vit(struct walk *walk, int which)
{
    static const char *const prefix[2] = {"vision_backbone.featurizer.", "vision_backbone.fused_featurizer."};
    const struct openvla_tower *tower = &walk->model->config.tower[which];
    struct vit *vit = &walk->model->w->vit[which];
    int64_t *size = walk->size;
    int r;

    size[DIM] = tower->dim;
    size[DIM_2] = 2 * tower->dim;
    size[DIM_3] = 3 * tower->dim;
    size[MLP] = tower->mlp;
    size[PATCH] = tower->patch;
    size[PATCHES] = walk->model->config.patches;
    size[REGISTERS] = tower->prefix - 1;
    walk->absent = tower->prefix ? POOL : PREFIX | SCALE;       /* as DINOv2 with registers and SigLIP have them */
    walk->wanted = walk->shards && any_scale(walk->shards, prefix[which], tower->depth) ? SCALE : 0;
    vit->blocks = calloc((size_t)tower->depth, sizeof(*vit->blocks));
    if (!vit->blocks)
        return error_set(walk->error, ENOMEM, "out of memory");
    r = add_table(walk, prefix[which], vit_table, ARRAY_SIZE(vit_table), vit);
    for (int i = 0; i < tower->depth && r >= 0; i++) {
        char block[96];

        snprintf(block, sizeof(block), "%sblocks.%d.", prefix[which], i);
        walk->frozen = i == tower->depth - 1;
        r = add_table(walk, block, block_table, ARRAY_SIZE(block_table), &vit->blocks[i]);
    }
    walk->frozen = false;
    return r < 0 ? r : add_table(walk, prefix[which], vit_unused_table, ARRAY_SIZE(vit_unused_table), NULL);
}

/* Constants that older transformers saved among the weights; nobody reads them. */
static bool is_buffer(const char *name)
{
    static const char suffix[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name);

    return n >= sizeof(suffix) && !strcmp(name + n - (sizeof(suffix) - 1), suffix);
}

static int check_rest(const struct walk *walk)
{
    for (int s = 0; s < walk->shards->n; s++)
        for (int i = 0; i < walk->shards->file[s]->count; i++) {
            const struct st_tensor *tensor = &walk->shards->file[s]->list[i];
            char shape[96];
            int r;

            if (is_buffer(tensor->name) || param_find(&walk->model->params, tensor->name))
                continue;
            shape_text(tensor->dim, tensor->ndim, shape, sizeof(shape));
            r = hf_problem(walk->problems, walk->error, EINVAL, "%s: tensor %s: unexpected, found %s [%s], an OpenVLA of this "
                           "config.json has none of that name", walk->shards->file[s]->path, tensor->name,
                           dtype_name(tensor->dtype), shape);
            if (r < 0)
                return r;
        }
    return 0;
}

int openvla_register(struct openvla *model, const struct hf_shards *shards, struct hf_problems *problems, struct error *error)
{
    const struct openvla_config *c = &model->config;
    struct walk walk = {.model = model, .shards = shards, .problems = problems, .error = error};
    int64_t fused = c->tower[0].dim + c->tower[1].dim;
    int r;

    walk.size[ONE] = 1;
    walk.size[THREE] = 3;
    walk.size[FUSED] = fused;
    walk.size[FUSED_4] = 4 * fused;
    walk.size[HIDDEN] = walk.size[KV] = c->hidden;
    walk.size[FEED] = c->intermediate;
    walk.size[VOCAB] = c->vocab_padded;
    model->w->layers = calloc((size_t)c->layers, sizeof(*model->w->layers));
    if (!model->w->layers)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < 2; i++) {
        r = add_vit(&walk, i);
        if (r < 0)
            return r;
    }
    r = add_table(&walk, "", trunk_table, ARRAY_SIZE(trunk_table), model->w);
    for (int i = 0; i < c->layers && r >= 0; i++) {
        char layer[64];

        snprintf(layer, sizeof(layer), "language_model.model.layers.%d.", i);
        r = add_table(&walk, layer, layer_table, ARRAY_SIZE(layer_table), &model->w->layers[i]);
    }
    return r < 0 || !shards ? r : check_rest(&walk);
}

int openvla_register_head(struct openvla *model, const char *name, int inputs, int width, struct head *head)
{
    const struct { const char *suffix; int ndim; int64_t dim[2]; bool linear; const struct param **to; } list[] = {
        {"fc1.weight", 2, {width, inputs}, true, &head->fc1.weight},
        {"fc1.bias", 1, {width}, false, &head->fc1.bias},
        {"fc2.weight", 2, {1, width}, true, &head->fc2.weight},
        {"fc2.bias", 1, {1}, false, &head->fc2.bias},
    };

    for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
        char full[64];

        snprintf(full, sizeof(full), "%s.%s", name, list[i].suffix);
        *list[i].to = param_add(&model->params, full, list[i].ndim, list[i].dim, list[i].linear);
        if (!*list[i].to)
            return -ENOMEM;
    }
    return 0;
}

/* Keyed by the tensor's name: what else is in the model does not matter. */
void openvla_init_begin(const struct param *param, uint8_t kind, uint64_t seed, struct openvla_init *ret)
{
    int64_t inputs = param->numel / MAX(param->dim[0], 1);

    *ret = (struct openvla_init) {
        .kind = kind,
        .random = philox_at(seed, PHILOX_INIT, crc32c(0, param->name, strlen(param->name)), 0, 0),
        .bound = 1.0f / sqrtf((float)MAX(inputs, 1)),
    };
}

void openvla_init_next(struct openvla_init *init, float *ret, int64_t n)
{
    struct philox *random = &init->random;

    for (int64_t i = 0; i < n; i++)
        switch ((enum init)init->kind) {
        case INIT_ZERO: ret[i] = 0.0f; break;
        case INIT_ONE: ret[i] = 1.0f; break;
        case INIT_UNIFORM: ret[i] = (2.0f * philox_uniform(random) - 1.0f) * init->bound; break;
        case INIT_TOKEN: ret[i] = 0.02f * (float)philox_normal(random); break;
        case INIT_POSITION: ret[i] = 0.06f * (float)philox_normal(random); break;
        case INIT_EMBEDDING: ret[i] = 0.1f * (float)philox_normal(random); break;
        }
}

static void fill(const struct param *param, enum init kind, uint64_t seed)
{
    struct openvla_init init;

    openvla_init_begin(param, kind, seed, &init);
    openvla_init_next(&init, param->value, param->numel);
}

void openvla_initialise(struct openvla *model, uint64_t seed)
{
    for (int i = 0; i < model->params.count; i++)
        fill(model->params.list[i], (enum init)model->w->init[i], seed);
}

void openvla_initialise_affine(const struct affine *map, uint64_t seed)
{
    fill(map->weight, INIT_UNIFORM, seed);
    fill(map->bias, INIT_ZERO, seed);
}

void openvla_initialise_norm(const struct affine *norm)
{
    fill(norm->weight, INIT_ONE, 0);
    fill(norm->bias, INIT_ZERO, 0);
}

void openvla_initialise_head(const struct head *head, uint64_t seed)
{
    fill(head->fc1.weight, INIT_UNIFORM, seed);
    fill(head->fc1.bias, INIT_ZERO, seed);
    fill(head->fc2.weight, INIT_ZERO, seed);
    fill(head->fc2.bias, INIT_ZERO, seed);
}
