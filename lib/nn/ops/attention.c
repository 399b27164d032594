/* attention.c - softmax attention within each packed sequence, head by head. */
#include <math.h>

#include "nn/ops/op.h"

struct attend {
    struct tensor *q, *k, *v;           /* the same tensor three times for qkv */
    int64_t q_at, k_at, v_at;           /* first column of q, k, v in their rows */
    struct tensor *y;
    const int32_t *start;               /* [n+1] of k and v, own copy */
    const int32_t *asking;              /* [n+1] of q: the last rows of each sequence; start when all ask */
    int n, heads, group;                /* group: heads of q that share one of k and v */
    bool causal;
    float *lse;                         /* on a device, in training: [heads][queries] of each sequence */
    float *p, *inverse;                 /* kept in training: per head, sequence after sequence; inference: one sequence's worth */
    int64_t p_head;                     /* floats of p per head */
};

static int64_t rows_of(const int32_t *start, int i)
{
    return start[i + 1] - start[i];
}

static int64_t longest(const struct attend *c)
{
    int64_t rows = 0;

    for (int i = 0; i < c->n; i++)
        rows = MAX(rows, rows_of(c->start, i));
    return rows;
}

/* Floats of p of one head of one sequence. */
static int64_t p_size(const struct attend *c, int i)
{
    return rows_of(c->asking, i) * gemm_padded(rows_of(c->start, i));
}

/* Fill in one head of one sequence. p_before: floats of p of the sequences before it. */
static struct attention one(const struct attend *c, int i, int h, int64_t p_before, bool kept, float *scratch)
{
    int64_t dim = c->y->cols / c->heads, rows = rows_of(c->start, i), out = c->asking[i] * c->y->cols + h * dim;
    int64_t shared = h / c->group * dim, q = c->asking[i] * c->q->cols + c->q_at + h * dim;
    int64_t k = c->start[i] * c->k->cols + c->k_at + shared, v = c->start[i] * c->v->cols + c->v_at + shared;
    struct attention a = {
        .rows = rows, .first = rows - rows_of(c->asking, i), .dim = dim, .q_stride = c->q->cols, .stride = c->k->cols,
        .out_stride = c->y->cols, .causal = c->causal, .scale = 1.0f / sqrtf((float)dim),
        .q = c->q->x + q, .k = c->k->x + k, .v = c->v->x + v,
        .out = c->y->x + out, .p = c->p + (kept ? h * c->p_head + p_before : 0),
        .inverse = c->inverse + (kept ? h * c->y->rows + c->asking[i] : 0), .scratch = scratch,
    };

    if (c->y->g && c->q->g && c->k->g && c->v->g) {     /* on the way back */
        a.dout = c->y->g + out;
        a.dq = c->q->g + q;
        a.dk = c->k->g + k;
        a.dv = c->v->g + v;
    }
    return a;
}

/* On a device: pointers and indices; scratch is asked for by the caller. */
static bool on_device(struct tape *t, const struct attend *c, struct device_attention *ret)
{
    int64_t dim = c->y->cols / c->heads, asking = 0;
    const int32_t *start = send_ints(t, c->start, c->n + 1), *asks = send_ints(t, c->asking, c->n + 1);
    bool alike = true;

    for (int i = 0; i < c->n; i++) {
        asking = MAX(asking, rows_of(c->asking, i));
        alike = alike && rows_of(c->asking, i) == rows_of(c->asking, 0) && rows_of(c->start, i) == rows_of(c->start, 0);
    }
    *ret = (struct device_attention) {
        .n = c->n, .heads = c->heads, .group = c->group, .dim = dim, .causal = c->causal, .scale = 1.0f / sqrtf((float)dim),
        .start = start,
        .asking = asks, .start_here = c->start, .asking_here = c->asking, .longest = longest(c), .longest_asking = asking,
        .q_rows = c->q->rows, .alike = alike, .q_stride = c->q->cols, .kv_stride = c->k->cols,
        .out_stride = c->y->cols, .q = at_activation(t, c->q->x, c->q_at), .k = at_activation(t, c->k->x, c->k_at),
        .v = at_activation(t, c->v->x, c->v_at), .out = c->y->x, .lse = c->lse,
    };
    return start && asks;
}

static void backward_on_device(struct tape *t, const struct attend *c, bool add)
{
    float *delta = tape_scratch(t, c->q->rows * c->heads);
    struct device_attention a;

    if (!delta || !on_device(t, c, &a))
        return;
    a.dout = c->y->g;
    a.dq = at_activation(t, c->q->g, c->q_at);
    a.dk = at_activation(t, c->k->g, c->k_at);
    a.dv = at_activation(t, c->v->g, c->v_at);
    a.delta = delta;
    a.fresh = !add;
    op_ran(t, device_attention(t->on, type_of(t), &a, true));
}

static void attention_backward(struct tape *tape, void *context)
{
    const struct attend *c = context;
    struct tensor *to[3] = {c->q, c->k, c->v};
    int64_t p_before = 0;
    float *scratch;
    bool add;

    if (!c->q->wants || !c->k->wants || !c->v->wants || !op_gradients(tape, to, 3, &add))
        return;
    if (tape->on) {
        backward_on_device(tape, c, add);
        return;
    }
    scratch = tape_scratch(tape, attention_scratch(longest(c), c->y->cols / c->heads, true));
    if (!scratch)
        return;
    for (int i = 0; i < c->n; i++) {
        for (int h = 0; h < c->heads; h++) {
            struct attention a = one(c, i, h, p_before, true, scratch);

            cpu_kernels()->attention_backward(&a);
        }
        p_before += p_size(c, i);
    }
}

