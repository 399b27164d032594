/* reorder.cc - the emulated device with products and attention that sum as libraries on a device do, in place of the own kernels:
 * see emulate.h.
 *
 * A product of few rows is split along k, and the more the fewer rows it has; sixteen neighbours of a chain are added at once, as
 * tensor cores do. So the same row comes out in other last bits of its sum when it is decoded alone than within a pass, which is
 * then seen where bf16 rounds it to the other side. Attention (not of decoding steps, which the own kernel does everywhere)
 * rounds its weights to bf16 before they meet the values. */
#include "nn/cuda/simt.h"
#include "tests/emulate/emulate.h"

#include <algorithm>
#include <functional>
#include <vector>

bool simt_kept(void *stream, const std::function<int()> &work);

static float get(enum device_type type, const void *p, int64_t i)
{
    return type == DEVICE_BF16 ? load((const bf16 *)p + i) : load((const float *)p + i);
}

static void put(enum device_type type, void *p, int64_t i, float x)
{
    if (type == DEVICE_BF16)
        store((bf16 *)p + i, x);
    else
        store((float *)p + i, x);
}

static float rounded(float x)
{
    bf16 h;

    store(&h, x);
    return load(&h);
}

static int parts_of(int64_t m) { return m <= 16 ? 4 : m <= 64 ? 3 : m <= 256 ? 2 : 1; }

/* a, b: k numbers of a row and a column. */
static float product(const float *a, const float *b, int64_t k, int parts)
{
    enum { AT_ONCE = 16 };
    int64_t each = (k + parts - 1) / parts;
    float sum = 0;

    for (int64_t from = 0; from < k; from += each) {
        int64_t end = std::min(k, from + each);
        float chain = 0;

        for (int64_t i = from; i < end; i += AT_ONCE) {
            double some = chain;

            for (int64_t j = i; j < std::min(end, i + AT_ONCE); j++)
                some += (double)a[j] * (double)b[j];
            chain = (float)some;
        }
        sum = from ? sum + chain : chain;
    }
    return sum;
}

static void one_product(const struct device_gemm &g)
{
    std::vector<float> b((size_t)(g.n * g.k)), a((size_t)g.k);
    int parts = parts_of(g.m);

    for (int64_t j = 0; j < g.n; j++)
        for (int64_t i = 0; i < g.k; i++)
            b[(size_t)(j * g.k + i)] = get(g.b_type, g.b, g.b_transposed ? j * g.b_row + i : i * g.b_row + j);
    for (int64_t r = 0; r < g.m; r++) {
        for (int64_t i = 0; i < g.k; i++)
            a[(size_t)i] = get(g.a_type, g.a, g.a_transposed ? i * g.a_row + r : r * g.a_row + i);
        for (int64_t c = 0; c < g.n; c++) {
            float s = g.alpha * product(a.data(), &b[(size_t)(c * g.k)], g.k, parts);

            s += g.bias ? g.bias[c] : 0.0f;
            put(g.c_type, g.c, r * g.c_row + c, g.add ? get(g.c_type, g.c, r * g.c_row + c) + s : s);
        }
    }
}

static int gemm_now(const struct device_gemm &g)
{
    simt_inside inside;

    for (int64_t i = 0; i < std::max<int64_t>(g.batch, 1); i++) {
        struct device_gemm one = g;

        one.a = (const char *)g.a + i * g.a_apart * (int64_t)device_element(g.a_type);
        one.b = (const char *)g.b + i * g.b_apart * (int64_t)device_element(g.b_type);
        one.c = (char *)g.c + i * g.c_apart * (int64_t)device_element(g.c_type);
        one_product(one);
    }
    return 0;
}

static bool (*is_strict)(void);

extern "C" void emulate_reordered_fp32(bool (*strict)(void)) { is_strict = strict; }

static int gemm(void *stream, const struct device_gemm *g)
{
    struct device_gemm call = *g;

    bool half = g->a_type == DEVICE_BF16 && g->b_type == DEVICE_BF16;

    if (!half && (is_strict == nullptr || is_strict()))         /* strict fp32 has one order everywhere */
        return emulated_kernels()->gemm(stream, g);
    return simt_kept(stream, [=]() { return gemm_now(call); }) ? 0 : gemm_now(call);
}

static void attend(const struct device_attention &a, int sequence, int head)
{
    int64_t keys = a.start[sequence + 1] - a.start[sequence], asking = a.asking[sequence + 1] - a.asking[sequence],
            kv = head / a.group * a.dim;
    std::vector<float> p((size_t)keys);

    for (int64_t q = 0; q < asking; q++) {
        int64_t row = a.asking[sequence] + q, sees = a.causal ? keys - asking + q + 1 : keys;
        float top = -INFINITY, sum = 0;

        for (int64_t k = 0; k < sees; k++) {
            double s = 0;

            for (int64_t d = 0; d < a.dim; d++)
                s += (double)get(DEVICE_BF16, a.q, row * a.q_stride + head * a.dim + d) *
                     (double)get(DEVICE_BF16, a.k, (a.start[sequence] + k) * a.kv_stride + kv + d);
            p[(size_t)k] = a.scale * (float)s;
            top = std::max(top, p[(size_t)k]);
        }
        for (int64_t k = 0; k < sees; k++)
            sum += p[(size_t)k] = expf(p[(size_t)k] - top);
        for (int64_t d = 0; d < a.dim; d++) {
            float out = 0;

            for (int64_t k = 0; k < sees; k++)
                out += rounded(p[(size_t)k]) * get(DEVICE_BF16, a.v, (a.start[sequence] + k) * a.kv_stride + kv + d);
            put(DEVICE_BF16, a.out, row * a.out_stride + head * a.dim + d, out / sum);
        }
        if (a.lse)
            a.lse[a.asking[sequence] * (int64_t)a.heads + head * asking + q] = top + logf(sum);
    }
}

static int attention_now(const struct device_attention &a)
{
    simt_inside inside;

    for (int i = 0; i < a.n; i++)
        for (int h = 0; h < a.heads; h++)
            attend(a, i, h);
    return 0;
}

static int attention(void *stream, enum device_type type, const struct device_attention *a)
{
    struct device_attention call = *a;

    if (type != DEVICE_BF16)
        return emulated_kernels()->attention(stream, type, a);
    return simt_kept(stream, [=]() { return attention_now(call); }) ? 0 : attention_now(call);
}

extern "C" const struct device_kernels *emulated_reordered(void)
{
    static struct device_kernels table;

    table = *emulated_kernels();
    table.gemm = gemm;
    table.gemm_narrow = nullptr; /* few rows, too, are the library's */
    table.attention = attention;
    return &table;
}
