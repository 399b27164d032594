/* norm.c - LayerNorm and RMSNorm. Sums over a row: sixteen lanes, then the tree. */
#include "nn/cpu/kernels/isa.h"

#define FOR_VECTORS(i, n) for (int64_t i = 0; i < (n); i += V_LANES)

void ISA_NAME(layernorm)(float *y, float *mean, float *rstd, const float *x, const float *weight, const float *bias, float eps,
                         int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        v16 sum = v_zero(), square = v_zero(), m, s;

        FOR_VECTORS(i, cols)
            sum = v_add(sum, v_load_n(x + i, cols - i));
        mean[r] = v_sum(sum) / (float)cols;
        m = v_set1(mean[r]);
        FOR_VECTORS(i, cols) {
            v16 d = v_sub(v_load_n(x + i, cols - i), m);
            if (cols - i < V_LANES) {           /* lanes past the end hold -mean: drop them */
                float tail[V_LANES];
                v_store(tail, d);
                d = v_load_part(tail, (int)(cols - i));
            }
            square = v_fma(d, d, square);
        }
        rstd[r] = 1.0f / sqrtf(v_sum(square) / (float)cols + eps);
        s = v_set1(rstd[r]);
        FOR_VECTORS(i, cols) {
            v16 h = v_mul(v_sub(v_load_n(x + i, cols - i), m), s);
            v_store_n(y + i, v_fma(h, v_load_n(weight + i, cols - i), v_load_n(bias + i, cols - i)), cols - i);
        }
    }
}

/* dx = rstd (w dy - mean(w dy) - xhat mean(w dy xhat)); dw and db are chains over ascending rows. */
void ISA_NAME(layernorm_backward)(float *dx, float *dweight, float *dbias, const float *dy, const float *x, const float *weight,
                                  const float *mean, const float *rstd, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; dx && r < rows; r++) {
        const float *dyr = dy + r * cols, *xr = x + r * cols;
        v16 m = v_set1(mean[r]), s = v_set1(rstd[r]), sum = v_zero(), dot = v_zero();
        v16 c1, c2;

        FOR_VECTORS(i, cols) {
            int64_t left = cols - i;
            v16 g = v_mul(v_load_n(dyr + i, left), v_load_n(weight + i, left));     /* 0 past the end */
            sum = v_add(sum, g);
            dot = v_fma(g, v_mul(v_sub(v_load_n(xr + i, left), m), s), dot);
        }
        c1 = v_set1(v_sum(sum) / (float)cols);
        c2 = v_set1(v_sum(dot) / (float)cols);
        FOR_VECTORS(i, cols) {
            int64_t left = cols - i;
            v16 g = v_mul(v_load_n(dyr + i, left), v_load_n(weight + i, left));
            v16 h = v_mul(v_sub(v_load_n(xr + i, left), m), s);
            g = v_fnma(h, c2, v_sub(g, c1));
            v_store_n(dx + r * cols + i, v_fma(s, g, v_load_n(dx + r * cols + i, left)), left);
        }
    }
    FOR_VECTORS(i, cols) {
        int64_t left = cols - i;
        v16 sw = v_zero(), sb = v_zero();

        if (!dweight && !dbias)
            break;
        for (int64_t r = 0; r < rows; r++) {
            v16 d = v_load_n(dy + r * cols + i, left);
            v16 h = v_mul(v_sub(v_load_n(x + r * cols + i, left), v_set1(mean[r])), v_set1(rstd[r]));
            sw = v_fma(d, h, sw);
            sb = v_add(sb, d);
        }
        if (dweight)
            v_store_n(dweight + i, v_add(v_load_n(dweight + i, left), sw), left);
        if (dbias)
            v_store_n(dbias + i, v_add(v_load_n(dbias + i, left), sb), left);
    }
}

void ISA_NAME(rmsnorm)(float *y, float *rstd, const float *x, const float *weight, float eps, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols) {
        v16 square = v_zero(), s;

        FOR_VECTORS(i, cols) {
            v16 a = v_load_n(x + i, cols - i);
            square = v_fma(a, a, square);
        }
        rstd[r] = 1.0f / sqrtf(v_sum(square) / (float)cols + eps);
        s = v_set1(rstd[r]);
        FOR_VECTORS(i, cols)
            v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, cols - i), s), v_load_n(weight + i, cols - i)), cols - i);
    }
}

/* dx = rstd (w dy - xhat mean(w dy xhat)) */
void ISA_NAME(rmsnorm_backward)(float *dx, float *dweight, const float *dy, const float *x, const float *weight,
                                const float *rstd, int64_t rows, int64_t cols)
{
    for (int64_t r = 0; dx && r < rows; r++) {
        const float *dyr = dy + r * cols, *xr = x + r * cols;
        v16 s = v_set1(rstd[r]), dot = v_zero(), c;

        FOR_VECTORS(i, cols) {
            int64_t left = cols - i;
            v16 g = v_mul(v_load_n(dyr + i, left), v_load_n(weight + i, left));
            dot = v_fma(g, v_mul(v_load_n(xr + i, left), s), dot);
        }
        c = v_set1(v_sum(dot) / (float)cols);
        FOR_VECTORS(i, cols) {
            int64_t left = cols - i;
            v16 g = v_mul(v_load_n(dyr + i, left), v_load_n(weight + i, left));
            g = v_fnma(v_mul(v_load_n(xr + i, left), s), c, g);
            v_store_n(dx + r * cols + i, v_fma(s, g, v_load_n(dx + r * cols + i, left)), left);
        }
    }
    if (!dweight)
        return;
    FOR_VECTORS(i, cols) {
        int64_t left = cols - i;
        v16 sw = v_zero();

        for (int64_t r = 0; r < rows; r++)
            sw = v_fma(v_load_n(dy + r * cols + i, left), v_mul(v_load_n(x + r * cols + i, left), v_set1(rstd[r])), sw);
        v_store_n(dweight + i, v_add(v_load_n(dweight + i, left), sw), left);
    }
}

void ISA_NAME(rope)(float *x, const int32_t *position, const float *table, int64_t rows, int heads, int64_t dim, float direction)
{
    int64_t half = dim / 2;
    v16 sign = v_set1(direction);

    for (int64_t r = 0; r < rows; r++) {
        const float *cosine = table + position[r] * dim, *sine = cosine + half;

        for (int h = 0; h < heads; h++, x += dim)
            FOR_VECTORS(i, half) {
                int64_t left = half - i;
                v16 a = v_load_n(x + i, left), b = v_load_n(x + half + i, left);
                v16 c = v_load_n(cosine + i, left), s = v_mul(sign, v_load_n(sine + i, left));

                v_store_n(x + i, v_fnma(b, s, v_mul(a, c)), left);
                v_store_n(x + half + i, v_fma(a, s, v_mul(b, c)), left);
            }
    }
}
