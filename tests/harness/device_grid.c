#include "tests/harness/device_grid.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/safetensors.h"
#include "nn/ops.h"
#include "tests/harness/numbers.h"

enum { MAX_PARTS = 4 };
enum kind { NONE, INPUT, PARAM, LINEAR };

struct shape { int64_t rows, in, out; int heads, dim; };
static const struct shape shapes[GRID_SHAPES] = {{13, 37, 45, 3, 18}, {2, 8, 16, 2, 72}, {67, 136, 72, 4, 64}};

struct part { enum kind kind; int64_t rows, cols; };
struct scene {
    const struct shape *s;
    struct part part[MAX_PARTS];
    struct tensor *in[MAX_PARTS];
    struct param *p[MAX_PARTS];
};

struct grid_case {
    const char *name;
    void (*parts)(const struct shape *s, struct part *ret);
    struct tensor *(*build)(struct tape *t, struct scene *s);
    bool fixed;                 /* makes its own result gradients (token_stats) */
};

#define PARTS(name, ...) \
    static void name(const struct shape *s, struct part *ret) \
    { \
        const struct part parts[MAX_PARTS] = {__VA_ARGS__}; \
        (void)s; \
        memcpy(ret, parts, sizeof(parts)); \
    }
#define BUILD(name, expression) \
    static struct tensor *name(struct tape *t, struct scene *c) \
    { \
        const struct shape *s = c->s; \
        struct tensor **x = c->in; \
        struct param **p = c->p; \
        (void)s, (void)x, (void)p; \
        return expression; \
    }

PARTS(one, {INPUT, s->rows, s->in})
PARTS(two, {INPUT, s->rows, s->in}, {INPUT, s->rows, s->in})
PARTS(affine, {INPUT, s->rows, s->in}, {LINEAR, s->out, s->in}, {PARAM, 1, s->out})
PARTS(scaled, {INPUT, s->rows, s->in}, {INPUT, s->rows, s->in}, {PARAM, 1, s->in})
PARTS(normed, {INPUT, s->rows, s->in}, {PARAM, 1, s->in}, {PARAM, 1, s->in})
PARTS(lora, {INPUT, s->rows, s->in}, {LINEAR, s->out, s->in}, {LINEAR, 5, s->in}, {LINEAR, s->out, 5})
PARTS(beside, {INPUT, s->rows, s->in}, {INPUT, s->rows, s->out})
PARTS(pictures, {INPUT, 3 * s->rows, s->in}, {PARAM, s->rows, s->in}, {PARAM, 2, s->in})
PARTS(modulated, {INPUT, 3 * s->rows, s->in}, {INPUT, 3, s->in}, {INPUT, 3, s->in})
PARTS(table, {PARAM, s->out, s->in})
PARTS(apart, {INPUT, s->rows, s->in}, {INPUT, s->rows + 3, s->in})
PARTS(heads, {INPUT, s->rows, (int64_t)s->heads * s->dim})
PARTS(qkv, {INPUT, s->rows, 3 * (int64_t)s->heads * s->dim})
PARTS(grouped, {INPUT, s->rows, 2 * (int64_t)s->heads * s->dim}, {INPUT, s->rows, (int64_t)s->heads * s->dim},
      {INPUT, s->rows, (int64_t)s->heads * s->dim})
PARTS(asked, {INPUT, (s->rows + 1) / 2, (int64_t)s->heads * s->dim}, {INPUT, s->rows, (int64_t)s->heads * s->dim},
      {INPUT, s->rows, (int64_t)s->heads * s->dim})

