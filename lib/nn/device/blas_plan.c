#include "nn/device/blas_plan.h"

#include "base/macro.h"

bool blas_takes(const struct device_gemm *g, bool strict)
{
    const void *bias = g->c_type == DEVICE_BF16 ? g->bias_half : g->bias;

    if (g->a_type != g->b_type || (g->bias && (!bias || g->batch > 1)))
        return false;
    return g->a_type == DEVICE_BF16 || (g->c_type == DEVICE_F32 && !strict);
}

static uint32_t alignment(const void *p)
{
    uintptr_t low = (uintptr_t)p & -(uintptr_t)p;

    return low == 0 || low > BLAS_ALIGNMENT ? BLAS_ALIGNMENT : (uint32_t)low;
}

static bool many(const struct device_gemm *g) { return g->batch > 1; }

/* Of all matrices of a batch. */
static uint32_t alignment_of(const struct device_gemm *g, const void *first, int64_t apart, enum device_type type)
{
    uint32_t steps = many(g) ? alignment((const void *)(uintptr_t)((uint64_t)apart * device_element(type))) : BLAS_ALIGNMENT;

    return MIN(alignment(first), steps);
}

struct blas_key blas_key_of(const struct device_gemm *g, bool strict)
{
    bool b = many(g);

    return (struct blas_key) {
        .m = g->m, .n = g->n, .k = g->k, .a_row = g->a_row, .b_row = g->b_row, .c_row = g->c_row,
        .batch = b ? g->batch : 1, .a_apart = b ? g->a_apart : 0, .b_apart = b ? g->b_apart : 0, .c_apart = b ? g->c_apart : 0,
        .a_align = alignment_of(g, g->a, g->a_apart, g->a_type), .b_align = alignment_of(g, g->b, g->b_apart, g->b_type),
        .c_align = alignment_of(g, g->c, g->c_apart, g->c_type),
        .flags = (uint32_t)g->a_type | (uint32_t)g->c_type << 1 | (uint32_t)g->a_transposed << 2 |
                 (uint32_t)g->b_transposed << 3 | (uint32_t)g->add << 4 | (uint32_t)(g->bias != NULL) << 5 |
                 (uint32_t)strict << 6 |
                 (g->bias ? alignment(g->c_type == DEVICE_BF16 ? g->bias_half : g->bias) << 8 : 0),
    };
}

uint64_t blas_key_hash(const struct blas_key *key)
{
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < sizeof(*key); i++)
        hash = (hash ^ ((const uint8_t *)key)[i]) * 1099511628211u;
    return hash;
}

/* op(M) is (rows, cols), row by row as it is stored or transposed. */
static struct blas_matrix matrix(int64_t rows, int64_t cols, bool transposed, int64_t ld, enum device_type type, int64_t apart,
                                 uint32_t align)
{
    return (struct blas_matrix) {.rows = (uint64_t)(transposed ? rows : cols), .cols = (uint64_t)(transposed ? cols : rows),
                                 .ld = ld, .apart = apart, .type = type, .align = align};
}

struct blas_call blas_call_of(const struct device_gemm *g)
{
    struct blas_key key = blas_key_of(g, false);

    return (struct blas_call) {
        .a = matrix(g->k, g->n, g->b_transposed, g->b_row, g->b_type, key.b_apart, key.b_align),
        .b = matrix(g->m, g->k, g->a_transposed, g->a_row, g->a_type, key.a_apart, key.a_align),
        .c = matrix(g->m, g->n, false, g->c_row, g->c_type, key.c_apart, key.c_align), .batch = (int32_t)key.batch,
        .a_transposed = g->b_transposed, .b_transposed = g->a_transposed, .bias = g->bias != NULL,
    };
}

struct device_gemm blas_typical(const struct device_gemm *g)
{
    struct device_gemm typical = *g;

    if (!g->a_transposed)
        typical.m = BLAS_STRICT_ROWS;
    return typical;
}