static struct tensor *attend_on_device(struct tape *t, struct attend *c)
{
    int64_t numbers = t->training ? c->q->rows * c->heads : 0;
    struct device_attention a;

    c->lse = t->training ? tape_numbers(t, numbers) : NULL;
    tape_record(t, c->y, attention_backward, c);
    tape_scratch(t, numbers);
    if (!t->error && !t->planning && on_device(t, c, &a))
        op_ran(t, device_attention(t->on, type_of(t), &a, false));
    return t->error ? NULL : c->y;
}

static struct tensor *attend_here(struct tape *t, struct attend *c)
{
    int64_t rows_max = longest(c), p_before = 0;
    float *scratch;

    for (int i = 0; i < c->n; i++)
        c->p_head += p_size(c, i);
    c->p = tape_numbers(t, t->training ? c->p_head * c->heads : rows_max * gemm_padded(rows_max));
    c->inverse = tape_numbers(t, t->training ? c->q->rows * c->heads : rows_max);
    tape_record(t, c->y, attention_backward, c);
    scratch = tape_scratch(t, attention_scratch(rows_max, c->y->cols / c->heads, t->training && t->planning));
    if (t->error || t->planning)
        return t->error ? NULL : c->y;
    for (int i = 0; i < c->n; i++) {
        for (int h = 0; h < c->heads; h++) {
            struct attention a = one(c, i, h, p_before, t->training, scratch);

            cpu_kernels()->attention(&a);
        }
        p_before += p_size(c, i);
    }
    return c->y;
}

static struct tensor *attend(struct tape *t, struct attend proto, struct spans spans, struct spans asking, int64_t width,
                             enum attention_mask mask)
{
    struct attend *c = tape_alloc(t, sizeof(*c));
    int32_t *start = tape_alloc(t, 2 * (size_t)(spans.n + 1) * sizeof(*start));

    if (!c || !start)
        return NULL;
    if (proto.heads < 1 || width % proto.heads || spans.start[spans.n] != proto.k->rows || asking.n != spans.n ||
        asking.start[spans.n] != proto.q->rows)
        return op_fail(t, -EINVAL);
    for (int i = 0; i < spans.n; i++)
        if (rows_of(asking.start, i) > rows_of(spans.start, i))
            return op_fail(t, -EINVAL);
    memcpy(start, spans.start, (size_t)(spans.n + 1) * sizeof(*start));
    memcpy(start + spans.n + 1, asking.start, (size_t)(spans.n + 1) * sizeof(*start));
    *c = proto;
    c->start = start;
    c->asking = start + spans.n + 1;
    c->n = spans.n;
    c->causal = mask == ATTENTION_CAUSAL;
    c->y = tape_tensor(t, proto.q->rows, width);
    if (!c->y)
        return NULL;
    return t->on ? attend_on_device(t, c) : attend_here(t, c);
}

/* Heads of q per head of k and v; 0: they do not fit. */
static int group_of(const struct tensor *q, const struct tensor *k, const struct tensor *v, int heads)
{
    int64_t dim = heads > 0 && q->cols % heads == 0 ? q->cols / heads : 0;

    if (!dim || k->cols != v->cols || k->rows != v->rows || !k->cols || k->cols % dim || heads % (k->cols / dim))
        return 0;
    return (int)(heads / (k->cols / dim));
}

static struct tensor *attend_apart(struct tape *t, struct tensor *q, struct tensor *k, struct tensor *v, struct spans spans,
                                   struct spans tail, int heads, enum attention_mask mask)
{
    int group;

    if (!q || !k || !v)
        return NULL;
    group = group_of(q, k, v, heads);
    if (!group)
        return op_fail(t, -EINVAL);
    return attend(t, (struct attend) {.q = q, .k = k, .v = v, .heads = heads, .group = group}, spans, tail, q->cols, mask);
}

struct tensor *op_attention(struct tape *t, struct tensor *q, struct tensor *k, struct tensor *v, struct spans spans, int heads,
                            enum attention_mask mask)
{
    return attend_apart(t, q, k, v, spans, spans, heads, mask);
}

struct tensor *op_attention_tail(struct tape *t, struct tensor *q, struct tensor *k, struct tensor *v, struct spans spans,
                                 struct spans tail, int heads)
{
    return attend_apart(t, q, k, v, spans, tail, heads, ATTENTION_CAUSAL);
}

struct tensor *op_attention_qkv(struct tape *t, struct tensor *qkv, struct spans spans, int heads, enum attention_mask mask)
{
    int64_t width;

    if (!qkv)
        return NULL;
    width = qkv->cols / 3;
    if (qkv->cols % 3)
        return op_fail(t, -EINVAL);
    return attend(t, (struct attend) {.q = qkv, .k = qkv, .v = qkv, .k_at = width, .v_at = 2 * width, .heads = heads, .group = 1},
                  spans, spans, width, mask);
}