BUILD(b_linear, op_linear(t, x[0], p[1], p[2]))
BUILD(b_linear_rows, op_linear_rows(t, x[0], p[1], s->out / 3, s->out - s->out / 3 - 1))
BUILD(b_gelu, op_gelu(t, x[0]))
BUILD(b_quick_gelu, op_quick_gelu(t, x[0]))
BUILD(b_relu, op_relu(t, x[0]))
BUILD(b_clamp, op_clamp(t, x[0], -0.5f, 0.75f))
BUILD(b_swiglu, op_swiglu(t, x[0], x[1]))
BUILD(b_add, op_add(t, x[0], x[1]))
BUILD(b_twice, op_add(t, op_add(t, x[0], x[1]), x[0]))
BUILD(b_film, op_film(t, x[0], x[1], x[2], 3))
BUILD(b_residual, op_residual(t, x[0], x[1], p[2]))
BUILD(b_layernorm, op_layernorm(t, x[0], p[1], p[2], 1e-6f))
BUILD(b_rmsnorm, op_rmsnorm(t, x[0], p[1], 1e-6f))
BUILD(b_positions, op_add_positions(t, x[0], p[1], 3))
BUILD(b_prepend, op_prepend(t, x[0], NULL, p[2], 3))
BUILD(b_strip, op_strip(t, op_prepend(t, x[0], NULL, p[2], 3), 3, 1))
BUILD(b_concat, op_concat(t, x[0], x[1]))
BUILD(b_reshape, op_reshape(t, x[0], s->in, s->rows))
BUILD(b_merge, op_merge(t, x[0], 3))
BUILD(b_detach, op_add(t, x[0], op_detach(t, x[0])))

static struct tensor *b_lora(struct tape *t, struct scene *c)
{
    c->p[1]->lora = (struct lora) {.a = c->p[2], .b = c->p[3], .scale = 0.75f};
    return op_linear(t, c->in[0], c->p[1], NULL);
}

static int32_t *some(struct tape *t, int64_t n, int64_t below, int64_t from)
{
    int32_t *index = tape_alloc(t, (size_t)n * sizeof(*index));

    for (int64_t i = 0; index && i < n; i++)
        index[i] = (int32_t)((i * i * 7 + i) % (below - from) + from);
    return index;
}

static struct tensor *b_picked(struct tape *t, struct scene *c)
{
    return op_linear_picked(t, c->in[0], c->p[1], some(t, 3, c->s->out, 0), 3);
}
static struct tensor *b_embedding(struct tape *t, struct scene *c)
{
    return op_embedding(t, c->p[0], some(t, 2 * c->s->rows, c->s->out, -1), 2 * c->s->rows);
}
static struct tensor *b_gather(struct tape *t, struct scene *c)
{
    return op_gather(t, c->in[0], some(t, 3 * c->s->rows, c->s->rows, 0), 3 * c->s->rows);
}
static struct tensor *b_splice(struct tape *t, struct scene *c)
{
    return op_splice(t, c->in[0], c->in[1], some(t, 2 * c->s->rows, c->s->rows, -c->s->rows - 3), 2 * c->s->rows);
}
static struct tensor *b_rope(struct tape *t, struct scene *c)
{
    return op_rope(t, op_add(t, c->in[0], c->in[0]), some(t, c->s->rows, 300, 0), c->s->heads, 10000.0f);
}
static struct tensor *b_rope_table(struct tape *t, struct scene *c)
{
    float *table = tape_host_numbers(t, c->s->rows * c->s->dim);

    for (int64_t i = 0; table && i < c->s->rows * c->s->dim; i++)
        table[i] = cosf((float)i);
    return op_rope_table(t, op_add(t, c->in[0], c->in[0]), table, 2 * c->s->heads, c->s->dim);
}

/* Sequences of unequal length, one of a single row where there is room. */
static struct spans spans(struct tape *t, int64_t rows)
{
    int32_t *start = tape_alloc(t, 4 * sizeof(*start));

