/* laplace.c - log-probability, entropy and KL of numbers under Laplace distributions, and the way back to middle and scale.
 *
 * With s = log b + log T (tempering widens): log p(x) = -s - log 2 - |x-m| e^-s; entropy = 1 + log 2 + s; with a reference (m0,
 * s0) and d = |m-m0|: KL = s0 - s + d e^-s0 + e^(s-s0) e^(-d e^-s) - 1. */
#include <math.h>

#include "nn/ops/op.h"

static const float log_2 = 0.6931471805599453f;

struct laplace {
    struct token_stats stats; /* first: the caller holds a pointer to it */
    struct tensor *middle, *log_scale;
    const float *target, *ref;
};

static float exp_of(float x)
{
    float y;

    cpu_kernels()->exp(&y, &x, 1); /* the same bits on every CPU */
    return y;
}

static float sign_of(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f; }

float laplace_logp(float x, float middle, float scale) { return -scale - log_2 - fabsf(x - middle) * exp_of(-scale); }

float laplace_entropy(float scale) { return 1.0f + log_2 + scale; }

float laplace_draw(float uniform, float middle, float scale)
{
    float u = uniform - 0.5f, tail = MAX(1.0f - 2.0f * fabsf(u), 0x1p-25f); /* u has 24 bits: the far end stays finite */

    return middle - sign_of(u) * exp_of(scale) * (float)log((double)tail);
}

static float laplace_kl(float middle, float scale, const float *ref)
{
    float d = fabsf(middle - ref[0]);

    return ref[1] - scale + d * exp_of(-ref[1]) + exp_of(scale - ref[1] - d * exp_of(-scale)) - 1.0f;
}

/* Activations on the device += numbers of the host. */
static void add_there(struct tape *t, float *to, const float *numbers, int64_t n)
{
    struct tensor *x = tape_input(t, numbers, 1, n);

    if (x)
        ON(t, accumulate, type_of(t), to, x->x, n);
}

static void laplace_backward(struct tape *tape, void *context)
{
    const struct laplace *c = context;
    const struct token_stats *s = &c->stats;
    int64_t n = s->rows;
    float *dm = c->middle->wants ? tape_gradient(tape, c->middle) : NULL, *dm_there = dm;
    float *ds = c->log_scale->wants ? tape_gradient(tape, c->log_scale) : NULL, *ds_there = ds;

    if (tape->on && dm && ds) {         /* a few numbers: the host's arithmetic, then added there */
        dm = tape_alloc(tape, 2 * (size_t)n * sizeof(*dm));
        ds = dm ? dm + n : NULL;
        if (dm)
            memset(dm, 0, 2 * (size_t)n * sizeof(*dm));
    }

    if (!dm || !ds)
        return;
    for (int64_t i = 0; i < s->rows; i++) {
        float m = s->log_probs[2 * i], scale = s->log_probs[2 * i + 1], x = c->target[i], inverse = exp_of(-scale);

        dm[i] += s->dlogp[i] * sign_of(x - m) * inverse;
        ds[i] += s->dlogp[i] * (fabsf(x - m) * inverse - 1.0f) + s->dentropy[i];
        if (c->ref && s->dkl[i] != 0.0f) {
            float m0 = c->ref[2 * i], s0 = c->ref[2 * i + 1], d = fabsf(m - m0), near = exp_of(-d * inverse);

            dm[i] += s->dkl[i] * sign_of(m - m0) * exp_of(-s0) * (1.0f - near);
            ds[i] += s->dkl[i] * (exp_of(scale - s0) * near * (1.0f + d * inverse) - 1.0f);
        }
    }
    if (tape->on) {
        add_there(tape, dm_there, dm, n);
        add_there(tape, ds_there, ds, n);
    }
}

struct token_stats *op_laplace_stats(struct tape *t, struct tensor *middle, struct tensor *log_scale, const float *target,
                                     float temperature, const float *ref)
{
    float log_temperature = temperature > 0.0f ? (float)log((double)temperature) : 0.0f, *numbers, *kept;
    const float *middles, *scales;
    struct laplace *c;
    int64_t n;

    if (!middle || !log_scale)
        return NULL;
    n = middle->rows * middle->cols;
    if (!(temperature > 0.0f) || log_scale->rows * log_scale->cols != n)
        return op_fail(t, -EINVAL);
    c = tape_alloc(t, sizeof(*c));
    numbers = tape_alloc(t, (size_t)n * 8 * sizeof(float));
    kept = tape_alloc(t, (size_t)n * sizeof(float));
    if (!c || !numbers || !kept)
        return NULL;
    memset(numbers, 0, (size_t)n * 8 * sizeof(float));
    *c = (struct laplace){
        .stats =
            {
                .rows = n,
                .logp = numbers,
                .entropy = numbers + n,
                .kl = numbers + 2 * n,
                .dlogp = numbers + 3 * n,
                .dentropy = numbers + 4 * n,
                .dkl = numbers + 5 * n,
                .log_probs = numbers + 6 * n,
            },
        .middle = middle,
        .log_scale = log_scale,
        .target = kept,
        .ref = ref,
    };
    if (t->on && t->planning && t->training)
        tape_activations(t, 2 * n);     /* what the way back sends */
    tape_record(t, NULL, laplace_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : &c->stats;
    middles = tape_values(t, middle);
    scales = tape_values(t, log_scale);
    for (int64_t i = 0; i < n && middles && scales; i++) {
        float m = middles[i], scale = scales[i] + log_temperature;

        kept[i] = target[i];
        c->stats.log_probs[2 * i] = m;
        c->stats.log_probs[2 * i + 1] = scale;
        c->stats.logp[i] = laplace_logp(target[i], m, scale);
        c->stats.entropy[i] = laplace_entropy(scale);
        c->stats.kl[i] = ref ? laplace_kl(m, scale, ref + 2 * i) : 0.0f;
    }
    return t->error ? NULL : &c->stats;
}
