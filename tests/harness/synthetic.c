#include "tests/harness/synthetic.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/philox.h"
#include "image/smart_resize.h"
#include "nn/cpu/kernels.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_synth.h"
#include "nn/models/qwen_vl_internal.h"
#include "tests/harness/scratch.h"

enum { BLOCK = 65521 };         /* a prime: rows of a matrix begin at different places of it */

/* ---- values --------------------------------------------------------------------------------------------- */

static bool hollow;

void synthetic_hollow(void) { hollow = true; }

/* Draws the first n values of parameter i; returns what tells parameters of other distributions apart. */
typedef double draw_fn(const void *of, int i, float *block, int64_t n);

/* As a fresh model's. */
static double draw_policy(const void *of, int i, float *block, int64_t n)
{
    const struct openvla *model = of;
    struct openvla_init init;

    openvla_init_begin(model->params.list[i], model->w->init[i], 1, &init);
    openvla_init_next(&init, block, n);
    return init.kind + (double)init.bound;
}

/* Matrices +-1/sqrt(inputs), norms 1, biases 0. */
static double draw_reward(const void *of, int i, float *block, int64_t n)
{
    const struct qwen_vl *model = of;
    const struct param *p = model->params.list[i];
    struct philox random = philox_at(1, PHILOX_TEST, (uint64_t)i, 1, 0);
    bool norm = (strstr(p->name, "norm") || strstr(p->name, "ln_q")) && !strstr(p->name, "bias");
    int64_t columns = p->numel / p->dim[0];
    float bound = 1.0f / sqrtf((float)columns);

    for (int64_t k = 0; k < n; k++)
        block[k] = p->ndim >= 2 ? bound * (2 * philox_uniform(&random) - 1) : norm ? 1.0f : 0.0f;
    return (double)bound;
}

/* Matrices of one distribution share their memory: each begins at another place of a row of equal blocks. */
struct pool { double of; int64_t numel, at; };

static int lay_pools(const struct params *params, int n, draw_fn *draw, const void *of, int *ret_which, struct pool *ret)
{
    float few[1];
    int pools = 0;

    for (int i = 0; i < n; i++) {
        double what = draw(of, i, few, MIN(params->list[i]->numel, (int64_t)ARRAY_SIZE(few)));
        int k = 0;

        while (k < pools && ret[k].of != what)
            k++;
        if (k == pools)
            ret[pools++] = (struct pool) {.of = what};
        ret_which[i] = k;
        if (params->list[i]->half)
            ret[k].numel = MAX(ret[k].numel, params->list[i]->numel + BLOCK);
    }
    return pools;
}

static void fill_pool(uint16_t *to, const float *block, int64_t n)
{
    for (int64_t k = 0; k < MIN(n, BLOCK); k++)
        to[k] = float_to_bf16(block[k]);
    for (int64_t at = BLOCK; at < n; at += BLOCK)
        memcpy(to + at, to, (size_t)MIN(n - at, BLOCK) * sizeof(*to));
}

static int allocate_hollow(struct params *params)
{
    for (int i = 0; i < params->count; i++) {
        struct param *p = params->list[i];
        void *at = p->half ? mmap(NULL, (size_t)p->numel * sizeof(*p->bf16), PROT_READ,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : NULL;

        if (at == MAP_FAILED)
            return -ENOMEM;
        p->bf16 = at;
    }
    return params_allocate(params);
}

static int allocate_pools(struct params *params, int n, draw_fn *draw, const void *of, float *block)
{
    _cleanup_free_ int *which = calloc((size_t)n, sizeof(*which));
    _cleanup_free_ struct pool *pools = calloc((size_t)n, sizeof(*pools));
    _cleanup_free_ uint16_t *memory = NULL;
    int n_pools = which && pools ? lay_pools(params, n, draw, of, which, pools) : 0, r;
    int64_t all = 0;

    for (int k = 0; k < n_pools; k++) {
        pools[k].at = all;
        all += pools[k].numel;
    }
    memory = malloc(MAX((size_t)all, (size_t)1) * sizeof(*memory));
    if (!n_pools || !memory)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        struct param *p = params->list[i];
        struct pool *pool = &pools[which[i]];

        if (!p->half)
            continue;
        if (pool->numel) {              /* the first of its kind draws for all */
            draw(of, i, block, BLOCK);
            fill_pool(memory + pool->at, block, pool->numel);
            pool->numel = 0;
        }
        p->bf16 = memory + pool->at + (int64_t)i * 12289 % BLOCK;
    }
    r = params_allocate(params);
    if (r >= 0)
        params->halves = TAKE_PTR(memory);      /* freed with them */
    return r;
}

