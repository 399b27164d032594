/* prm_train.c - the first loss's gradients and three AdamW updates: all parameters, or head and adapters. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "nn/golden/prm_internal.h"
#include "nn/optim.h"

struct step {
    struct prm_check *p;
    double loss;
    float *logit;               /* [n] */
};

/* Mean binary cross-entropy of the prompts, from logits, and its gradient. */
static int run(struct tape *tape, void *arg)
{
    struct step *s = arg;
    struct prm_check *p = s->p;
    struct qwen_pass pass;
    struct tensor *logit;
    int r = qwen_vl_forward(p->model, tape, p->items, p->n, &pass);

    if (r < 0)
        return r;
    logit = qwen_vl_reward(p->model, tape, pass.last);
    if (!logit || tape->planning)
        return tape->error;
    s->loss = 0;
    for (int i = 0; i < p->n; i++) {
        double x = (double)logit->x[i], y = (double)p->labels[i];

        s->logit[i] = logit->x[i];
        s->loss += (MAX(x, 0) - x * y + log1p(exp(-fabs(x)))) / p->n;
        logit->g[i] = (float)((1 / (1 + exp(-x)) - y) / p->n);
    }
    tape_backward(tape);
    return tape->error;
}

struct training {
    struct prm_check *p;
    struct tape tape;
    struct step step;
    struct adamw adamw;
    struct adamw_range *ranges; int n_ranges;
    float *grad;
    const json_t *curve;        /* of train.json */
    const struct safetensors *file;
    const char *what;           /* "full", "lora" */
};

static void training_release(struct training *t)
{
    tape_release(&t->tape);
    adamw_release(&t->adamw);
    free(t->ranges);
    free(t->grad);
    free(t->step.logit);
}

/* Everything that is not frozen learns; the reference decays all of it. */
static int training_init(struct training *t, const json_t *optimizer)
{
    const struct params *params = &t->p->model->params;
    double decay = json_number_value(json_object_get(optimizer, "weight_decay"));

    t->step.p = t->p;
    tape_init(&t->tape, true);
    t->ranges = calloc((size_t)params->count + 1, sizeof(*t->ranges));
    t->grad = calloc((size_t)params->numel + 1, sizeof(*t->grad));
    t->step.logit = calloc((size_t)t->p->n + 1, sizeof(*t->step.logit));
    if (!t->ranges || !t->grad || !t->step.logit || adamw_init(&t->adamw, params->numel) < 0)
        return -ENOMEM;
    for (int i = 0; i < params->count; i++) {
        const struct param *param = params->list[i];

        if (!param->frozen)
            t->ranges[t->n_ranges++] = (struct adamw_range) {param->offset, param->offset + param->numel, 1, decay};
    }
    t->adamw.lr = json_number_value(json_object_get(optimizer, "lr"));
    t->adamw.beta1 = json_number_value(json_array_get(json_object_get(optimizer, "betas"), 0));
    t->adamw.beta2 = json_number_value(json_array_get(json_object_get(optimizer, "betas"), 1));
    t->adamw.eps = json_number_value(json_object_get(optimizer, "eps"));
    t->tape.param_grad = t->grad;
    return 0;
}

static int gradient(struct training *t)
{
    int r;

    memset(t->grad, 0, (size_t)t->p->model->params.numel * sizeof(*t->grad));
    r = qwen_vl_pack(t->p->model, true);
    return r < 0 ? r : tape_run(&t->tape, run, &t->step);
}

static void named(const struct training *t, const char *what, int step, char name[64])
{
    snprintf(name, 64, "train %s: %s of step %d", t->what, what, step);
}

