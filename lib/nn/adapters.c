#include "nn/adapters_internal.h"

#include <errno.h>
#include <math.h>

#include "base/crc32c.h"
#include "base/philox.h"
#include "base/strbuf.h"
#include "nn/lora_join.h"
#include "nn/safetensors.h"

struct adapters *adapters_free(struct adapters *lora)
{
    if (!lora)
        return NULL;
    peft_config_release(&lora->config);
    free(lora->was_frozen);
    free(lora);
    return NULL;
}

/* ---- which modules ------------------------------------------------------------------------------------------ */

/* What modulates the vision towers (FiLM): the original puts it on after the adapters, so it is trained whole, like a head. */
static bool is_modulation(const struct param *p)
{
    return !strncmp(p->name, "vision_backbone.", 16) && (strstr(p->name, ".scale.") || strstr(p->name, ".shift."));
}

/* The checkpoint's own: heads beside it are trained whole. */
static bool is_trunk(const struct param *p)
{
    static const char *const parts[] = {"vision_backbone.", "projector.", "language_model.",    /* OpenVLA */
                                        "visual.", "model.", "lm_head."};                      /* Qwen-VL */

    for (size_t i = 0; i < ARRAY_SIZE(parts) && !is_modulation(p); i++)
        if (!strncmp(p->name, parts[i], strlen(parts[i])))
            return true;
    return false;
}

bool adapters_leave_whole(const struct param *p) { return !p->adapter && !is_trunk(p); }

/* The name of the linear module or convolution that has this weight. Of Qwen-VL's vocabulary only picked rows are used, which no
 * adapter reaches (ops/linear_picked.c). */
bool adapters_module(const struct param *p, char ret[ADAPTERS_NAME])
{
    size_t n = strlen(p->name);

    if (!strcmp(p->name, "lm_head.weight"))
        return false;

    if (p->adapter || !is_trunk(p) || (p->ndim != 2 && p->ndim != 4) || n < 8 || n >= ADAPTERS_NAME ||
        strcmp(p->name + n - 7, ".weight") ||
        strstr(p->name, "embed_tokens"))
        return false;
    memcpy(ret, p->name, n - 7);
    ret[n - 7] = '\0';
    return true;
}

void adapters_tensor_name(const char *module, char which, char ret[ADAPTERS_NAME + 40])
{
    snprintf(ret, ADAPTERS_NAME + 40, ADAPTERS_PREFIX "%s.lora_%c.weight", module, which);
}

/* ---- attaching ------------------------------------------------------------------------------------------------ */

/* Parameters A and B of a weight; those of one that never runs are kept, frozen. */
static int add_pair(const struct adapted *model, struct param *weight, const char *module, int64_t r, double scale)
{
    int64_t a_dim[4] = {r, weight->dim[1], weight->dim[2], weight->dim[3]}, b_dim[4] = {weight->dim[0], r, 1, 1};
    char a_name[ADAPTERS_NAME + 40], b_name[ADAPTERS_NAME + 40];
    struct param *a, *b;

    adapters_tensor_name(module, 'A', a_name);
    adapters_tensor_name(module, 'B', b_name);
    a = param_add(model->params, a_name, weight->ndim, a_dim, weight->linear);
    b = a ? param_add(model->params, b_name, weight->ndim, b_dim, weight->linear) : NULL;
    if (a)
        a->adapter = true;
    if (!b)
        return -ENOMEM;
    b->adapter = true;
    a->frozen = b->frozen = !weight->linear;
    weight->lora = (struct lora) {.a = a, .b = b, .scale = (float)scale};
    return 0;
}

static void thaw(const struct adapted *model)
{
    for (int i = 0; i < (*model->adapters)->n; i++)
        model->params->list[i]->frozen = (*model->adapters)->was_frozen[i] || model->params->list[i]->half;
}

int adapters_register(const struct adapted *model, struct peft_config *config, adapters_rank *rank, const void *arg)
{
    struct adapters *lora = calloc(1, sizeof(*lora));
    int n = model->params->count, r = 0;
    char module[ADAPTERS_NAME];

    if (!lora)
        return -ENOMEM;
    lora->n = n;
    lora->was_frozen = calloc((size_t)n + 1, sizeof(*lora->was_frozen));
    if (!lora->was_frozen) {
        adapters_free(lora);
        return -ENOMEM;
    }
    for (int i = 0; i < n; i++)
        lora->was_frozen[i] = model->params->list[i]->frozen;
    for (int i = 0; i < n && r >= 0; i++) {
        struct param *p = model->params->list[i];
        int64_t rows = adapters_module(p, module) ? rank(p, module, arg) : 0;

        if (rows > 0)
            r = add_pair(model, p, module, rows, peft_config_scale(config, module, rows));
    }
    for (int i = 0; i < n; i++)
        model->params->list[i]->frozen |= is_trunk(model->params->list[i]);
    *model->adapters = lora;
    if (r < 0)
        return r;
    (void)lora_join_all(model->params);
    lora->config = *config;
    *config = (struct peft_config) {0};
    return 0;
}

/* Nothing was attached: values lie where they lay. */
int adapters_undo(const struct adapted *model, int r)
{
    if (*model->adapters)
        thaw(model);
    *model->adapters = adapters_free(*model->adapters);
    (void)params_drop_adapters(model->params);
    return r;
}

int adapters_attach(const struct adapted *model, struct peft_config *config, adapters_rank *rank, const void *arg,
                    struct error *error)
{
    int64_t held = model->params->numel;
    int r = adapters_register(model, config, rank, arg);

    if (r >= 0)
        r = params_grow(model->params, held);
    return r < 0 ? error_set(error, -r, "%s: no memory for adapters", model->dir) : 0;
}