/* Allocates and fills; the first n are drawn. */
static int make(struct params *params, int n, draw_fn *draw, const void *of)
{
    _cleanup_free_ float *block = calloc(BLOCK, sizeof(*block));
    int r = !block ? -ENOMEM : hollow ? allocate_hollow(params) : allocate_pools(params, n, draw, of, block);

    for (int i = 0; i < n && r >= 0; i++) {
        struct param *p = params->list[i];

        if (p->half)
            continue;
        draw(of, i, block, MIN(p->numel, BLOCK));
        for (int64_t at = 0; at < p->numel; at += BLOCK)
            memcpy(p->value + at, block, (size_t)MIN(p->numel - at, BLOCK) * sizeof(*block));
    }
    return r;
}

void synthetic_speak(struct params *params, uint64_t seed)
{
    for (int i = 0; i < params->count; i++) {
        struct param *p = params->list[i];
        bool is_b = p->adapter && strstr(p->name, "lora_B") != NULL, is_head = strstr(p->name, "_head.fc2.weight") != NULL;
        struct philox random = philox_at(seed, PHILOX_TEST, (uint64_t)i, 0, 0);

        for (int64_t k = 0; k < p->numel && !p->half && (is_b || is_head); k++)
            p->value[k] = (is_head ? .1f : .01f) * (2 * philox_uniform(&random) - 1);
    }
}

/* ---- policies ----------------------------------------------------------------------------------------------- */

