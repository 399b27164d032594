/* attention.c - softmax attention within each packed sequence, head by head. */
#include <math.h>

#include "nn/ops/op.h"

struct attend {
    struct tensor *q, *k, *v;           /* the same tensor three times for qkv */
    int64_t q_at, k_at, v_at;           /* first column of q, k, v in their rows */
    struct tensor *y;
    const int32_t *start;               /* [n+1], own copy */
    int n, heads;
    bool causal;
    float *p, *inverse;                 /* kept in training: per head, sequence after sequence; inference: one sequence's worth */
    int64_t p_head;                     /* floats of p per head */
};

static int64_t longest(const struct attend *c)
{
    int64_t rows = 0;

    for (int i = 0; i < c->n; i++)
        rows = MAX(rows, c->start[i + 1] - c->start[i]);
    return rows;
}

/* Fill in one head of one sequence. p_before: floats of p of the sequences before it. */
static struct attention one(const struct attend *c, int i, int h, int64_t p_before, bool kept, float *scratch)
{
    int64_t dim = c->y->cols / c->heads, first = c->start[i], in = first * c->q->cols, out = first * c->y->cols + h * dim;
    struct attention a = {
        .rows = c->start[i + 1] - first, .dim = dim, .stride = c->q->cols, .out_stride = c->y->cols, .causal = c->causal,
        .scale = 1.0f / sqrtf((float)dim),
        .q = c->q->x + in + c->q_at + h * dim, .k = c->k->x + in + c->k_at + h * dim, .v = c->v->x + in + c->v_at + h * dim,
        .out = c->y->x + out, .p = c->p + (kept ? h * c->p_head + p_before : 0),
        .inverse = c->inverse + (kept ? h * c->y->rows + first : 0), .scratch = scratch,
    };

    if (c->y->g && c->q->g && c->k->g && c->v->g) {     /* on the way back */
        a.dout = c->y->g + out;
        a.dq = c->q->g + in + c->q_at + h * dim;
        a.dk = c->k->g + in + c->k_at + h * dim;
        a.dv = c->v->g + in + c->v_at + h * dim;
    }
    return a;
}

static void attention_backward(struct tape *tape, void *context)
{
    const struct attend *c = context;
    int64_t p_before = 0;
    float *scratch;

    if (!c->q->wants || !c->k->wants || !c->v->wants)
        return;
    if (!tape_gradient(tape, c->q) || !tape_gradient(tape, c->k) || !tape_gradient(tape, c->v))
        return;
    scratch = tape_scratch(tape, attention_scratch(longest(c), c->y->cols / c->heads, true));
    if (!scratch)
        return;
    for (int i = 0; i < c->n; i++) {
        int64_t rows = c->start[i + 1] - c->start[i];

        for (int h = 0; h < c->heads; h++) {
            struct attention a = one(c, i, h, p_before, true, scratch);

            cpu_kernels()->attention_backward(&a);
        }
        p_before += rows * gemm_padded(rows);
    }
}

static struct tensor *attend(struct tape *t, struct attend proto, struct spans spans, int64_t width, enum attention_mask mask)
{
    struct attend *c = tape_alloc(t, sizeof(*c));
    int32_t *start = tape_alloc(t, (size_t)(spans.n + 1) * sizeof(*start));
    int64_t rows_max, p_before = 0;
    float *scratch;

    if (!c || !start)
        return NULL;
    if (proto.heads < 1 || width % proto.heads || spans.start[spans.n] != proto.q->rows)
        return op_fail(t, -EINVAL);
    memcpy(start, spans.start, (size_t)(spans.n + 1) * sizeof(*start));
    *c = proto;
    c->start = start;
    c->n = spans.n;
    c->causal = mask == ATTENTION_CAUSAL;
    c->y = tape_tensor(t, proto.q->rows, width);
    rows_max = longest(c);
    for (int i = 0; i < c->n; i++)
        c->p_head += (int64_t)(start[i + 1] - start[i]) * gemm_padded(start[i + 1] - start[i]);
    c->p = tape_numbers(t, t->training ? c->p_head * c->heads : rows_max * gemm_padded(rows_max));
    c->inverse = tape_numbers(t, t->training ? proto.q->rows * c->heads : rows_max);
    tape_record(t, c->y, attention_backward, c);
    scratch = tape_scratch(t, attention_scratch(rows_max, width / c->heads, t->training && t->planning));
    if (t->error || t->planning)
        return t->error ? NULL : c->y;
    for (int i = 0; i < c->n; i++) {
        int64_t rows = start[i + 1] - start[i];

        for (int h = 0; h < c->heads; h++) {
            struct attention a = one(c, i, h, p_before, t->training, scratch);
            cpu_kernels()->attention(&a);
        }
        p_before += rows * gemm_padded(rows);
    }
    return c->y;
}

struct tensor *op_attention(struct tape *t, struct tensor *q, struct tensor *k, struct tensor *v, struct spans spans, int heads,
                            enum attention_mask mask)
{
    if (!q || !k || !v)
        return NULL;
    if (q->cols != k->cols || q->cols != v->cols || q->rows != k->rows || q->rows != v->rows)
        return op_fail(t, -EINVAL);
    return attend(t, (struct attend) {.q = q, .k = k, .v = v, .heads = heads}, spans, q->cols, mask);
}

struct tensor *op_attention_qkv(struct tape *t, struct tensor *qkv, struct spans spans, int heads, enum attention_mask mask)
{
    int64_t width;

    if (!qkv)
        return NULL;
    width = qkv->cols / 3;
    if (qkv->cols % 3)
        return op_fail(t, -EINVAL);
    return attend(t, (struct attend) {.q = qkv, .k = qkv, .v = qkv, .k_at = width, .v_at = 2 * width, .heads = heads}, spans, width, mask);
}