/* ---- fresh ones ------------------------------------------------------------------------------------------------ */

static int split_targets(const char *text, struct peft_config *config)
{
    _cleanup_free_ char *copy = strdup(text);
    char *rest = copy, *word;

    config->targets = calloc(strlen(text) / 2 + 2, sizeof(*config->targets));
    if (!copy || !config->targets)
        return -ENOMEM;
    while ((word = strsep(&rest, ", "))) {
        if (!*word)
            continue;
        config->targets[config->n_targets] = strdup(word);
        if (!config->targets[config->n_targets++])
            return -ENOMEM;
    }
    return 0;
}

static int64_t fresh_rank(const struct param *weight, const char *module, const void *arg)
{
    const struct peft_config *config = arg;
    bool wanted = config->n_targets ? peft_config_matches(config, module)
                                    : weight->linear && weight->ndim == 2 && !strstr(module, "lm_head");

    return wanted ? config->r : 0;
}

/* Every target names something. */
static int check_targets(const struct adapted *model, struct peft_config *config, struct error *error)
{
    char module[ADAPTERS_NAME];

    for (int t = 0; t < config->n_targets; t++) {
        struct peft_config one = {.targets = &config->targets[t], .n_targets = 1};
        bool found = false;

        for (int i = 0; i < model->params->count && !found; i++)
            found = adapters_module(model->params->list[i], module) && peft_config_matches(&one, module);
        if (!found)
            return error_set(error, EINVAL, "adapter target %s: %s has no linear module of that name; try q_proj, or all-linear",
                             config->targets[t], model->dir);
    }
    return 0;
}

static void initialise(const struct adapted *model, int r, uint64_t seed)
{
    for (int i = 0; i < model->params->count; i++) {
        const struct param *a = model->params->list[i]->lora.a;
        struct philox random;

        if (!a)
            continue;
        random = philox_at(seed, PHILOX_INIT, crc32c(0, a->name, strlen(a->name)), 0, 0);
        for (int64_t k = 0; k < a->numel; k++)
            a->value[k] = (float)philox_normal(&random) / (float)r;
    }
}

int adapters_new(const struct adapted *model, const struct lora_spec *spec, uint64_t seed, struct error *error)
{
    _cleanup_(peft_config_release) struct peft_config config = {.r = spec->r, .alpha = spec->alpha, .rslora = spec->rslora};
    int r = 0;

    if (*model->adapters)
        return error_set(error, EEXIST, "%s: the model has adapters already", model->dir);
    if (spec->r < 1 || !isfinite(spec->alpha))
        return error_set(error, EINVAL, "adapters of rank %d and alpha %g make no sense", spec->r, spec->alpha);
    if (strcmp(spec->targets, "all-linear"))
        r = split_targets(spec->targets, &config);
    config.base = spec->base ? strdup(spec->base) : NULL;
    if (r < 0 || (spec->base && !config.base))
        return error_set(error, ENOMEM, "out of memory");
    r = check_targets(model, &config, error);
    if (r < 0)
        return r;
    /* the configuration moves into the model, but fresh_rank reads it meanwhile: a shallow copy serves */
    struct peft_config asked = config;
    r = adapters_attach(model, &config, fresh_rank, &asked, error);
    if (r < 0)
        return adapters_undo(model, r);
    initialise(model, spec->r, seed);
    return 0;
}

/* ---- writing, taking off ----------------------------------------------------------------------------------------- */

static int write_tensors(const struct adapted *model, enum dtype dtype, const char *path, struct error *error)
{
    _cleanup_free_ struct st_write *list = calloc((size_t)model->params->count + 1, sizeof(*list));
    int n = 0;

    if (!list)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < model->params->count; i++) {
        const struct param *p = model->params->list[i];

        if (!p->adapter)
            continue;
        list[n] = (struct st_write) {.name = p->name, .dtype = dtype, .ndim = p->ndim, .values = p->value};
        memcpy(list[n++].dim, p->dim, sizeof(p->dim));
    }
    return safetensors_write(path, list, n, error);
}

int adapters_save(const struct adapted *model, const char *dir, const char *dtype_text, const char *base, struct error *error)
{
    _cleanup_free_ struct peft_module *modules = calloc((size_t)model->params->count + 1, sizeof(*modules));
    _cleanup_free_ char (*names)[ADAPTERS_NAME] = calloc((size_t)model->params->count + 1, sizeof(*names));
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    struct peft_config config;
    enum dtype dtype;
    int n = 0, r;

    if (!*model->adapters)
        return error_set(error, ENOENT, "%s: the model has no adapters", model->dir);
    if (dtype_parse(dtype_text, &dtype) < 0 || (dtype != DTYPE_F32 && dtype != DTYPE_BF16))
        return error_set(error, EINVAL, "adapters are written as F32 or BF16, not %s", dtype_text);
    strbuf_addf(&path, "%s/" ADAPTERS_TENSORS, dir);
    if (!modules || !names || path.failed)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < model->params->count; i++) {
        const struct param *p = model->params->list[i];

        if (!p->lora.a || !adapters_module(p, names[n]))
            continue;
        modules[n] = (struct peft_module) {.name = names[n], .r = p->lora.a->dim[0], .scale = (double)p->lora.scale};
        n++;
    }
    config = (*model->adapters)->config;       /* borrowed */
    config.base = base ? (char *)base : config.base;
    r = write_tensors(model, dtype, path.text, error);
    return r < 0 ? r : peft_config_write(&config, &model->class, modules, n, dir, error);
}

int adapters_detach(const struct adapted *model)
{
    int r;

    if (!*model->adapters)
        return 0;
    r = params_drop_adapters(model->params);
    if (r < 0)
        return r;
    thaw(model);
    *model->adapters = adapters_free(*model->adapters);
    return 0;
}
