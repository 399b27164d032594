/* Every op against a plain double-precision version of itself: forward by value, backward by central differences of the
 * double version under the loss sum(w * y) with random w. Shapes are odd on purpose. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/philox.h"
#include "nn/ops.h"

enum { MAX_PARTS = 4 };
enum kind { NONE, INPUT, PARAM, LINEAR };       /* an activation; a parameter; a parameter that is packed */

struct part { enum kind kind; int64_t rows, cols; };

struct op_case {
    const char *name;
    struct part part[MAX_PARTS];
    int64_t rows, cols;         /* of y */
    struct tensor *(*build)(struct tape *t, struct tensor *const *in, struct param *const *p);
    void (*reference)(const double *const *part, double *y);
};

/* ---- the cases: build on a tape, and the same in double -------------------------------------------- */

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

enum { HEADS = 3, DIM = 22 };
static const int32_t rope_positions[] = {0, 1, 2, 70, 5};
static struct tensor *build_rope(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_rope(t, op_add(t, in[0], in[0]), rope_positions, HEADS, 10000.0f);
}

static void reference_rope(const double *const *part, double *y)
{
    for (size_t r = 0; r < ARRAY_SIZE(rope_positions); r++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < DIM / 2; i++) {
                const double *x = part[0] + (r * HEADS + (size_t)h) * DIM;
                float angle = (float)rope_positions[r] * (float)pow(10000.0, -2.0 * i / DIM);
                double c = cos((double)angle), s = sin((double)angle);

                y[(r * HEADS + (size_t)h) * DIM + (size_t)i] = 2.0 * (x[i] * c - x[i + DIM / 2] * s);
                y[(r * HEADS + (size_t)h) * DIM + (size_t)i + DIM / 2] = 2.0 * (x[i + DIM / 2] * c + x[i] * s);
            }
}

/* The first two of three heads turn, each row by angles of its own. */
enum { TURNED = 2 };
static float angles[5][DIM];
static struct tensor *build_rope_table(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < DIM / 2; i++) {
            angles[r][i] = (float)cos(0.3 * r + 0.7 * i);
            angles[r][DIM / 2 + i] = (float)sin(0.3 * r + 0.7 * i);
        }
    return op_rope_table(t, op_add(t, in[0], in[0]), t->planning ? NULL : angles[0], TURNED, DIM);
}

