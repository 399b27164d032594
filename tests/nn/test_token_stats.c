/* Log-probability, entropy, KL and their gradients against double; sampling against the distribution it claims. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/philox.h"
#include "nn/ops.h"

enum { ROWS = 5, COLS = 275 };
static const int32_t target[ROWS] = {0, 274, 17, 100, 3};
static const float temperature = 1.6f;

static double stats_in_double(const double *z, const double *ref, int32_t column, double t, double *ret_entropy, double *ret_kl)
{
    double top = z[0], sum = 0.0, entropy = 0.0, kl = 0.0;

    for (int i = 0; i < COLS; i++)
        top = MAX(top, z[i]);
    for (int i = 0; i < COLS; i++)
        sum += exp((z[i] - top) / t);
    for (int i = 0; i < COLS; i++) {
        double l = (z[i] - top) / t - log(sum);
        entropy -= exp(l) * l;
        kl += exp(l) * (l - ref[i]);
    }
    *ret_entropy = entropy;
    *ret_kl = kl;
    return (z[column] - top) / t - log(sum);
}

static void test_stats_and_gradients(void **state)
{
    struct philox random = philox_at(31, PHILOX_TEST, 0, 0, 0);
    double z[COLS], ref[COLS];
    float ref_logp[ROWS * COLS];
    const float d[3] = {0.7f, -0.3f, 1.1f};
    struct tape t;
    struct tensor *logits;
    struct token_stats *s;

    (void)state;
    tape_init(&t, true);
    assert_int_equal(tape_reserve(&t, 1 << 20), 0);
    logits = tape_tensor(&t, ROWS, COLS);
    assert_non_null(logits);
    for (int i = 0; i < ROWS * COLS; i++) {
        logits->x[i] = 4.0f * (float)philox_normal(&random) + (i < COLS ? 90.0f : 0.0f);     /* the first row is far from 0 */
        ref_logp[i] = (float)(philox_normal(&random) - 6.0);
    }
    s = op_token_stats(&t, logits, target, temperature, ref_logp);
    assert_non_null(s);
    for (int r = 0; r < ROWS; r++) {
        s->dlogp[r] = d[0];
        s->dentropy[r] = d[1];
        s->dkl[r] = d[2];
    }
    tape_backward(&t);
    for (int r = 0; r < ROWS; r++) {
        double entropy, kl, logp;

        for (int i = 0; i < COLS; i++) {
            z[i] = (double)logits->x[r * COLS + i];
            ref[i] = (double)ref_logp[r * COLS + i];
        }
        logp = stats_in_double(z, ref, target[r], (double)temperature, &entropy, &kl);
        assert_true(fabs((double)s->logp[r] - logp) < 1e-5);
        assert_true(fabs((double)s->entropy[r] - entropy) < 1e-5);
        assert_true(fabs((double)s->kl[r] - kl) < 2e-5);
        for (int i = 0; i < COLS; i++) {
            double up[3], down[3], kept = z[i], h = 1e-4, want = 0.0;

            z[i] = kept + h;
            up[0] = stats_in_double(z, ref, target[r], (double)temperature, &up[1], &up[2]);
            z[i] = kept - h;
            down[0] = stats_in_double(z, ref, target[r], (double)temperature, &down[1], &down[2]);
            z[i] = kept;
            for (int k = 0; k < 3; k++)
                want += (double)d[k] * (up[k] - down[k]) / (2.0 * h);
            assert_true(fabs((double)logits->g[r * COLS + i] - want) < 2e-6);
        }
    }
    tape_release(&t);
}

static void test_stats_of_extreme_rows(void **state)
{
    struct tape t;
    struct tensor *logits;
    struct token_stats *s;
    int32_t first[3] = {0, 0, 0};

    (void)state;
    tape_init(&t, false);
    assert_int_equal(tape_reserve(&t, 1 << 20), 0);
    logits = tape_tensor(&t, 3, 20);
    for (int i = 0; i < 20; i++) {
        logits->x[i] = i ? -1000.0f : 1000.0f;      /* certain */
        logits->x[20 + i] = -3e38f;                 /* all alike, near the edge */
        logits->x[40 + i] = i == 7 ? NAN : 0.0f;
    }
    s = op_token_stats(&t, logits, first, 1.0f, NULL);
    assert_non_null(s);
    assert_true(s->logp[0] == 0.0f && s->entropy[0] == 0.0f);
    assert_true(fabs((double)s->logp[1] + log(20.0)) < 1e-6);
    assert_true(isnan(s->logp[2]));                 /* a broken row shows */
    tape_release(&t);
}

static void test_samples_follow_the_distribution(void **state)
{
    enum { V = 7, N = 70000 };
    static const float z[V] = {0.5f, -1.0f, 2.0f, 0.0f, -30.0f, 1.0f, 0.25f};
    struct philox random = philox_at(33, PHILOX_TEST, 0, 0, 0);
    double p[V], sum = 0.0;
    int count[V] = {0};

    (void)state;
    for (int i = 0; i < V; i++)
        sum += p[i] = exp((double)z[i] / 0.8);
    for (int n = 0; n < N; n++) {
        float row[V], t = 0.8f, u = philox_uniform(&random), logp, entropy;
        int32_t column;

        memcpy(row, z, sizeof(row));
        sample_rows(row, 1, V, &t, &u, &column, &logp, &entropy);
        assert_in_range(column, 0, V - 1);
        assert_true(fabs((double)logp - log(p[column] / sum)) < 1e-6);
        count[column]++;
    }
    for (int i = 0; i < V; i++)     /* five standard deviations */
        assert_true(fabs(count[i] - N * p[i] / sum) < 5.0 * sqrt(N * p[i] / sum * (1.0 - p[i] / sum)) + 1.0);
}