    if (!start)
        return (struct spans) {0};
    start[0] = 0;
    start[1] = rows > 3 ? 1 : 0;
    start[2] = (int32_t)(rows - rows / 3);
    start[3] = (int32_t)rows;
    return (struct spans) {rows > 3 ? 3 : 2, rows > 3 ? start : start + 1};
}
static struct tensor *b_full(struct tape *t, struct scene *c)
{
    return op_attention_qkv(t, c->in[0], spans(t, c->s->rows), c->s->heads, ATTENTION_FULL);
}
static struct tensor *b_causal(struct tape *t, struct scene *c)
{
    return op_attention_qkv(t, c->in[0], spans(t, c->s->rows), c->s->heads, ATTENTION_CAUSAL);
}
static struct tensor *b_grouped(struct tape *t, struct scene *c)
{
    return op_attention(t, c->in[0], c->in[1], c->in[2], spans(t, c->s->rows), 2 * c->s->heads, ATTENTION_CAUSAL);
}
static struct tensor *b_tail(struct tape *t, struct scene *c)
{
    int32_t *start = tape_alloc(t, 3 * sizeof(*start)), *tail = tape_alloc(t, 3 * sizeof(*tail));
    int32_t rows = (int32_t)c->s->rows, asking = (rows + 1) / 2;

    if (!start || !tail)
        return NULL;
    start[0] = 0, start[1] = rows / 2, start[2] = rows;
    tail[0] = 0, tail[1] = MIN(asking / 2, rows / 2), tail[2] = asking;
    return op_attention_tail(t, c->in[0], c->in[1], c->in[2], (struct spans) {2, start}, (struct spans) {2, tail}, c->s->heads);
}
static struct tensor *b_means(struct tape *t, struct scene *c)
{
    int32_t *start = tape_alloc(t, 3 * sizeof(*start)), rows = (int32_t)c->s->rows;

    if (!start)
        return NULL;
    start[0] = 0, start[1] = rows > 1 ? 1 : rows, start[2] = rows;
    return op_span_means(t, c->in[0], (struct spans) {rows > 1 ? 2 : 1, start});
}
/* The three statistics as one row of numbers; their gradients are fixed. */
static struct tensor *b_token_stats(struct tape *t, struct scene *c)
{
    int64_t rows = c->s->rows, cols = c->s->in;
    float *ref = tape_host_numbers(t, rows * cols), *out = tape_alloc(t, (size_t)rows * 3 * sizeof(*out));
    struct token_stats *stats;

    for (int64_t i = 0; ref && i < rows * cols; i++)
        ref[i] = -1.0f - 0.01f * (float)(i % 83);
    stats = op_token_stats(t, c->in[0], some(t, rows, cols, 0), 1.3f, ref);
    if (!stats || !out || t->planning)
        return stats && out ? tape_input(t, out, 1, 3 * rows) : NULL;
    for (int64_t i = 0; i < rows; i++) {
        out[i] = stats->logp[i];
        out[rows + i] = stats->entropy[i];
        out[2 * rows + i] = stats->kl[i];
        stats->dlogp[i] = 0.5f - (float)(i % 3);
        stats->dentropy[i] = i % 2 ? 0.25f : 0.0f;
        stats->dkl[i] = i % 5 ? 0.125f : 0.0f;
    }
    return tape_input(t, out, 1, 3 * rows);
}

static const struct grid_case cases[] = {
    {"linear", affine, b_linear, false}, {"linear_rows", affine, b_linear_rows, false},
    {"linear_picked", affine, b_picked, false},
    {"linear with an adapter", lora, b_lora, false}, {"gelu", one, b_gelu, false}, {"quick_gelu", one, b_quick_gelu, false},
    {"relu", one, b_relu, false}, {"clamp", one, b_clamp, false}, {"swiglu", two, b_swiglu, false}, {"add", two, b_add, false},
    {"add, used twice", two, b_twice, false}, {"residual", scaled, b_residual, false}, {"film", modulated, b_film, false},
    {"means over spans", one, b_means, false}, {"layernorm", normed, b_layernorm, false},
    {"rmsnorm", normed, b_rmsnorm, false}, {"add_positions", pictures, b_positions, false},
    {"prepend", pictures, b_prepend, false},
    {"strip", pictures, b_strip, false}, {"concat", beside, b_concat, false}, {"reshape", one, b_reshape, false},
    {"merge", pictures, b_merge, false}, {"detach", one, b_detach, false}, {"embedding", table, b_embedding, false},
    {"gather", one, b_gather, false}, {"splice", apart, b_splice, false}, {"rope", heads, b_rope, false},
    {"rope_table", qkv, b_rope_table, false}, {"attention full", qkv, b_full, false}, {"attention causal", qkv, b_causal, false},
    {"attention grouped", grouped, b_grouped, false}, {"attention tail", asked, b_tail, false},
    {"token_stats", one, b_token_stats, true},
};

