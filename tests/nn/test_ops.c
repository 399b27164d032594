/* Every op on rows: linear, norms, activations, movers of rows. Shapes are odd on purpose. Sequences: test_ops_sequence.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/harness/op_check.h"

enum { ROWS = 13, IN = 37, OUT = 45 };

static struct tensor *build_linear(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_linear(t, in[0], p[1], p[2]);
}

static void linear_reference(const double *x, const double *w, const double *b, int64_t rows, int64_t in, int64_t out, double *y)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t o = 0; o < out; o++) {
            y[r * out + o] = b ? b[o] : 0.0;
            for (int64_t i = 0; i < in; i++)
                y[r * out + o] += x[r * in + i] * w[o * in + i];
        }
}

static void reference_linear(const double *const *part, double *y)
{
    linear_reference(part[0], part[1], part[2], ROWS, IN, OUT, y);
}

enum { FIRST = 39, COUNT = 21 };        /* begins inside a panel, ends in the next */
static struct tensor *build_linear_rows(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_linear_rows(t, in[0], p[1], FIRST, COUNT);
}

static void reference_linear_rows(const double *const *part, double *y)
{
    linear_reference(part[0], part[1] + FIRST * IN, NULL, ROWS, IN, COUNT, y);
}

/* More rows than a block of the k loop: unfinished chains in the backward. */
enum { MANY = 523 };
static struct tensor *build_linear_long(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_linear(t, in[0], p[1], NULL);
}

static void reference_linear_long(const double *const *part, double *y)
{
    linear_reference(part[0], part[1], NULL, MANY, 3, 5, y);
}

static const int32_t picked[] = {44, 3, 3, 0};
static struct tensor *build_linear_picked(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_linear_picked(t, in[0], p[1], picked, ARRAY_SIZE(picked));
}

static void reference_linear_picked(const double *const *part, double *y)
{
    for (int r = 0; r < ROWS; r++)
        for (size_t o = 0; o < ARRAY_SIZE(picked); o++) {
            y[(size_t)r * ARRAY_SIZE(picked) + o] = 0.0;
            for (int i = 0; i < IN; i++)
                y[(size_t)r * ARRAY_SIZE(picked) + o] += part[0][r * IN + i] * part[1][picked[o] * IN + i];
        }
}

static struct tensor *build_add(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_add(t, in[0], in[1]);
}

static void reference_add(const double *const *part, double *y)
{
    for (int i = 0; i < ROWS * IN; i++)
        y[i] = part[0][i] + part[1][i];
}

static struct tensor *build_residual(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_residual(t, in[0], in[1], p[2]);
}

static void reference_residual(const double *const *part, double *y)
{
    for (int i = 0; i < ROWS * IN; i++)
        y[i] = part[0][i] + part[2][i % IN] * part[1][i];
}

enum { SCENES = 3, EACH = 5 };
static struct tensor *build_film(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_film(t, in[0], in[1], in[2], SCENES);
}

static void reference_film(const double *const *part, double *y)
{
    for (int i = 0; i < SCENES * EACH * IN; i++) {
        int at = i / (EACH * IN) * IN + i % IN;

        y[i] = part[0][i] * (1 + part[1][at]) + part[2][at];
    }
}

static const int32_t mean_start[] = {0, 1, 5, ROWS - 1};
static struct tensor *build_span_means(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_span_means(t, in[0], (struct spans) {ARRAY_SIZE(mean_start) - 1, mean_start});
}

static void reference_span_means(const double *const *part, double *y)
{
    for (size_t s = 0; s + 1 < ARRAY_SIZE(mean_start); s++)
        for (int k = 0; k < IN; k++) {
            y[s * IN + (size_t)k] = 0;
            for (int r = mean_start[s]; r < mean_start[s + 1]; r++)
                y[s * IN + (size_t)k] += part[0][r * IN + k] / (mean_start[s + 1] - mean_start[s]);
        }
}

static struct tensor *build_layernorm(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_layernorm(t, in[0], p[1], p[2], 1e-6f);
}

static void reference_layernorm(const double *const *part, double *y)
{
    for (int r = 0; r < ROWS; r++) {
        const double *x = part[0] + r * IN;
        double mean = 0.0, square = 0.0;

        for (int i = 0; i < IN; i++)
            mean += x[i] / IN;
        for (int i = 0; i < IN; i++)
            square += (x[i] - mean) * (x[i] - mean) / IN;
        for (int i = 0; i < IN; i++)
            y[r * IN + i] = (x[i] - mean) / sqrt(square + 1e-6) * part[1][i] + part[2][i];
    }
}

static struct tensor *build_rmsnorm(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_rmsnorm(t, in[0], p[1], 1e-6f);
}

