/* Ops that know of sequences: rotary positions and attention. Shapes are odd on purpose. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/harness/op_check.h"

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
    {"rope", {IN_(5, HEADS *DIM)}, 5, HEADS *DIM, build_rope, reference_rope},
    {"rope by table", {IN_(5, (TURNED + 1) * DIM)}, 5, (TURNED + 1) * DIM, build_rope_table, reference_rope_table},
    {"attention, grouped queries", {IN_(PACKED, 3 * SHARED *DIM), IN_(PACKED, SHARED *DIM), IN_(PACKED, SHARED *DIM)}, PACKED,
     3 * SHARED *DIM, build_attention_grouped, reference_attention_grouped},
    {"attention, causal", {IN_(PACKED, HEADS *DIM), IN_(PACKED, HEADS *DIM), IN_(PACKED, HEADS *DIM)}, PACKED, HEADS *DIM,
     build_attention, reference_attention},
    {"attention, tail", {IN_(ASKING, HEADS *DIM), IN_(PACKED, HEADS *DIM), IN_(PACKED, HEADS *DIM)}, ASKING, HEADS *DIM,
     build_attention_tail, reference_attention_tail},
    {"attention, qkv, full", {IN_(PACKED, 3 * HEADS *DIM)}, PACKED, HEADS *DIM, build_attention_qkv, reference_attention_qkv},
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
