/* sample.c - draw a column per row by the inverse of the cumulated distribution. */
#include "nn/ops/op.h"

enum { CHUNK = 256 };           /* columns at a time; only the maximum and the sum look at all of them */

static int32_t argmax(const float *z, int64_t n)
{
    int32_t best = 0;

    for (int64_t i = 1; i < n; i++)
        if (z[i] > z[best])
            best = (int32_t)i;
    return best;
}

/* The first column whose cumulated probability exceeds u; when rounding leaves none, the last one with any. */
static int32_t draw(const float *log_probs, int64_t n, double u)
{
    double cumulated = 0.0;
    int32_t last = 0;
    float p[CHUNK];

    for (int64_t from = 0; from < n; from += CHUNK) {
        int64_t count = MIN(n - from, CHUNK);

        cpu_kernels()->exp(p, log_probs + from, count);
        for (int64_t i = 0; i < count; i++) {
            cumulated += p[i];
            if (p[i] > 0.0f)
                last = (int32_t)(from + i);
            if (cumulated > u)
                return (int32_t)(from + i);
        }
    }
    return last;
}

void sample_rows(float *logits, int64_t rows, int64_t cols, const float *temperature, const float *uniform, int32_t *ret_column,
                 float *ret_logp, float *ret_entropy)
{
    const struct cpu_kernels *cpu = cpu_kernels();

    for (int64_t i = 0; i < rows; i++) {
        float *row = logits + i * cols, entropy, kl;
        bool greedy = temperature[i] == 0.0f;
        int32_t column = greedy ? argmax(row, cols) : 0;

        cpu->log_softmax(row, row, greedy ? 1.0f : 1.0f / temperature[i], cols);
        cpu->token_stats(row, NULL, cols, &entropy, &kl);
        if (!greedy)
            column = draw(row, cols, uniform[i]);
        ret_column[i] = column;
        ret_logp[i] = row[column];
        if (ret_entropy)
            ret_entropy[i] = entropy;
    }
}
