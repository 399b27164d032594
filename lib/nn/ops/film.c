/* film.c - feature-wise modulation: every row of a picture times 1 + gamma, plus beta, of that picture. And the means over rows
 * that such conditions are made of. */
#include "nn/ops/op.h"

struct film { struct tensor *x, *gamma, *beta, *y; int n; };

/* Row i of a small tensor as fp32: itself, or a copy in `to`. */
static const float *row_f32(struct tape *t, const float *x, int64_t row, int64_t cols, float *to)
{
    float *at = at_activation(t, x, row * cols);

    if (!t->on || type_of(t) == DEVICE_F32)
        return at;
    ON(t, convert, DEVICE_F32, to, DEVICE_BF16, at, cols);
    return to;
}

/* g's row += sum, which is fp32. `between` has room for a row. */
static void add_row(struct tape *t, float *g, int64_t row, const float *sum, int64_t cols, float *between)
{
    if (!t->on) {
        cpu_kernels()->accumulate(g + row * cols, sum, cols);
        return;
    }
    if (type_of(t) != DEVICE_F32)
        ON(t, convert, DEVICE_BF16, between, DEVICE_F32, sum, cols);
    ON(t, accumulate, type_of(t), at_activation(t, g, row * cols), type_of(t) == DEVICE_F32 ? sum : between, cols);
}

static void film_backward(struct tape *tape, void *context)
{
    const struct film *c = context;
    const struct cpu_kernels *cpu = cpu_kernels();
    int64_t cols = c->x->cols, rows = c->x->rows / c->n;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL;
    float *dgamma = c->gamma->wants ? tape_gradient(tape, c->gamma) : NULL,
        *dbeta = c->beta->wants ? tape_gradient(tape, c->beta) : NULL;
    float *sums = tape_scratch(tape, 4 * cols);

    if (!sums)
        return;
    for (int i = 0; i < c->n; i++) {
        const float *gamma = row_f32(tape, c->gamma->x, i, cols, sums + 2 * cols);
        float *dy = at_activation(tape, c->y->g, i * rows * cols), *to = at_activation(tape, dx, i * rows * cols);
        const float *x = at_activation(tape, c->x->x, i * rows * cols);

        tape_zero(tape, sums, (size_t)(2 * cols) * sizeof(*sums));
        if (tape->on) {
            ON(tape, residual_backward, type_of(tape), to, dgamma ? sums : NULL, dy, x, gamma, rows, cols);
            if (to)
                ON(tape, accumulate, type_of(tape), to, dy, rows * cols);
            if (dbeta)
                ON(tape, column_sum, type_of(tape), sums + cols, dy, cols, rows, cols);
        } else {
            for (int64_t r = 0; r < rows; r++)
                for (int64_t k = 0; k < cols; k++)
                    sums[k] += dy[r * cols + k] * x[r * cols + k];
            for (int64_t r = 0; to && r < rows; r++)
                for (int64_t k = 0; k < cols; k++)
                    to[r * cols + k] += dy[r * cols + k] * (1.0f + gamma[k]);
            cpu->column_sum(sums + cols, dy, rows, cols);
        }
        if (dgamma)
            add_row(tape, dgamma, i, sums, cols, sums + 3 * cols);
        if (dbeta)
            add_row(tape, dbeta, i, sums + cols, cols, sums + 3 * cols);
    }
}

struct tensor *op_film(struct tape *t, struct tensor *x, struct tensor *gamma, struct tensor *beta, int n)
{
    int64_t rows, cols;
    struct film *c;
    struct tensor *y;
    float *scratch;

    if (!x || !gamma || !beta)
        return NULL;
    if (n < 1 || x->rows % n || gamma->rows != n || beta->rows != n || gamma->cols != x->cols || beta->cols != x->cols)
        return op_fail(t, -EINVAL);
    rows = x->rows / n;
    cols = x->cols;
    y = tape_tensor(t, x->rows, cols);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct film) {.x = x, .gamma = gamma, .beta = beta, .y = y, .n = n};
    tape_record(t, y, film_backward, c);
    scratch = tape_scratch(t, 4 * cols);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    for (int i = 0; i < n && scratch; i++) {
        const float *g = row_f32(t, gamma->x, i, cols, scratch), *b = row_f32(t, beta->x, i, cols, scratch + cols);
        float *to = at_activation(t, y->x, i * rows * cols), *from = at_activation(t, x->x, i * rows * cols);

        if (t->on) {
            ON(t, residual, type_of(t), to, from, from, g, rows, cols);
            ON(t, add_cycle, type_of(t), to, to, b, cols, rows * cols);
            continue;
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < cols; k++)
                to[r * cols + k] = from[r * cols + k] * (1.0f + g[k]) + b[k];
    }
    return t->error ? NULL : y;
}

/* ---- means ------------------------------------------------------------------------------------------------------ */

struct means { struct tensor *x, *y; struct spans spans; };

static void means_backward(struct tape *tape, void *context)
{
    const struct means *c = context;
    int64_t cols = c->x->cols;
    float *dx = c->x->wants ? tape_gradient(tape, c->x) : NULL, *share = dx ? tape_scratch(tape, cols) : NULL;

    for (int i = 0; i < c->spans.n && share; i++) {
        int64_t first = c->spans.start[i], rows = c->spans.start[i + 1] - first;
        const float *dy = at_activation(tape, c->y->g, i * cols);

        if (!tape->on) {
            for (int64_t r = 0; r < rows; r++)
                cpu_kernels()->accumulate_scaled(dx + (first + r) * cols, dy, 1.0f / (float)rows, cols);
            continue;
        }
        op_ran(tape, tape->on->k->copy(tape->on->stream, share, dy, (size_t)cols * tape_element(tape)));
        ON(tape, scale, type_of(tape), share, 1.0f / (float)rows, cols);
        ON(tape, copy_rows, type_of(tape), at_activation(tape, dx, first * cols), cols, share, 0, rows, cols, true);
    }
}

struct tensor *op_span_means(struct tape *t, struct tensor *x, struct spans spans)
{
    struct means *c;
    struct tensor *y;
    float *sum;

    if (!x)
        return NULL;
    for (int i = 0; i < spans.n; i++)
        if (spans.start[i + 1] <= spans.start[i] || spans.start[i + 1] > x->rows)
            return op_fail(t, -EINVAL);
    y = tape_tensor(t, spans.n, x->cols);
    c = tape_alloc(t, sizeof(*c));
    if (!y || !c)
        return NULL;
    *c = (struct means) {.x = x, .y = y, .spans = spans};
    tape_record(t, y, means_backward, c);
    sum = tape_scratch(t, x->cols);
    if (t->error || t->planning)
        return t->error ? NULL : y;
    for (int i = 0; i < spans.n && sum; i++) {
        int64_t rows = spans.start[i + 1] - spans.start[i];
        const float *from = at_activation(t, x->x, spans.start[i] * x->cols);
        float *to = at_activation(t, y->x, i * x->cols);

        tape_zero(t, sum, (size_t)x->cols * sizeof(*sum));
        if (t->on) {
            ON(t, column_sum, type_of(t), sum, from, x->cols, rows, x->cols);
            ON(t, scale, DEVICE_F32, sum, 1.0f / (float)rows, x->cols);
            ON(t, convert, type_of(t), to, DEVICE_F32, sum, x->cols);
            continue;
        }
        cpu_kernels()->column_sum(sum, from, rows, x->cols);
        for (int64_t k = 0; k < x->cols; k++)
            to[k] = sum[k] * (1.0f / (float)rows);
    }
    return t->error ? NULL : y;
}