static void test_sampling_edges(void **state)
{
    float row[600], t[1] = {1.0f}, u[1] = {0.99999994f}, logp;
    int32_t column;

    (void)state;
    for (int i = 0; i < 600; i++)
        row[i] = i < 300 ? 0.0f : -200.0f;          /* the later half has probability 0 */
    sample_rows(row, 1, 600, t, u, &column, &logp, NULL);
    assert_in_range(column, 290, 299);
    u[0] = 0.0f;
    for (int i = 0; i < 600; i++)
        row[i] = i >= 599 ? 0.0f : -200.0f;
    sample_rows(row, 1, 600, t, u, &column, &logp, NULL);
    assert_int_equal(column, 599);
    t[0] = 0.0f;
    for (int i = 0; i < 600; i++)
        row[i] = i == 40 || i == 41 ? 3.0f : 0.0f;
    sample_rows(row, 1, 600, t, u, &column, &logp, NULL);
    assert_int_equal(column, 40);                   /* the lowest of equals */
    assert_true(fabs((double)logp - (3.0 - log(2.0 * exp(3.0) + 598.0))) < 1e-5);
}

static void test_actor_and_learner_agree_to_the_bit(void **state)
{
    struct philox random = philox_at(34, PHILOX_TEST, 0, 0, 0);
    float row[COLS], kept[COLS], t = 1.3f, u = 0.37f, logp, entropy;
    int32_t column;
    struct tape tape;
    struct token_stats *s;

    (void)state;
    for (int i = 0; i < COLS; i++)
        kept[i] = row[i] = (float)philox_normal(&random);
    sample_rows(row, 1, COLS, &t, &u, &column, &logp, &entropy);
    tape_init(&tape, false);
    assert_int_equal(tape_reserve(&tape, 1 << 20), 0);
    s = op_token_stats(&tape, tape_input(&tape, kept, 1, COLS), &column, t, NULL);
    assert_non_null(s);
    assert_memory_equal(&s->logp[0], &logp, sizeof(float));
    assert_memory_equal(&s->entropy[0], &entropy, sizeof(float));
    tape_release(&tape);
}

/* {log p, entropy, KL} of x under a Laplace distribution. */
static void laplace_in_double(double x, double m, double s, double m0, double s0, double ret[3])
{
    double d = fabs(m - m0);

    ret[0] = -s - log(2) - fabs(x - m) * exp(-s);
    ret[1] = 1 + log(2) + s;
    ret[2] = s0 - s + d * exp(-s0) + exp(s - s0 - d * exp(-s)) - 1;
}

static void test_laplace(void **state)
{
    enum { N = 6 };
    static const float middle[N] = {0.1f, -0.7f, 0.4f, 1.5f, 0.0f, -2.0f}, scale[N] = {-1.0f, 0.2f, -2.0f, -0.5f, -3.0f, 0.4f};
    static const float x[N] = {0.3f, -0.9f, 0.1f, 2.5f, 0.05f, 1.0f};
    static const float ref[2 * N] = {0.2f, -0.8f, -0.7f, 0.2f, 0.9f, -2.5f, 1.0f, 0.0f, 0.3f, -1.0f, -2.5f, 0.1f};
    const float d[3] = {0.7f, -0.3f, 1.1f};
    const double t = 1.6, h = 1e-5;
    struct tape tape;
    struct tensor *m, *s;
    struct token_stats *stats;

    (void)state;
    tape_init(&tape, true);
    assert_int_equal(tape_reserve(&tape, 1 << 16), 0);
    m = tape_tensor(&tape, 2, N / 2);
    s = tape_tensor(&tape, 2, N / 2);
    assert_true(m && s);
    memcpy(m->x, middle, sizeof(middle));
    memcpy(s->x, scale, sizeof(scale));
    stats = op_laplace_stats(&tape, m, s, x, temperature, ref);
    assert_non_null(stats);
    for (int i = 0; i < N; i++) {
        stats->dlogp[i] = d[0];
        stats->dentropy[i] = d[1];
        stats->dkl[i] = d[2];
    }
    tape_backward(&tape);
    for (int i = 0; i < N; i++) {
        double at[2] = {(double)middle[i], (double)scale[i] + log(t)}, m0 = (double)ref[2 * i], s0 = (double)ref[2 * i + 1], y[3];
        const float got[2] = {m->g[i], s->g[i]};

        laplace_in_double((double)x[i], at[0], at[1], m0, s0, y);
        assert_true(fabs((double)stats->logp[i] - y[0]) < 1e-5);
        assert_true(fabs((double)stats->entropy[i] - y[1]) < 1e-6);
        assert_true(fabs((double)stats->kl[i] - y[2]) < 1e-5 && y[2] >= 0);
        for (int k = 0; k < 2; k++) {
            double up[3], down[3], kept = at[k], want = 0;

            at[k] = kept + h;
            laplace_in_double((double)x[i], at[0], at[1], m0, s0, up);
            at[k] = kept - h;
            laplace_in_double((double)x[i], at[0], at[1], m0, s0, down);
            at[k] = kept;
            for (int j = 0; j < 3; j++)
                want += (double)d[j] * (up[j] - down[j]) / (2 * h);
            assert_true(fabs((double)got[k] - want) < 1e-4 * (1 + fabs(want)) || (k == 0 && middle[i] == ref[2 * i]));
        }
    }
    tape_release(&tape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stats_and_gradients), cmocka_unit_test(test_laplace),
        cmocka_unit_test(test_stats_of_extreme_rows),
        cmocka_unit_test(test_samples_follow_the_distribution),
        cmocka_unit_test(test_sampling_edges),
        cmocka_unit_test(test_actor_and_learner_agree_to_the_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