int device_grid_cases(void) { return (int)ARRAY_SIZE(cases); }
const char *device_grid_name(int number) { return cases[number].name; }

/* ---- one run ------------------------------------------------------------------------------------------------- */

struct outcome { float *y; int64_t ny; float *dx[MAX_PARTS]; int64_t nx[MAX_PARTS]; float *dw; };

static void outcome_release(struct outcome *o)
{
    free(o->y);
    free(o->dw);
    for (int i = 0; i < MAX_PARTS; i++)
        free(o->dx[i]);
}

static float *copy(const float *x, int64_t n)
{
    float *y = x ? malloc((size_t)MAX(n, 1) * sizeof(*y)) : NULL;

    if (y)
        memcpy(y, x, (size_t)n * sizeof(*y));
    return y;
}

/* Numbers that bf16 has: then both sides begin with the same. */
static void draw(float *x, int64_t n, uint64_t seed)
{
    struct philox random = philox_at(seed, PHILOX_TEST, 5, 0, 0);

    for (int64_t i = 0; i < n; i++) {
        uint16_t half = float_to_bf16((float)philox_normal(&random));

        cpu_kernels()->widen(&x[i], &half, 1);
    }
}

static int fill(struct tape *t, struct tensor *x, const float *numbers)
{
    const float *sent = tape_send(t, numbers, x->rows * x->cols);

    if (!sent)
        return t->error;
    if (!t->on)
        memcpy(x->x, numbers, (size_t)(x->rows * x->cols) * sizeof(float));
    return t->on ? t->on->k->convert(t->on->stream, t->half ? DEVICE_BF16 : DEVICE_F32, x->x, DEVICE_F32, sent,
                                     x->rows * x->cols) : 0;
}

static float *gradient_of(struct tape *t, const struct tensor *x)
{
    struct tensor g = *x;

    g.x = x->g;
    return x->g ? copy(tape_values(t, &g), x->rows * x->cols) : NULL;
}

struct run { const struct grid_case *c; struct scene scene; struct outcome *out; int64_t numel; float *grad; };

static int pass(struct tape *t, void *arg)
{
    struct run *run = arg;
    struct scene *s = &run->scene;
    struct tensor *y;
    float *g;

    for (int i = 0; i < MAX_PARTS; i++) {
        float *numbers;
        int64_t n = s->part[i].rows * s->part[i].cols;

        if (s->part[i].kind != INPUT)
            continue;
        s->in[i] = tape_tensor(t, s->part[i].rows, s->part[i].cols);
        numbers = tape_alloc(t, (size_t)n * sizeof(*numbers));
        if (!s->in[i] || !numbers)
            return t->error;
        draw(numbers, n, 100 + (uint64_t)i);
        if (!t->planning && fill(t, s->in[i], numbers) < 0)
            return t->error ? t->error : -EIO;
    }
    y = run->c->build(t, s);
    if (!y)
        return t->error ? t->error : -EINVAL;
    g = tape_alloc(t, (size_t)(y->rows * y->cols) * sizeof(*g));
    if (t->planning || !g)
        return t->error;
    run->out->ny = y->rows * y->cols;
    run->out->y = copy(tape_values(t, y), run->out->ny);
    if (!run->c->fixed) {
        draw(g, run->out->ny, 7);
        if (tape_set_gradient(t, y, g) < 0)
            return t->error;
    }
    tape_backward(t);
    if (t->error)
        return t->error;
    for (int i = 0; i < MAX_PARTS; i++)
        if (s->part[i].kind == INPUT) {
            run->out->nx[i] = s->in[i]->rows * s->in[i]->cols;
            run->out->dx[i] = gradient_of(t, s->in[i]);
        }
    run->out->dw = run->numel ? copy(tape_read(t, t->param_grad, run->numel), run->numel) : NULL;
    return t->error;
}