static void compare_step(struct training *t, int step, double norm)
{
    const json_t *row = json_array_get(t->curve, (size_t)step);
    double loss = json_number_value(json_object_get(row, "loss")), want = json_number_value(json_object_get(row, "grad_norm"));
    char name[64];

    named(t, "loss", step, name);
    prm_values(t->p, name, &t->step.loss, &loss, 1, PRM_ABS, prm_tolerance(t->p, step ? "loss_abs_later" : "loss_abs_step0"));
    if (!json_object_get(row, "grad_norm"))
        return;
    named(t, "gradient norm", step, name);
    prm_values(t->p, name, &norm, &want, 1, PRM_REL, prm_tolerance(t->p, "grad_norm_rel"));
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

static bool used(const struct prm_check *p, int id)
{
    for (int i = 0; i < p->n; i++)
        for (int k = 0; k < p->items[i].n_ids; k++)
            if (p->items[i].ids[k] == id)
                return true;
    return false;
}

/* Rows of the ids that occur, ascending; the caller has room. Returns the numbers kept; *ret_rest: is all else zero? */
static int64_t keep_used(const struct prm_check *p, const struct param *table, const float *x, float *kept, bool *ret_rest)
{
    int64_t width = table->numel / table->dim[0], n = 0;

    *ret_rest = true;
    for (int64_t id = 0; id < table->dim[0]; id++) {
        if (used(p, (int)id)) {
            memcpy(kept + n, x + id * width, (size_t)width * sizeof(*kept));
            n += width;
            continue;
        }
        for (int64_t k = 0; k < width; k++)
            *ret_rest = *ret_rest && x[id * width + k] == 0;
    }
    return n;
}

/* PREFIX + the parameter's name. The file may hold only used rows of the embedding, or every k-th number. */
static int compare_param(struct training *t, const char *prefix, const struct param *param, const float *x, enum prm_rule rule,
                         double limit)
{
    _cleanup_free_ float *kept = calloc((size_t)param->numel + 1, sizeof(*kept));
    const struct st_tensor *tensor;
    int64_t n = param->numel, stride;
    char name[320];
    bool rest;

    if (!kept)
        return error_set(t->p->error, ENOMEM, "out of memory");
    snprintf(name, sizeof(name), "%s%s", prefix, param->name);
    tensor = safetensors_find(t->file, name);
    memcpy(kept, x, (size_t)n * sizeof(*kept));
    if (tensor && tensor->numel != n && param == t->p->model->w->embedding && tensor->ndim == 2) {
        n = keep_used(t->p, param, x, kept, &rest);
        prm_count(t->p, "gradient of unused rows of the embedding is 0", 1, !rest, param->name);
    } else if (tensor && tensor->numel && tensor->numel < n) {
        stride = (n + tensor->numel - 1) / tensor->numel;
        n = 0;
        for (int64_t i = 0; i < param->numel; i += stride)
            kept[n++] = x[i];
    }
    prm_tensor(t->p, t->file, name, kept, n, rule, limit);
    return 0;
}

static int compare_params(struct training *t, const char *prefix, bool gradients, enum prm_rule rule, double limit)
{
    const struct params *params = &t->p->model->params;
    int r = 0;

    for (int i = 0; i < params->count && r >= 0; i++) {
        const struct param *param = params->list[i];

        if (!param->frozen)
            r = compare_param(t, prefix, param, gradients ? t->grad + param->offset : param->value, rule, limit);
    }
    return r;
}

/* Sums of the parameters after training, where the set keeps no more of them. */
static void compare_norms(struct training *t, const json_t *norms)
{
    struct prm_tally tally = {0};
    int n = 0;

    for (int i = 0; i < t->p->model->params.count; i++) {
        const struct param *param = t->p->model->params.list[i];
        const json_t *want = json_object_get(norms, param->name);
        double square = 0;

        for (int64_t k = 0; want && k < param->numel; k++)
            square += (double)param->value[k] * (double)param->value[k];
        n += want != NULL;
        if (want && !(fabs(sqrt(square) / json_number_value(want) - 1) <= 1e-4))
            prm_wrong(&tally, "%s", param->name);
    }
    if (n)
        prm_count_tally(t->p, "train full: norms of the parameters after three steps", n, &tally);
}

/* All gradients one behind the other, as a direction: bf16 is held to that. */
static void compare_direction(struct training *t)
{
    double dot = 0, ours = 0, theirs = 0, cosine;
    char first[64];

    for (int i = 0; i < t->p->model->params.count; i++) {
        const struct param *param = t->p->model->params.list[i];
        const struct st_tensor *tensor;
        char name[320];

        snprintf(name, sizeof(name), "grad.%s", param->name);
        tensor = param->frozen ? NULL : safetensors_find(t->file, name);
        for (int64_t k = 0; tensor && tensor->numel == param->numel && k < param->numel; k++) {
            double x = (double)t->grad[param->offset + k];
            float y = 0;

            (void)st_read_f32(tensor, k, 1, &y);
            dot += x * (double)y;
            ours += x * x;
            theirs += (double)y * (double)y;
        }
    }
    cosine = dot / sqrt(ours * theirs);
    snprintf(first, sizeof(first), "%.5f", cosine);
    prm_count(t->p, "train lora: cosine of all gradients", 1,
              !(cosine >= prm_tolerance(t->p, "all_gradients_concatenated_cosine")), first);
}

static int train(struct training *t)
{
    int steps = t->p->bf16 ? 0 : (int)json_array_size(t->curve) - 1, r = 0;

    for (int step = 0; step <= steps && r >= 0; step++) {
        double norm;

        r = gradient(t);
        if (r < 0)
            return error_set(t->p->error, -r, "%s: training failed: %s", t->p->name, strerror(-r));
        norm = gradient_norm(t->grad, t->ranges, t->n_ranges);
        compare_step(t, step, norm);
        if (t->p->bf16)
            compare_direction(t);
        else if (step == 0)
            r = compare_params(t, "grad.", true, PRM_REL_L2, prm_tolerance(t->p, "grad_rel_l2"));
        if (step < steps)
            adamw_step(&t->adamw, t->p->model->params.values, t->grad, (float)MIN(1, 1 / (norm + 1e-6)), t->ranges, t->n_ranges);
    }
    return r;
}

static json_t *read_train(struct prm_check *p)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/train.json", p->name);
    return prm_json(p, path);
}