static void reference_rmsnorm(const double *const *part, double *y)
{
    for (int r = 0; r < ROWS; r++) {
        const double *x = part[0] + r * IN;
        double square = 0.0;

        for (int i = 0; i < IN; i++)
            square += x[i] * x[i] / IN;
        for (int i = 0; i < IN; i++)
            y[r * IN + i] = x[i] / sqrt(square + 1e-6) * part[1][i];
    }
}

static struct tensor *build_gelu(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_gelu(t, in[0]);
}

static void reference_gelu(const double *const *part, double *y)
{
    for (int i = 0; i < ROWS * IN; i++)
        y[i] = 0.5 * part[0][i] * (1.0 + erf(part[0][i] / sqrt(2.0)));
}

static struct tensor *build_quick_gelu(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_quick_gelu(t, in[0]);
}

static void reference_quick_gelu(const double *const *part, double *y)
{
    for (int i = 0; i < ROWS * IN; i++)
        y[i] = part[0][i] / (1.0 + exp(-1.702 * part[0][i]));
}

static struct tensor *build_relu(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_relu(t, in[0]);
}

static void reference_relu(const double *const *part, double *y)
{
    for (int i = 0; i < ROWS * IN; i++)
        y[i] = part[0][i] > 0.0 ? part[0][i] : 0.0;
}

static struct tensor *build_swiglu(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_swiglu(t, in[0], in[1]);
}

static void reference_swiglu(const double *const *part, double *y)
{
    for (int i = 0; i < ROWS * IN; i++)
        y[i] = part[0][i] / (1.0 + exp(-part[0][i])) * part[1][i];
}

enum { PICTURES = 3, PATCHES = 5 };
static struct tensor *build_positions(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_add_positions(t, in[0], p[1], PICTURES);
}

static void reference_positions(const double *const *part, double *y)
{
    for (int i = 0; i < PICTURES * PATCHES * IN; i++)
        y[i] = part[0][i] + part[1][i % (PATCHES * IN)];
}

enum { REGISTERS = 2 };
static struct tensor *build_prepend(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    return op_prepend(t, in[0], p[1], p[2], PICTURES);
}

static void reference_prepend(const double *const *part, double *y)
{
    for (int b = 0; b < PICTURES; b++)
        for (int r = 0; r < 1 + REGISTERS + PATCHES; r++)
            for (int i = 0; i < IN; i++)
                *y++ = r == 0 ? part[1][i] : r <= REGISTERS ? part[2][(r - 1) * IN + i]
                                                            : part[0][(b * PATCHES + r - 1 - REGISTERS) * IN + i];
}

static struct tensor *build_strip(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_strip(t, in[0], PICTURES, 2);
}

static void reference_strip(const double *const *part, double *y)
{
    for (int b = 0; b < PICTURES; b++)
        for (int r = 2; r < PATCHES; r++)
            for (int i = 0; i < IN; i++)
                *y++ = part[0][(b * PATCHES + r) * IN + i];
}

static struct tensor *build_concat(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_concat(t, in[0], in[1]);
}

static void reference_concat(const double *const *part, double *y)
{
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < IN; i++)
            *y++ = part[0][r * IN + i];
        for (int i = 0; i < 3; i++)
            *y++ = part[1][r * 3 + i];
    }
}

static struct tensor *build_reshape(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_reshape(t, in[0], 3, 4 * IN);
}

static void reference_reshape(const double *const *part, double *y)
{
    for (int i = 0; i < 12 * IN; i++)
        y[i] = part[0][i];
}

static struct tensor *build_clamp(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_clamp(t, in[0], -0.9f, 0.6f);
}

static void reference_clamp(const double *const *part, double *y)
{
    for (int i = 0; i < ROWS * IN; i++)
        y[i] = CLAMP(part[0][i], (double)-0.9f, (double)0.6f);
}

static const int32_t ids[] = {4, 0, 6, 4, EMBEDDING_ZERO, 4, 1};
static struct tensor *build_embedding(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)in;
    return op_embedding(t, p[0], ids, ARRAY_SIZE(ids));
}

static void reference_embedding(const double *const *part, double *y)
{
    for (size_t r = 0; r < ARRAY_SIZE(ids); r++)
        for (int i = 0; i < IN; i++)
            *y++ = ids[r] == EMBEDDING_ZERO ? 0.0 : part[0][ids[r] * IN + i];
}

static const int32_t spliced[] = {2, -1, -3, 0, 2, 1, -3};
static struct tensor *build_splice(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_splice(t, in[0], in[1], spliced, ARRAY_SIZE(spliced));
}