static int one_run(struct device *device, const struct grid_case *c, const struct shape *shape, bool half, struct outcome *out,
                   struct params *params)
{
    struct run run = {.c = c, .scene = {.s = shape}, .out = out};
    struct tape tape;
    void *there = NULL;
    float *here = NULL;
    int r;

    c->parts(shape, run.scene.part);
    for (int i = 0; i < MAX_PARTS; i++) {
        const struct part *part = &run.scene.part[i];
        char name[8];

        snprintf(name, sizeof(name), "p%d", i);
        if (part->kind == PARAM || part->kind == LINEAR)
            run.scene.p[i] = param_add(params, name, 2, (const int64_t[]) {part->rows, part->cols}, part->kind == LINEAR);
    }
    r = params_allocate(params);
    for (int i = 0; r >= 0 && i < params->count; i++)
        draw(params->list[i]->value, params->list[i]->numel, 50 + (uint64_t)i);
    params_use_device(params, device, half);
    if (r >= 0)
        r = params_pack(params, true);
    run.numel = params->numel;
    tape_init(&tape, true);
    if (r >= 0)
        r = tape_attach(&tape, params);
    if (r >= 0 && device) {
        r = device->k->alloc((size_t)run.numel * sizeof(float), &there);
        r = r < 0 ? r : device->k->zero(tape.on->stream, there, (size_t)run.numel * sizeof(float));
    } else if (r >= 0) {
        here = calloc((size_t)run.numel + 1, sizeof(*here));
    }
    tape.param_grad = device ? there : here;
    if (r >= 0)
        r = tape_run(&tape, pass, &run);
    tape_release(&tape);
    free(here);
    if (device)
        device->k->release(there);
    return r;
}

static void compare(struct grid_result *r, const char *what, const float *got, const float *want, int64_t n,
                    void (*told)(const struct grid_result *r, void *arg), void *arg)
{
    double most = -1;

    r->what = what;
    r->error = numbers_distance(got, want, n);
    r->n = n;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);

        if (d > most || isnan(d)) {
            most = isnan(d) ? INFINITY : d;
            r->at = i, r->got = got[i], r->want = want[i];
        }
    }
    told(r, arg);
}

int device_grid_run(struct device *device, int number, int shape, bool half, void (*told)(const struct grid_result *r, void *arg),
                    void *arg)
{
    static const char *const dx[] = {"dx0", "dx1", "dx2", "dx3"};
    _cleanup_(outcome_release) struct outcome here = {0}, there = {0};
    _cleanup_(params_freep) struct params *a = &(struct params) {0}, *b = &(struct params) {0};
    struct grid_result result = {.op = cases[number].name, .shape = shape, .half = half, .limit = half ? 1.5e-2 : 1e-5};
    int r = one_run(NULL, &cases[number], &shapes[shape], false, &here, a);

    if (r >= 0)
        r = one_run(device, &cases[number], &shapes[shape], half, &there, b);
    if (r < 0)
        return r;
    if (!here.y || !there.y || here.ny != there.ny)
        return -EINVAL;
    compare(&result, "y", there.y, here.y, here.ny, told, arg);
    for (int i = 0; i < MAX_PARTS; i++) {
        if (!here.dx[i])
            continue;
        if (!there.dx[i])
            return -EINVAL;
        compare(&result, dx[i], there.dx[i], here.dx[i], here.nx[i], told, arg);
    }
    for (int i = 0; i < a->count; i++)
        compare(&result, a->list[i]->name, there.dw + b->list[i]->offset, here.dw + a->list[i]->offset, a->list[i]->numel, told,
                arg);
    return 0;
}