static void remove_files(const char *dir)
{
    static const char *const names[] = {"config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "generation_config.json", "added_tokens.json", "processor_config.json"};
    char path[128];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

static void keep_halves(struct openvla *model)
{
    for (int i = 0; i < model->w->trunk; i++) {
        struct param *p = model->params.list[i];

        p->half = p->ndim >= 2 && (p->linear || p->frozen || p == model->w->embedding);
    }
}

struct openvla *synthetic_shapes_of_7b(void)
{
    struct openvla *model = calloc(1, sizeof(*model));

    if (!model || !(model->w = calloc(1, sizeof(*model->w))))
        return openvla_free(model);
    model->config = (struct openvla_config) {
        .tower = {{.dim = 1024, .depth = 24, .heads = 16, .mlp = 4096, .patch = 14, .prefix = 5},
                  {.dim = 1152, .depth = 27, .heads = 16, .mlp = 4304, .patch = 14}},
        .patches = 256, .hidden = 4096, .layers = 32, .heads = 32, .intermediate = 11008, .vocab = 32000, .vocab_padded = 32064,
        .image_height = 224, .image_width = 224, .action_dims = 7,
    };
    if (openvla_register(model, NULL, NULL, NULL) < 0)
        return openvla_free(model);
    for (int i = 0; i < model->params.count; i++)
        model->w->layout[i].dtype = DTYPE_BF16;
    return model;
}

int synthetic_policy(const char *name, int layers, struct openvla **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    const struct openvla_size *found = openvla_size_find(name);
    struct openvla_size size;
    char dir[SCRATCH_PATH];
    int r;

    if (!found)
        return error_set(error, EINVAL, "%s: there is no size of this name (gantry model synth --help lists them)", name);
    size = *found;
    for (int i = 0; i < 2 && layers; i++)
        size.tower[i].depth = MIN(size.tower[i].depth, layers + 1);
    size.layers = layers ? MIN(size.layers, layers) : size.layers;
    scratch_new(dir);
    r = openvla_synth_files(&size, dir, DTYPE_BF16, error);
    if (r >= 0)
        r = openvla_plan(dir, &model, error);
    remove_files(dir);
    if (r < 0)
        return r;
    keep_halves(model);
    r = make(&model->params, model->w->trunk, draw_policy, model);
    if (r < 0)
        return error_set(error, -r, "%s: no memory for its values", name);
    *ret = TAKE_PTR(model);
    return 0;
}

/* ---- reward models ------------------------------------------------------------------------------------------ */

static const struct qwen_vl_config qwen_2b = {
    .family = QWEN2_VL,
    .vision = {.dim = 1280, .depth = 32, .heads = 16, .mlp = 5120, .patch = 14, .temporal = 2, .merge = 2, .rope_theta = 10000},
    .hidden = 1536, .layers = 28, .heads = 12, .kv_heads = 2, .head_dim = 128, .intermediate = 8960, .vocab = 151936,
    .section = {16, 24, 24},
    .rms_eps = 1e-6f, .rope_theta = 1e6f, .tied = true, .max_positions = 32768, .image_id = 151655, .vision_start_id = 151652,
    .vision_end_id = 151653, .yes_id = -1, .no_id = -1,
};
static const struct qwen_vl_config qwen_small = {
    .family = QWEN2_VL,
    .vision = {.dim = 64, .depth = 2, .heads = 4, .mlp = 128, .patch = 14, .temporal = 2, .merge = 2, .rope_theta = 10000},
    .hidden = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .intermediate = 96, .vocab = 64, .section = {2, 3, 3},
    .rms_eps = 1e-6f, .rope_theta = 1e6f, .tied = true, .max_positions = 4096, .image_id = 60, .vision_start_id = 61,
    .vision_end_id = 62, .yes_id = -1, .no_id = -1,
};

int synthetic_reward(bool small, struct qwen_vl **ret, struct error *error)
{
    static const double mean[3] = {.48145466, .4578275, .40821073}, std[3] = {.26862954, .26130258, .27577711};
    _cleanup_(qwen_vl_freep) struct qwen_vl *model = calloc(1, sizeof(*model));
    int r;

    if (!model || !(model->w = calloc(1, sizeof(*model->w))))
        return error_set(error, ENOMEM, "out of memory");
    model->config = small ? qwen_small : qwen_2b;
    model->dtype = DTYPE_BF16;
    image_qwen_lut(mean, std, model->lut);
    r = qwen_vl_register(model, NULL, NULL, error);
    if (r < 0)
        return r;
    for (int i = 0; i < model->params.count; i++)
        model->params.list[i]->half = model->params.list[i]->ndim >= 2;
    r = make(&model->params, model->params.count, draw_reward, model);
    if (r >= 0)
        r = qwen_vl_add_reward_head(model, 256, 1);
    if (r < 0)
        return error_set(error, -r, "a reward model: no memory for its values");
    synthetic_speak(&model->params, 3);
    *ret = TAKE_PTR(model);
    return 0;
}

int synthetic_prompt(const struct qwen_vl *model, int side, int text, int32_t **ret_ids, int *ret_n)
{
    const struct qwen_vl_config *c = &model->config;
    int group = c->vision.patch * c->vision.merge, tokens = side / group * (side / group), n = tokens + 2 + text;
    int32_t *ids = calloc((size_t)n, sizeof(*ids));

    if (!ids)
        return -ENOMEM;
    ids[0] = c->vision_start_id;
    for (int i = 1; i <= tokens; i++)
        ids[i] = c->image_id;
    ids[tokens + 1] = c->vision_end_id;
    for (int i = 0; i < text; i++)
        ids[tokens + 2 + i] = (i * 37 + 11) % MIN(c->vocab, 50);
    *ret_ids = ids;
    *ret_n = n;
    return 0;
}
