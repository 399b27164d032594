/* golden_ppo.c - clipped policy gradient with one ratio per action, value head, k3 penalty: loss and gradients over both
 * supports. */
#include <errno.h>
#include <math.h>

#include "nn/golden/golden_internal.h"

enum { TOKENS = GOLDEN_SAMPLES * GOLDEN_TOKENS, WIDTH = 64 };

struct ppo {
    struct golden *g;
    bool action_only;
    float temperature;
    struct openvla_pass pass;
    struct tensor *logits, *value;
    struct token_stats *stats;
};

static int ppo_pass(struct tape *tape, void *arg)
{
    struct ppo *p = arg;
    const struct openvla *model = p->g->model;
    int32_t rows[TOKENS], target[TOKENS];
    struct openvla_item items[GOLDEN_SAMPLES];
    int r;

    golden_items(p->g, items);
    r = openvla_forward(model, tape, items, GOLDEN_SAMPLES, &p->pass);
    if (r < 0)
        return r;
    for (int i = 0; i < TOKENS; i++) {
        rows[i] = p->pass.first[i / GOLDEN_TOKENS] + i % GOLDEN_TOKENS;
        target[i] = p->g->actions[i / GOLDEN_TOKENS][i % GOLDEN_TOKENS] -
                    (p->action_only ? model->config.vocab - OPENVLA_ACTION_BINS : 0);
    }
    p->logits = openvla_logits(model, tape, op_gather(tape, p->pass.hidden, rows, TOKENS), p->action_only);
    p->stats = op_token_stats(tape, p->logits, target, p->temperature, NULL);
    p->value = openvla_value(model, tape, op_gather(tape, p->pass.hidden, p->pass.first, GOLDEN_SAMPLES), NULL, false);
    return tape->error;
}

static int read_inputs(struct golden *g, const char *name, float *ret, int64_t n)
{
    const struct st_tensor *tensor = golden_input(g, "ppo", name);

    if (!tensor || tensor->numel != n || st_read_f32(tensor, 0, n, ret) < 0)
        return error_set(g->error, EINVAL, "golden/ppo.safetensors: %s does not have %lld values", name, (long long)n);
    return 0;
}

struct terms { double pg, value, kl; float ratio[GOLDEN_SAMPLES]; };

/* The loss, and its derivatives by log-probabilities and values where the backward pass starts. */
static void ppo_loss(struct ppo *p, const float *old, const float *ref, const float *advantage, const float *returns,
                     struct terms *t)
{
    *t = (struct terms) {0};
    for (int s = 0; s < GOLDEN_SAMPLES; s++) {
        const float *logp = p->stats->logp + s * GOLDEN_TOKENS;
        double sum = 0, a = (double)advantage[s], error = (double)p->value->x[s] - (double)returns[s], ratio, clipped;

        for (int k = 0; k < GOLDEN_TOKENS; k++)
            sum += (double)logp[k] - (double)old[s * GOLDEN_TOKENS + k];
        ratio = exp(sum);
        clipped = fmin(fmax(ratio, 0.8), 1.2);
        t->ratio[s] = (float)ratio;
        t->pg -= fmin(ratio * a, clipped * a) / GOLDEN_SAMPLES;
        t->value += 0.5 * error * error / GOLDEN_SAMPLES;
        p->value->g[s] = (float)(error / GOLDEN_SAMPLES);
        for (int k = 0; k < GOLDEN_TOKENS; k++) {
            double d = (double)ref[s * GOLDEN_TOKENS + k] - (double)logp[k];

            t->kl += (exp(d) - d - 1) / TOKENS;
            p->stats->dlogp[s * GOLDEN_TOKENS + k] =
                (float)((ratio * a <= clipped * a ? -a * ratio / GOLDEN_SAMPLES : 0) + 0.01 * (1 - exp(d)) / TOKENS);
        }
    }
}

/* dlogits over the whole vocabulary: zero outside the support. */
static int compare_dlogits(struct ppo *p, const char *name)
{
    int64_t vocab = p->g->model->config.vocab_padded,
            first = p->action_only ? p->g->model->config.vocab - OPENVLA_ACTION_BINS : 0;
    _cleanup_free_ float *wide = calloc((size_t)(TOKENS * vocab), sizeof(*wide));

    if (!wide)
        return error_set(p->g->error, ENOMEM, "out of memory");
    for (int i = 0; i < TOKENS; i++)
        memcpy(wide + i * vocab + first, p->logits->g + i * p->logits->cols, (size_t)p->logits->cols * sizeof(*wide));
    return golden_compare(p->g, "ppo", name, wide, TOKENS * vocab);
}

static int compare_dhidden(struct ppo *p, const char *name)
{
    int64_t width = p->g->model->config.hidden;
    _cleanup_free_ float *rows = calloc((size_t)(GOLDEN_SAMPLES * width), sizeof(*rows));

    if (!rows)
        return error_set(p->g->error, ENOMEM, "out of memory");
    for (int s = 0; s < GOLDEN_SAMPLES; s++)
        memcpy(rows + s * width, p->pass.hidden->g + p->pass.first[s] * width, (size_t)width * sizeof(*rows));
    return golden_compare(p->g, "ppo", name, rows, GOLDEN_SAMPLES * width);
}

