/* count_kernels.c - each kernel of the table as what it moves and computes. */
#include "tests/harness/count_internal.h"

#include <string.h>

#include "nn/device/dnn_key.h"

static double moved(enum device_type type, double numbers) { return numbers * (double)device_element(type); }

/* ---- element by element ------------------------------------------------------------------------------------------------ */

static int convert(_unused_ void *stream, enum device_type to_type, _unused_ void *to, enum device_type type,
                   _unused_ const void *from, int64_t n)
{
    return count_launch(COUNT_elements, 1, moved(to_type, (double)n) + moved(type, (double)n), 0);
}

static int add_two(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *a, _unused_ const void *b,
                   int64_t n)
{
    return count_launch(COUNT_elements, 1, moved(type, 3 * (double)n), 0);
}

static int accumulate(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *x, int64_t n)
{
    return count_launch(COUNT_elements, 1, moved(type, 3 * (double)n), 0);
}

static int scale_by(_unused_ void *stream, enum device_type type, _unused_ void *x, _unused_ float factor, int64_t n)
{
    return count_launch(COUNT_elements, 1, moved(type, 2 * (double)n), 0);
}

static int residual(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *from,
                    _unused_ const void *branch, _unused_ const float *scale, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_residual, 1, moved(type, 3 * (double)(rows * cols)), 0);
}

static int residual_backward(_unused_ void *stream, enum device_type type, void *dbranch, float *dscale, _unused_ const void *dy,
                             _unused_ const void *branch, _unused_ const float *scale, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_residual_backward, 1,
                        moved(type, ((dbranch ? 2 : 0) + (dscale ? 1 : 0) + 1) * (double)(rows * cols)), 0);
}

static int activation(_unused_ void *stream, enum device_type type, _unused_ enum device_activation kind, _unused_ void *y,
                      _unused_ const void *x, int64_t n, _unused_ float low,
                               _unused_ float high)
{
    return count_launch(COUNT_activation, 1, moved(type, 2 * (double)n), 0);
}

static int activation_backward(_unused_ void *stream, enum device_type type, _unused_ enum device_activation kind,
                               _unused_ void *dx, _unused_ const void *dy, _unused_ const void *x, int64_t n, _unused_ float low,
                               _unused_ float high)
{
    return count_launch(COUNT_activation_backward, 1, moved(type, 4 * (double)n), 0);
}

static int swiglu(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *gate,
                  _unused_ const void *up, int64_t n)
{
    return count_launch(COUNT_swiglu, 1, moved(type, 3 * (double)n), 0);
}

static int swiglu_backward(_unused_ void *stream, enum device_type type, _unused_ void *dgate, _unused_ void *dup,
                           _unused_ const void *dy, _unused_ const void *gate, _unused_ const void *up, int64_t n, bool adds)
{
    return count_launch(COUNT_swiglu_backward, 1, moved(type, (adds ? 7 : 5) * (double)n), 0);
}

static int column_sum(_unused_ void *stream, enum device_type type, _unused_ float *sum, _unused_ const void *x,
                      _unused_ int64_t row, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_column_sum, 1, moved(type, (double)(rows * cols)), 0);
}

/* ---- norms --------------------------------------------------------------------------------------------------------------- */

static int layernorm(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ float *mean, _unused_ float *rstd,
                     _unused_ const void *x, _unused_ const float *weight, _unused_ const float *bias, _unused_ float eps,
                     int64_t rows, int64_t cols)
{
    return count_launch(COUNT_layernorm, 1, moved(type, 2 * (double)(rows * cols)), 0);
}

static int layernorm_backward(_unused_ void *stream, enum device_type type, void *dx, _unused_ float *dweight,
                              _unused_ float *dbias,
                              _unused_ const void *dy, _unused_ const void *x, _unused_ const float *weight,
                              _unused_ const float *mean, _unused_ const float *rstd, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_layernorm_backward, 1, moved(type, (dx ? 4 : 2) * (double)(rows * cols)), 0);
}

static int rmsnorm(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ float *rstd, _unused_ const void *x,
                   _unused_ const float *weight, _unused_ float eps, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_rmsnorm, 1, moved(type, 2 * (double)(rows * cols)), 0);
}

static int residual_rmsnorm(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ void *sum,
                            _unused_ float *rstd,
                            _unused_ const void *from, _unused_ const void *branch, _unused_ const float *weight,
                            _unused_ float eps, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_residual_rmsnorm, 1, moved(type, 4 * (double)(rows * cols)), 0);
}

static int rmsnorm_backward(_unused_ void *stream, enum device_type type, void *dx, _unused_ float *dweight,
                            _unused_ const void *dy,
                            _unused_ const void *x, _unused_ const float *weight, _unused_ const float *rstd, int64_t rows,
                            int64_t cols)
{
    return count_launch(COUNT_rmsnorm_backward, 1, moved(type, (dx ? 4 : 2) * (double)(rows * cols)), 0);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

static int copy_rows(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ int64_t y_row,
                     _unused_ const void *x, _unused_ int64_t x_row, int64_t rows, int64_t cols, bool adds)
{
    return count_launch(COUNT_copy_rows, 1, moved(type, (adds ? 3 : 2) * (double)(rows * cols)), 0);
}

static int broadcast(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ int64_t y_row,
                     _unused_ const float *value, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_rows, 1, moved(type, (double)(rows * cols)), 0);
}