static void reference_splice(const double *const *part, double *y)
{
    for (size_t r = 0; r < ARRAY_SIZE(spliced); r++)
        for (int i = 0; i < IN; i++)
            *y++ = spliced[r] >= 0 ? part[0][spliced[r] * IN + i] : part[1][(-1 - spliced[r]) * IN + i];
}

static const int32_t gathered[] = {2, 0, 2, 3};
static struct tensor *build_gather(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_gather(t, in[0], gathered, ARRAY_SIZE(gathered));
}

static void reference_gather(const double *const *part, double *y)
{
    for (size_t r = 0; r < ARRAY_SIZE(gathered); r++)
        for (int i = 0; i < IN; i++)
            *y++ = part[0][gathered[r] * IN + i];
}

enum { GROUP = 4 };
static struct tensor *build_merge(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_merge(t, in[0], GROUP);
}

static void reference_merge(const double *const *part, double *y)
{
    memcpy(y, part[0], 3 * GROUP * IN * sizeof(*y));
}

#define IN_(r, c) {INPUT, r, c}
static const struct op_case cases[] = {
    {"linear", {IN_(ROWS, IN), {LINEAR, OUT, IN}, {PARAM, 1, OUT}}, ROWS, OUT, build_linear, reference_linear},
    {"linear_rows", {IN_(ROWS, IN), {LINEAR, 70, IN}}, ROWS, COUNT, build_linear_rows, reference_linear_rows},
    {"linear, many rows", {IN_(MANY, 3), {LINEAR, 5, 3}}, MANY, 5, build_linear_long, reference_linear_long},
    {"linear_picked", {IN_(ROWS, IN), {PARAM, OUT, IN}}, ROWS, ARRAY_SIZE(picked), build_linear_picked, reference_linear_picked},
    {"add", {IN_(ROWS, IN), IN_(ROWS, IN)}, ROWS, IN, build_add, reference_add},
    {"film", {IN_(SCENES * EACH, IN), IN_(SCENES, IN), IN_(SCENES, IN)}, SCENES * EACH, IN, build_film, reference_film},
    {"means over spans", {IN_(ROWS, IN)}, 3, IN, build_span_means, reference_span_means},
    {"residual with scale", {IN_(ROWS, IN), IN_(ROWS, IN), {PARAM, 1, IN}}, ROWS, IN, build_residual, reference_residual},
    {"layernorm", {IN_(ROWS, IN), {PARAM, 1, IN}, {PARAM, 1, IN}}, ROWS, IN, build_layernorm, reference_layernorm},
    {"rmsnorm", {IN_(ROWS, IN), {PARAM, 1, IN}}, ROWS, IN, build_rmsnorm, reference_rmsnorm},
    {"gelu", {IN_(ROWS, IN)}, ROWS, IN, build_gelu, reference_gelu},
    {"quick gelu", {IN_(ROWS, IN)}, ROWS, IN, build_quick_gelu, reference_quick_gelu},
    {"relu", {IN_(ROWS, IN)}, ROWS, IN, build_relu, reference_relu},
    {"swiglu", {IN_(ROWS, IN), IN_(ROWS, IN)}, ROWS, IN, build_swiglu, reference_swiglu},
    {"add_positions", {IN_(PICTURES * PATCHES, IN), {PARAM, PATCHES, IN}}, PICTURES * PATCHES, IN, build_positions,
     reference_positions},
    {"prepend", {IN_(PICTURES * PATCHES, IN), {PARAM, 1, IN}, {PARAM, REGISTERS, IN}}, PICTURES * (PATCHES + 1 + REGISTERS), IN,
     build_prepend, reference_prepend},
    {"strip", {IN_(PICTURES * PATCHES, IN)}, PICTURES * (PATCHES - 2), IN, build_strip, reference_strip},
    {"concat", {IN_(ROWS, IN), IN_(ROWS, 3)}, ROWS, IN + 3, build_concat, reference_concat},
    {"reshape", {IN_(12, IN)}, 3, 4 * IN, build_reshape, reference_reshape},
    {"clamp", {IN_(ROWS, IN)}, ROWS, IN, build_clamp, reference_clamp},
    {"embedding", {{PARAM, 7, IN}}, ARRAY_SIZE(ids), IN, build_embedding, reference_embedding},
    {"splice", {IN_(3, IN), IN_(4, IN)}, ARRAY_SIZE(spliced), IN, build_splice, reference_splice},
    {"gather", {IN_(4, IN)}, ARRAY_SIZE(gathered), IN, build_gather, reference_gather},
    {"merge", {IN_(3 * GROUP, IN)}, 3, GROUP *IN, build_merge, reference_merge},
};

static void test_every_op(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        op_check(&cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_op)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