static void reference_rope_table(const double *const *part, double *y)
{
    for (int r = 0; r < 5; r++)
        for (int h = 0; h < TURNED + 1; h++)
            for (int i = 0; i < DIM / 2; i++) {
                const double *x = part[0] + (r * (TURNED + 1) + h) * DIM;
                double *to = y + (r * (TURNED + 1) + h) * DIM;
                double c = h < TURNED ? (double)angles[r][i] : 1.0, s = h < TURNED ? (double)angles[r][DIM / 2 + i] : 0.0;

                to[i] = 2.0 * (x[i] * c - x[i + DIM / 2] * s);
                to[i + DIM / 2] = 2.0 * (x[i + DIM / 2] * c + x[i] * s);
            }
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

/* Three sequences: of one row, of a few, of more than a strip and a panel. */
static const int32_t starts[] = {0, 1, 6, 41};
static const struct spans spans = {3, starts};
enum { PACKED = 41 };

static void attention_reference(const double *q, const double *k, const double *v, int64_t stride, bool causal, double *y)
{
    for (int s = 0; s < spans.n; s++)
        for (int h = 0; h < HEADS; h++)
            for (int i = starts[s]; i < starts[s + 1]; i++) {
                double p[PACKED], sum = 0.0;
                int end = causal ? i + 1 : starts[s + 1];

                for (int j = starts[s]; j < end; j++) {
                    double score = 0.0;
                    for (int d = 0; d < DIM; d++)
                        score += q[i * stride + h * DIM + d] * k[j * stride + h * DIM + d];
                    sum += p[j] = exp(score / sqrt((double)DIM));
                }
                for (int d = 0; d < DIM; d++) {
                    y[i * HEADS * DIM + h * DIM + d] = 0.0;
                    for (int j = starts[s]; j < end; j++)
                        y[i * HEADS * DIM + h * DIM + d] += p[j] / sum * v[j * stride + h * DIM + d];
                }
            }
}

static struct tensor *build_attention(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_attention(t, in[0], in[1], in[2], spans, HEADS, ATTENTION_CAUSAL);
}

static void reference_attention(const double *const *part, double *y)
{
    attention_reference(part[0], part[1], part[2], HEADS * DIM, true, y);
}

/* Grouped queries: three heads of q for each of k and v. */
enum { SHARED = 2 };
static struct tensor *build_attention_grouped(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_attention(t, in[0], in[1], in[2], spans, 3 * SHARED, ATTENTION_CAUSAL);
}

/* As if k and v had been copied to every head that shares them. */
static void reference_attention_grouped(const double *const *part, double *y)
{
    static double q[PACKED * HEADS * DIM], k[PACKED * HEADS * DIM], v[PACKED * HEADS * DIM], one[PACKED * HEADS * DIM];
    const int width = 3 * SHARED * DIM;

    for (int first = 0; first < 3 * SHARED; first += HEADS) {
        for (int i = 0; i < PACKED; i++)
            for (int h = 0; h < HEADS; h++)
                for (int d = 0; d < DIM; d++) {
                    int from = i * SHARED * DIM + MIN(first + h, 3 * SHARED - 1) / 3 * DIM + d, to = (i * HEADS + h) * DIM + d;

                    q[to] = part[0][i * width + MIN(first + h, 3 * SHARED - 1) * DIM + d];
                    k[to] = part[1][from];
                    v[to] = part[2][from];
                }
        attention_reference(q, k, v, HEADS * DIM, true, one);
        for (int i = 0; i < PACKED; i++)
            for (int h = 0; h < HEADS && first + h < 3 * SHARED; h++)
                memcpy(y + i * width + (first + h) * DIM, one + (i * HEADS + h) * DIM, DIM * sizeof(*y));
    }
}

/* The last rows of each sequence ask: its only one, the last, a few that begin inside a strip. */
static const int32_t tails[] = {0, 1, 2, 17};
enum { ASKING = 17 };
static struct tensor *build_attention_tail(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_attention_tail(t, in[0], in[1], in[2], spans, (struct spans) {3, tails}, HEADS);
}

static void reference_attention_tail(const double *const *part, double *y)
{
    static double q[PACKED * HEADS * DIM], all[PACKED * HEADS * DIM];
    const int width = HEADS * DIM;

    for (int s = 0; s < spans.n; s++)
        memcpy(q + (starts[s + 1] - (tails[s + 1] - tails[s])) * width, part[0] + tails[s] * width,
               (size_t)((tails[s + 1] - tails[s]) * width) * sizeof(*q));
    attention_reference(q, part[1], part[2], width, true, all);
    for (int s = 0; s < spans.n; s++)
        memcpy(y + tails[s] * width, all + (starts[s + 1] - (tails[s + 1] - tails[s])) * width,
               (size_t)((tails[s + 1] - tails[s]) * width) * sizeof(*y));
}

static struct tensor *build_attention_qkv(struct tape *t, struct tensor *const *in, struct param *const *p)
{
    (void)p;
    return op_attention_qkv(t, in[0], spans, HEADS, ATTENTION_FULL);
}

static void reference_attention_qkv(const double *const *part, double *y)
{
    attention_reference(part[0], part[0] + HEADS * DIM, part[0] + 2 * HEADS * DIM, 3 * HEADS * DIM, false, y);
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
    {"add_positions", {IN_(PICTURES * PATCHES, IN), {PARAM, PATCHES, IN}}, PICTURES * PATCHES, IN, build_positions, reference_positions},
    {"prepend", {IN_(PICTURES * PATCHES, IN), {PARAM, 1, IN}, {PARAM, REGISTERS, IN}}, PICTURES * (PATCHES + 1 + REGISTERS), IN,
     build_prepend, reference_prepend},
    {"strip", {IN_(PICTURES * PATCHES, IN)}, PICTURES * (PATCHES - 2), IN, build_strip, reference_strip},
    {"concat", {IN_(ROWS, IN), IN_(ROWS, 3)}, ROWS, IN + 3, build_concat, reference_concat},
    {"reshape", {IN_(12, IN)}, 3, 4 * IN, build_reshape, reference_reshape},
    {"clamp", {IN_(ROWS, IN)}, ROWS, IN, build_clamp, reference_clamp},
    {"embedding", {{PARAM, 7, IN}}, ARRAY_SIZE(ids), IN, build_embedding, reference_embedding},
    {"splice", {IN_(3, IN), IN_(4, IN)}, ARRAY_SIZE(spliced), IN, build_splice, reference_splice},
    {"gather", {IN_(4, IN)}, ARRAY_SIZE(gathered), IN, build_gather, reference_gather},
    {"rope", {IN_(5, HEADS *DIM)}, 5, HEADS *DIM, build_rope, reference_rope},
    {"rope by table", {IN_(5, (TURNED + 1) * DIM)}, 5, (TURNED + 1) * DIM, build_rope_table, reference_rope_table},
    {"merge", {IN_(3 * GROUP, IN)}, 3, GROUP *IN, build_merge, reference_merge},
    {"attention, grouped queries", {IN_(PACKED, 3 * SHARED *DIM), IN_(PACKED, SHARED *DIM), IN_(PACKED, SHARED *DIM)}, PACKED,
     3 * SHARED *DIM, build_attention_grouped, reference_attention_grouped},
    {"attention, causal", {IN_(PACKED, HEADS *DIM), IN_(PACKED, HEADS *DIM), IN_(PACKED, HEADS *DIM)}, PACKED, HEADS *DIM,
     build_attention, reference_attention},
    {"attention, tail", {IN_(ASKING, HEADS *DIM), IN_(PACKED, HEADS *DIM), IN_(PACKED, HEADS *DIM)}, ASKING, HEADS *DIM,
     build_attention_tail, reference_attention_tail},
    {"attention, qkv, full", {IN_(PACKED, 3 * HEADS *DIM)}, PACKED, HEADS *DIM, build_attention_qkv, reference_attention_qkv},
};

/* ---- the check ---------------------------------------------------------------------------------------- */

struct bench {
    struct params params;
    struct param *p[MAX_PARTS];
    struct tensor *in[MAX_PARTS];
    double *value[MAX_PARTS];
    float *param_grad;
    struct tape tape;
};

static int64_t numel(const struct part *part)
{
    return part->rows * part->cols;
}

/* Inputs and the op, for a dry run or for real. */
static struct tensor *run(struct bench *b, const struct op_case *c)
{
    for (int i = 0; i < MAX_PARTS; i++) {
        const struct part *part = &c->part[i];

        if (part->kind != INPUT)
            continue;
        b->in[i] = tape_tensor(&b->tape, part->rows, part->cols);
        assert_non_null(b->in[i]);
        for (int64_t j = 0; j < numel(part) && !b->tape.planning; j++)
            b->in[i]->x[j] = (float)b->value[i][j];
    }
    return c->build(&b->tape, b->in, b->p);
}

static void setup(struct bench *b, const struct op_case *c)
{
    struct philox random = philox_at(11, PHILOX_TEST, 1, 0, 0);
    char name[2] = "a";

    *b = (struct bench) {0};
    for (int i = 0; i < MAX_PARTS; i++) {
        const struct part *part = &c->part[i];

        b->value[i] = calloc((size_t)numel(part) + 1, sizeof(double));
        assert_non_null(b->value[i]);
        for (int64_t j = 0; j < numel(part); j++)
            b->value[i][j] = (double)(float)philox_normal(&random);
        name[0] = (char)('a' + i);
        if (part->kind >= PARAM)
            b->p[i] = param_add(&b->params, name, 2, (int64_t[]) {part->rows, part->cols}, part->kind == LINEAR);
    }
    assert_int_equal(params_allocate(&b->params), 0);
    for (int i = 0; i < MAX_PARTS; i++)
        for (int64_t j = 0; b->p[i] && j < numel(&c->part[i]); j++)
            b->p[i]->value[j] = (float)b->value[i][j];
    assert_int_equal(params_pack(&b->params, true), 0);
    b->param_grad = calloc((size_t)b->params.numel + 1, sizeof(float));
    assert_non_null(b->param_grad);
    tape_init(&b->tape, true);
    b->tape.param_grad = b->param_grad;
}

static void teardown(struct bench *b)
{
    for (int i = 0; i < MAX_PARTS; i++)
        free(b->value[i]);
    free(b->param_grad);
    params_free(&b->params);
    tape_release(&b->tape);
}

static double largest(const double *x, int64_t n)
{
    double most = 0.0;

    for (int64_t i = 0; i < n; i++)
        most = MAX(most, fabs(x[i]));
    return most;
}

static double loss(const struct op_case *c, struct bench *b, const double *w, double *y)
{
    double sum = 0.0;

    c->reference((const double *const *)b->value, y);
    for (int64_t i = 0; i < c->rows * c->cols; i++)
        sum += w[i] * y[i];
    return sum;
}

static void check_gradient(const struct op_case *c, struct bench *b, int part, const float *g, const double *w, double *y)
{
    int64_t n = numel(&c->part[part]);
    _cleanup_free_ double *want = calloc((size_t)n, sizeof(double));
    double most;

    for (int64_t j = 0; j < n; j++) {
        double *x = &b->value[part][j], kept = *x, up, down, h = 1e-5;

        *x = kept + h;
        up = loss(c, b, w, y);
        *x = kept - h;
        down = loss(c, b, w, y);
        *x = kept;
        want[j] = (up - down) / (2.0 * h);
    }
    most = largest(want, n) + 1e-3;
    for (int64_t j = 0; j < n; j++)
        if (!(fabs((double)g[j] - want[j]) <= 1e-5 * most))
            fail_msg("%s: gradient of part %d, element %d: %.8g, differences give %.8g", c->name, part, (int)j, (double)g[j], want[j]);
}

static void check(const struct op_case *c)
{
    struct philox random = philox_at(12, PHILOX_TEST, 2, 0, 0);
    int64_t n = c->rows * c->cols;
    _cleanup_free_ double *y_ref = calloc((size_t)n, sizeof(double)), *w = calloc((size_t)n, sizeof(double));
    _cleanup_free_ float *first = calloc((size_t)n, sizeof(float));
    struct bench b;
    struct tensor *y;
    double most;

    setup(&b, c);
    tape_plan(&b.tape);
    assert_non_null(run(&b, c));
    assert_int_equal(tape_allocate(&b.tape), 0);
    tape_begin(&b.tape);
    y = run(&b, c);
    if (!y)
        fail_msg("%s: no result, error %d", c->name, b.tape.error);
    assert_int_equal(y->rows, c->rows);
    assert_int_equal(y->cols, c->cols);

    loss(c, &b, w, y_ref);
    most = largest(y_ref, n);
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)y->x[i] - y_ref[i]) <= 2e-6 * most))
            fail_msg("%s: element %d is %.8g, in double %.8g", c->name, (int)i, (double)y->x[i], y_ref[i]);

    for (int64_t i = 0; i < n; i++) {
        w[i] = (double)(float)philox_normal(&random);
        y->g[i] = (float)w[i];
    }
    tape_backward(&b.tape);
    assert_int_equal(b.tape.error, 0);
    for (int i = 0; i < MAX_PARTS; i++)
        if (c->part[i].kind != NONE)
            check_gradient(c, &b, i, c->part[i].kind == INPUT ? b.in[i]->g : b.param_grad + b.p[i]->offset, w, y_ref);
    teardown(&b);
}

static void test_every_op(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        check(&cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_op)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