static int compare_all(struct ppo *p, const char *variant, const struct terms *t)
{
    double loss = t->pg + t->value + 0.01 * t->kl;
    const struct {
        const char *name;
        const double *x;
    } scalars[] = {{"pg_loss", &t->pg}, {"value_loss", &t->value}, {"kl", &t->kl}, {"loss", &loss}};
    const struct { const char *name; const float *x; int64_t n;
    } arrays[] = {
        {"logp", p->stats->logp, TOKENS},
        {"entropy", p->stats->entropy, TOKENS},
        {"ratio", t->ratio, GOLDEN_SAMPLES},
        {"values", p->value->x, GOLDEN_SAMPLES},
    };
    char name[64];
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(arrays) && r >= 0; i++) {
        snprintf(name, sizeof(name), "%s.%s", variant, arrays[i].name);
        r = golden_compare(p->g, "ppo", name, arrays[i].x, arrays[i].n);
    }
    for (size_t i = 0; i < ARRAY_SIZE(scalars) && r >= 0; i++) {
        snprintf(name, sizeof(name), "%s.%s", variant, scalars[i].name);
        r = golden_compare_double(p->g, "ppo", name, scalars[i].x, 1);
    }
    snprintf(name, sizeof(name), "%s.dlogits", variant);
    if (r >= 0)
        r = compare_dlogits(p, name);
    snprintf(name, sizeof(name), "%s.dhidden_value", variant);
    return r < 0 ? r : compare_dhidden(p, name);
}

/* Gradients the file has, of every parameter (variant full) or some. */
static int compare_gradients(struct golden *g, const char *variant, const float *grad, bool all)
{
    for (int i = 0; i < g->model->params.count; i++) {
        const struct param *param = g->model->params.list[i];
        char name[192], rows[224];
        int r = 0;

        snprintf(name, sizeof(name), "%s.grad.%s", variant, param->name);
        snprintf(rows, sizeof(rows), "%s.rows", name);
        if (golden_has(g, "ppo", rows))
            r = golden_compare_rows(g, "ppo", name, rows, grad + param->offset, param->dim[0], param->numel / param->dim[0]);
        else if (golden_has(g, "ppo", name))
            r = golden_compare_sampled(g, "ppo", name, grad + param->offset, param->numel);
        else if (all && !param->frozen)
            golden_expect(g, false, name);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_variant(struct golden *g, const char *variant, bool action_only, float temperature, const float *advantage,
                         const float *returns)
{
    struct ppo p = {.g = g, .action_only = action_only, .temperature = temperature};
    _cleanup_free_ float *grad = calloc((size_t)g->model->params.numel, sizeof(*grad));
    float old[TOKENS], ref[TOKENS];
    struct terms terms;
    struct tape tape;
    char name[64];
    int r;

    if (!grad)
        return error_set(g->error, ENOMEM, "out of memory");
    snprintf(name, sizeof(name), "%s.old_logp", variant);
    r = read_inputs(g, name, old, TOKENS);
    snprintf(name, sizeof(name), "%s.ref_logp", variant);
    if (r >= 0)
        r = read_inputs(g, name, ref, TOKENS);
    if (r < 0)
        return r;
    tape_init(&tape, true);
    tape.param_grad = grad;
    golden_begin(g);
    r = tape_run(&tape, ppo_pass, &p);
    if (r >= 0) {
        ppo_loss(&p, old, ref, advantage, returns, &terms);
        tape_backward(&tape);
        r = tape.error ? tape.error : compare_all(&p, variant, &terms);
    }
    snprintf(name, sizeof(name), "ppo %s loss", variant);
    golden_end(g, name);
    golden_begin(g);
    if (r >= 0)
        r = compare_gradients(g, variant, grad, !action_only);
    snprintf(name, sizeof(name), "ppo %s gradients", variant);
    golden_end(g, name);
    tape_release(&tape);
    return r;
}

int golden_check_ppo(struct golden *g)
{
    const struct affine *fc[] = {&g->model->w->value.fc1, &g->model->w->value.fc2};
    float advantage[GOLDEN_SAMPLES], returns[GOLDEN_SAMPLES];
    int r;

    r = openvla_add_value_head(g->model, WIDTH, 0, 0);
    for (int i = 0; i < 2 && r >= 0; i++) {
        r = read_inputs(g, fc[i]->weight->name, fc[i]->weight->value, fc[i]->weight->numel);
        if (r >= 0)
            r = read_inputs(g, fc[i]->bias->name, fc[i]->bias->value, fc[i]->bias->numel);
    }
    if (r >= 0)
        r = read_inputs(g, "advantages", advantage, GOLDEN_SAMPLES);
    if (r >= 0)
        r = read_inputs(g, "returns", returns, GOLDEN_SAMPLES);
    if (r >= 0)
        r = openvla_pack(g->model, true);
    if (r >= 0)
        r = check_variant(g, "full", false, 1.0f, advantage, returns);
    return r < 0 ? r : check_variant(g, "act", true, 1.5f, advantage, returns);
}