static int add_cycle(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *x,
                     _unused_ const float *value, int64_t cycle, int64_t n)
{
    return count_launch(COUNT_elements, 1, moved(type, 2 * (double)n) + 4 * (double)cycle, 0);
}

static int splice(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const void *a, _unused_ const void *b,
                  _unused_ const int32_t *index, int64_t n, int64_t cols)
{
    return count_launch(COUNT_rows, 1, moved(type, 2 * (double)(n * cols)), 0);
}

static int scatter(_unused_ void *stream, enum device_type y_type, _unused_ void *y, enum device_type type,
                   _unused_ const void *x,
                   _unused_ const int32_t *rows, _unused_ const int32_t *begin, _unused_ const int32_t *from, int64_t n,
                   int64_t cols)
{
    return count_launch(COUNT_rows, 1, moved(y_type, 2 * (double)(n * cols)) + moved(type, (double)(n * cols)), 0);
}

static int embedding(_unused_ void *stream, enum device_type type, _unused_ void *y, enum device_type table_type,
                     _unused_ const void *table, _unused_ const int32_t *ids, int64_t n, int64_t cols)
{
    return count_launch(COUNT_rows, 1, moved(type, (double)(n * cols)) + moved(table_type, (double)(n * cols)), 0);
}

static int rope(_unused_ void *stream, enum device_type type, _unused_ void *x, _unused_ int64_t row,
                _unused_ const int32_t *position,
                _unused_ const float *table, int64_t rows, int heads, int64_t dim, _unused_ float direction)
{
    return count_launch(COUNT_rope, 1, moved(type, 2 * (double)(rows * heads * dim)), 0);
}

static int kv_append(_unused_ void *stream, enum device_type type, _unused_ void *cache_k, _unused_ void *cache_v,
                     _unused_ const void *k,
                     _unused_ const void *v, _unused_ const int32_t *slot, _unused_ const int32_t *position, int64_t rows,
                     int64_t width, _unused_ int64_t capacity)
{
    return count_launch(COUNT_kv_append, 1, moved(type, 4 * (double)(rows * width)), 0);
}

static int rope_append(_unused_ void *stream, enum device_type type, _unused_ void *q, _unused_ void *k, _unused_ const void *v,
                       _unused_ void *cache_k,
                       _unused_ void *cache_v, _unused_ const int32_t *slot, _unused_ const int32_t *position,
                       _unused_ const float *table, int64_t rows, int heads, int64_t dim, _unused_ int64_t capacity)
{
    return count_launch(COUNT_rope_append, 1, moved(type, 7 * (double)(rows * heads * dim)), 0);
}

static int patches(_unused_ void *stream, enum device_type type, _unused_ void *y, _unused_ const uint8_t *images,
                   _unused_ const float *lut, int b, int height, int width, _unused_ int patch)
{
    return count_launch(COUNT_patches, 1, (1 + (double)device_element(type)) * b * height * width * 3, 0);
}

static int resize_pass(_unused_ void *stream, _unused_ uint8_t *y, _unused_ const uint8_t *x, _unused_ bool along_x, int64_t rows,
                       int64_t in,
                       int64_t out, int64_t cols, _unused_ const int32_t *begin, _unused_ const int32_t *count,
                       _unused_ const int32_t *weights, _unused_ int taps)
{
    return count_launch(COUNT_patches, 1, (double)(rows * (in + out) * cols), 0);
}

/* ---- products and attention ------------------------------------------------------------------------------------------------ */

static int gemm(_unused_ void *stream, const struct device_gemm *g)
{
    double m = (double)g->m, n = (double)g->n, k = (double)g->k, batch = (double)MAX(g->batch, 1), a = g->batch > 1 &&
        !g->a_apart ? 1 : batch;
    bool thin = g->n <= COUNT_THIN || g->k <= COUNT_THIN || (g->a_transposed && g->m <= COUNT_THIN);

    return count_launch(thin ? COUNT_thin : COUNT_product, 1, moved(g->a_type, a * m * k) + moved(g->b_type, batch * n * k) +
                  moved(g->c_type, batch * (g->add ? 2 : 1) * m * n), 2 * batch * m * n * k);
}

/* Rows of queries and of keys, and pairs that are met. */
static void look(const struct device_attention *a, double *ret_asking, double *ret_keys, double *ret_pairs,
                 unsigned long long *ret_pieces)
{
    struct device_attention piece;
    double pairs = 0;

    *ret_pieces = 0;
    for (int first = 0; first < a->n; first += dnn_piece(a, first, &piece))
        ++*ret_pieces;
    for (int i = 0; i < a->n; i++) {
        double keys = a->start_here[i + 1] - a->start_here[i], asking = a->asking_here[i + 1] - a->asking_here[i];

        pairs += a->causal ? asking * (keys - (asking - 1) / 2) : asking * keys;
    }
    *ret_asking = a->asking_here[a->n] - a->asking_here[0];
    *ret_keys = a->start_here[a->n] - a->start_here[0];
    *ret_pairs = pairs;
}