/* Train as train.json's `what` says and compare; values afterwards, too, where the set has them. */
static int check_training(struct prm_check *p, const char *what)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    _cleanup_(training_release) struct training t = {.p = p, .what = what};
    _cleanup_json_ json_t *root = NULL;
    const json_t *fp32;
    char path[512];
    int r;

    snprintf(path, sizeof(path), "%s/train_%s_fp32.safetensors", p->name, what);
    file = prm_open(p, path);
    root = file ? read_train(p) : NULL;
    if (!root)
        return -EINVAL;
    fp32 = json_object_get(root, "fp32");
    t.file = file;
    t.curve = json_object_get(fp32, what);
    r = training_init(&t, json_object_get(root, "optimizer"));
    if (r < 0)
        return error_set(p->error, -r, "%s: out of memory", p->name);
    r = train(&t);
    if (r >= 0 && !p->bf16 && safetensors_find(file, "final.reward_head.fc1.weight"))
        r = compare_params(&t, "final.", false, PRM_ABS, prm_tolerance(p, "final_param_max_abs"));
    if (r >= 0 && !strcmp(what, "full"))
        compare_norms(&t, json_object_get(fp32, "full_final_l2"));
    return r;
}

int prm_check_full(struct prm_check *p)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/train_full_fp32.safetensors", p->name);
    return prm_has(p, path) ? check_training(p, "full") : 0;
}

int prm_check_adapters(struct prm_check *p)
{
    struct params *params = &p->model->params;
    struct adapted adapted = qwen_vl_adapted(p->model);
    _cleanup_free_ float *before = NULL;
    int64_t numel = params->numel;
    char path[4096];
    int r;

    snprintf(path, sizeof(path), "%s/lora/adapter_model.safetensors", p->name);
    if (!prm_has(p, path))
        return 0;
    before = malloc((size_t)numel * sizeof(*before));
    if (!before)
        return error_set(p->error, ENOMEM, "out of memory");
    memcpy(before, params->values, (size_t)numel * sizeof(*before));
    snprintf(path, sizeof(path), "%s/%s/lora", p->dir, p->name);
    r = adapters_load(&adapted, path, p->error);
    if (r >= 0)
        r = qwen_vl_pack(p->model, true);
    if (r >= 0)
        r = prm_forward_adapted(p);
    if (r >= 0)
        r = check_training(p, "lora");
    if (r >= 0)
        r = adapters_detach(&adapted);
    if (r < 0)
        return r;
    memcpy(params->values, before, (size_t)numel * sizeof(*before));        /* the head has learnt */
    return qwen_vl_pack(p->model, true);
}