static int attention(_unused_ void *stream, enum device_type type, const struct device_attention *a)
{
    double asking, keys, pairs, width = (double)(a->heads * a->dim);
    unsigned long long pieces;

    look(a, &asking, &keys, &pairs, &pieces);
    return count_launch(COUNT_attention, pieces,
                  moved(type, 2 * asking * width + 2 * keys * width / a->group) + (a->lse ? 4 * asking * a->heads : 0),
                  4 * pairs * width);
}

/* As cuDNN is called: three gradients are written where they belong, or beside and then added to what is there. Five products
 * instead of two. */
static int attention_backward(_unused_ void *stream, enum device_type type, const struct device_attention *a)
{
    double asking, keys, pairs, width = (double)(a->heads * a->dim);
    unsigned long long pieces;

    look(a, &asking, &keys, &pairs, &pieces);
    if (!a->fresh)
        count_launch(COUNT_copy_rows, 3 * pieces, moved(type, 3 * asking * width + 6 * keys * width / a->group), 0);
    return count_launch(COUNT_attention_backward, pieces, moved(type, 4 * asking * width + 4 * keys * width / a->group),
                  10 * pairs * width);
}

static int attention_decode(_unused_ void *stream, enum device_type type, const struct device_decode *d)
{
    double keys = 0, width = (double)(d->heads * d->dim);

    for (int64_t i = 0; i < d->rows; i++)
        keys += d->position[i] + 1;
    return count_launch(COUNT_attention_decode, 1, moved(type, 2 * (double)d->rows * width + 2 * keys * width / d->group),
                  4 * keys * width);
}

/* ---- heads, optimiser -------------------------------------------------------------------------------------------- */

static int token_stats(_unused_ void *stream, enum device_type type, _unused_ float *log_probs, _unused_ float *logp,
                       _unused_ float *entropy,
                       _unused_ float *kl, _unused_ const void *logits, _unused_ const int32_t *target, const float *ref,
                       _unused_ float inverse_temperature, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_head, 1, moved(type, (double)(rows * cols)) + (ref ? 8 : 4) * (double)(rows * cols), 0);
}

static int token_stats_backward(_unused_ void *stream, enum device_type type, _unused_ void *dlogits,
                                _unused_ const float *log_probs, const float *ref,
                                _unused_ const int32_t *target, _unused_ const float *gradients, _unused_ const float *entropy,
                                _unused_ const float *kl, _unused_ float inverse_temperature, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_head, 1, moved(type, 2 * (double)(rows * cols)) + (ref ? 8 : 4) * (double)(rows * cols), 0);
}

static int sample(_unused_ void *stream, enum device_type type, _unused_ float *log_probs, _unused_ int32_t *column,
                  _unused_ float *logp,
                  _unused_ float *entropy, _unused_ const void *logits, _unused_ const float *temperature,
                  _unused_ const float *uniform, int64_t rows, int64_t cols)
{
    return count_launch(COUNT_head, 1, moved(type, (double)(rows * cols)) + 4 * (double)(rows * cols), 0);
}

static int adamw(_unused_ void *stream, _unused_ float *value, _unused_ float *m, _unused_ float *v, _unused_ const float *grad,
                 int64_t n, _unused_ const struct device_adamw *constants)
{
    return count_launch(COUNT_optimiser, 1, 28 * (double)n, 0);
}

static int sum_squares(_unused_ void *stream, _unused_ double *sum, _unused_ double *parts, _unused_ const float *x, int64_t n)
{
    return count_launch(COUNT_optimiser, 2, 4 * (double)n, 0);
}

const struct device_kernels *count_kernels(void)
{
    static struct device_kernels t;

    t = count_machine();
    t.convert = convert;
    t.add = add_two;
    t.accumulate = accumulate;
    t.scale = scale_by;
    t.residual = residual;
    t.residual_backward = residual_backward;
    t.activation = activation;
    t.activation_backward = activation_backward;
    t.swiglu = swiglu;
    t.swiglu_backward = swiglu_backward;
    t.column_sum = column_sum;
    t.layernorm = layernorm;
    t.layernorm_backward = layernorm_backward;
    t.rmsnorm = rmsnorm;
    t.residual_rmsnorm = residual_rmsnorm;
    t.rmsnorm_backward = rmsnorm_backward;
    t.copy_rows = copy_rows;
    t.broadcast = broadcast;
    t.add_cycle = add_cycle;
    t.splice = splice;
    t.scatter = scatter;
    t.embedding = embedding;
    t.rope = rope;
    t.rope_append = rope_append;
    t.kv_append = kv_append;
    t.patches = patches;
    t.resize_pass = resize_pass;
    t.gemm = t.gemm_narrow = gemm;
    t.attention = attention;
    t.attention_backward = attention_backward;
    t.attention_decode = attention_decode;
    t.token_stats = token_stats;
    t.token_stats_backward = token_stats_backward;
    t.sample = sample;
    t.adamw = adamw;
    t.sum_squares = sum_squares;
    return &t;
}
