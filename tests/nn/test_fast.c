/* The products of numerics: fast, by VDPBF16PS and by AMX: within the rounding of their operands, and of their sums, computed
 * for each output; equal to the bit whatever else is in the batch and however B lies; and the linear op's three products with
 * them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/macro.h"
#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/ops.h"
#include "nn/safetensors.h"
#include "tests/harness/numbers.h"

static const struct cpu_kernels *cpu;

static double widened(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float x;

    memcpy(&x, &bits, sizeof(x));
    return (double)x;
}

static double rounded(float x) { return widened(float_to_bf16(x)); }

struct shape { int64_t m, n, k; };
enum { A_TURNED = 1, B_TURNED = 2, BIAS = 4, ADD = 8, HALVES = 16 };

struct product { float *a, *b, *bias, *before, *c, *scratch; uint16_t *halves; uint32_t *pairs; };

static void release(struct product *p)
{
    free(p->a);
    free(p->b);
    free(p->bias);
    free(p->before);
    free(p->c);
    free(p->scratch);
    free(p->halves);
    free(p->pairs);
}

static struct product compute(struct shape s, int how)
{
    struct product p = {.a = numbers_normal(s.m * s.k, 1), .b = numbers_normal(s.k * s.n, 2), .bias = numbers_normal(s.n, 3),
                        .before = numbers_normal(s.m * s.n, 4),
                        .c = numbers_normal(s.m * s.n, 4), .halves = calloc((size_t)(s.k * s.n) + 32, sizeof(uint16_t)),
                        .pairs = calloc((size_t)(gemm_pairs(s.k) * gemm_padded(s.n)) + 16, sizeof(uint32_t))};
    int64_t scratch = how & HALVES ? gemm_bf16_halves_scratch(s.m, s.k) : gemm_bf16_scratch(s.m, s.n, s.k);
    struct gemm g = {.m = s.m, .n = s.n, .k = s.k, .a = p.a, .a_row = how & A_TURNED ? 1 : s.k, .a_k = how & A_TURNED ? s.m : 1,
                     .c = p.c, .c_row = s.n, .bias = how & BIAS ? p.bias : NULL, .add = how & ADD};

    assert_true(p.halves && p.pairs);
    g.scratch = p.scratch = calloc((size_t)scratch + 1, sizeof(float));
    p.scratch[scratch] = 77;
    for (int64_t i = 0; i < s.k * s.n; i++)
        p.halves[i] = float_to_bf16(p.b[i]);
    if (how & HALVES) {
        g.halves = p.halves;
        g.half_row = how & B_TURNED ? s.k : s.n;
        g.half_transposed = how & B_TURNED;
    } else {
        cpu->gemm_bf16_pack(p.pairs, p.b, how & B_TURNED ? s.k : s.n, s.k, s.n, how & B_TURNED);
        g.pairs = p.pairs;
    }
    cpu->gemm_bf16(&g);
    assert_true(p.scratch[scratch] == 77);      /* no more than was said */
    for (int64_t i = s.m * s.n; i < s.m * s.n + 64; i++)
        assert_true(p.c[i] == 0.0f);
    return p;
}

/* The chain of an output is k + 2 additions in fp32 at most; half a unit in the last place each, of no more than the sum of
 * magnitudes. */
static void check(struct shape s, int how)
{
    struct product p = compute(s, how);

    for (int64_t i = 0; i < s.m; i++)
        for (int64_t j = 0; j < s.n; j++) {
            double sum = 0, magnitude = 0, in_fp32 = 0, got = (double)p.c[i * s.n + j], slack;

            for (int64_t k = 0; k < s.k; k++) {
                float a = p.a[how & A_TURNED ? k * s.m + i : i * s.k + k], b = p.b[how & B_TURNED ? j * s.k + k : k * s.n + j];

                sum += rounded(a) * rounded(b);
                in_fp32 += (double)a * (double)b;
                magnitude += fabs((double)a * (double)b);
            }
            sum += (how & BIAS ? (double)p.bias[j] : 0) + (how & ADD ? (double)p.before[i * s.n + j] : 0);
            in_fp32 += (how & BIAS ? (double)p.bias[j] : 0) + (how & ADD ? (double)p.before[i * s.n + j] : 0);
            slack = (double)(s.k + 2) * 0x1p-24 * 1.01 * (magnitude + 10);
            if (!(fabs(got - sum) <= slack))
                fail_msg("m=%d n=%d k=%d how=%d: C[%d][%d] = %.9g, of rounded operands %.9g, allowed %.2g", (int)s.m, (int)s.n,
                         (int)s.k, how, (int)i, (int)j, got, sum, slack);
            /* eight bits: rounding an operand moves it by 2^-8 of itself at most */
            assert_true(fabs(got - in_fp32) <= (2 * 0x1p-8 + 0x1p-16) * magnitude + slack);
        }
    release(&p);
}

static void odd_shapes_within_their_rounding(void **state)
{
    static const int64_t ms[] = {1, 2, 3, 5, 6, 7, 12, 13, 25, 121, 140}, ns[] = {1, 15, 16, 17, 33, 64, 79, 130, 161},
                         ks[] = {1, 2, 3, 31, 33, 96, GEMM_BF16_K_BLOCK, GEMM_BF16_K_BLOCK + 1, 2 * GEMM_BF16_K_BLOCK + 5};

    (void)state;
    for (size_t m = 0; m < ARRAY_SIZE(ms); m++)
        for (size_t n = 0; n < ARRAY_SIZE(ns); n++)
            for (size_t k = 0; k < ARRAY_SIZE(ks); k++)
                if (ms[m] * ns[n] * ks[k] < 1000000)
                    check((struct shape) {ms[m], ns[n], ks[k]}, (int)(m + 3 * n + 5 * k) % 32);
    for (int how = 0; how < 32; how++) {
        check((struct shape) {29, 83, 71}, how);
        check((struct shape) {29, 160, 544}, how);      /* whole tiles: AMX reads B^T where it lies */
    }
}

/* AMX's chains are Intel's description of TDPBF16PS: sixteen pairs at a time the even k and the odd k, from 0, then both to the
 * output. An output that went any other way would not have these bits. */
static void tiles_make_two_chains(void **state)
{
    enum { M = 35, N = 40, K = GEMM_BF16_K_BLOCK + 77 };
    struct product p = compute((struct shape) {M, N, K}, B_TURNED);

    (void)state;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0;

            for (int k0 = 0; k0 < K; k0 += 32) {
                float chain[2] = {0, 0};

                for (int k = k0; k < K && k < k0 + 32; k++)
                    chain[k % 2] = fmaf((float)rounded(p.a[i * K + k]), (float)rounded(p.b[j * K + k]), chain[k % 2]);
                sum += chain[0] + chain[1];
            }
            assert_true(p.c[i * N + j] == sum);
        }
    release(&p);
}

/* An empty product is 0, then bias and what is there. */
static void no_depth(void **state)
{
    struct product p = compute((struct shape) {3, 5, 0}, BIAS);

    (void)state;
    for (int i = 0; i < 15; i++)
        assert_true(p.c[i] == p.bias[i % 5]);
    release(&p);
}

static void special_numbers_pass_through(void **state)
{
    float a[2] = {INFINITY, 1}, b[2] = {1, 1}, c, scratch[4096];
    uint32_t pairs[GEMM_PANEL];
    struct gemm g = {.m = 1, .n = 1, .k = 2, .a = a, .a_row = 2, .a_k = 1, .pairs = pairs, .c = &c, .c_row = 1,
                     .scratch = scratch};

    (void)state;
    cpu->gemm_bf16_pack(pairs, b, 1, 2, 1, false);
    cpu->gemm_bf16(&g);
    assert_true(isinf(c));
    a[0] = NAN;
    cpu->gemm_bf16(&g);
    assert_true(isnan(c));
    a[0] = 1 + 0x1p-8f;         /* a tie: to even, which is 1 */
    cpu->gemm_bf16(&g);
    assert_true(c == 2.0f);
    a[0] = 1 + 3 * 0x1p-8f;     /* and upwards */
    cpu->gemm_bf16(&g);
    assert_true(c == 2.0f + 4 * 0x1p-8f);
}

/* A row alone, in any batch, from panels or from bf16: one result. */
static void rows_alone(int64_t n, int64_t k)
{
    enum { M = 141 };
    struct product all = compute((struct shape) {M, n, k}, B_TURNED),
        halves = compute((struct shape) {M, n, k}, B_TURNED | HALVES);
    static const int sizes[] = {1, 2, 5, 11, 64};
    float *some = numbers_normal(64 * n, 9);

    assert_memory_equal(all.c, halves.c, (size_t)(M * n) * sizeof(float));
    for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
        for (int i = 0; i + sizes[s] <= M; i += 7) {
            struct gemm g = {.m = sizes[s], .n = n, .k = k, .a = all.a + i * k, .a_row = k, .a_k = 1, .c = some, .c_row = n,
                             .pairs = all.pairs, .scratch = all.scratch};

            cpu->gemm_bf16(&g);
            assert_memory_equal(some, all.c + i * n, (size_t)(sizes[s] * n) * sizeof(float));
            g.pairs = NULL;
            g.halves = all.halves;
            g.half_row = k;
            g.half_transposed = true;
            g.scratch = halves.scratch;
            cpu->gemm_bf16(&g);
            assert_memory_equal(some, all.c + i * n, (size_t)(sizes[s] * n) * sizeof(float));
        }
    free(some);
    release(&all);
    release(&halves);
}

static void rows_do_not_depend_on_their_batch(void **state)
{
    (void)state;
    rows_alone(150, 1101);
    rows_alone(160, 1088);
}

/* ---- what lies behind -------------------------------------------------------------------------------------- */

/* `bytes` that end where a page begins that nobody may touch: a mapped file may end there. */
struct fenced { char *map, *data; size_t size; };

static struct fenced fence(const void *from, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page + page;
    struct fenced f = {.map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .size = size};

    assert_ptr_not_equal(f.map, MAP_FAILED);
    f.data = f.map + size - page - bytes;
    memcpy(f.data, from, bytes);
    assert_int_equal(mprotect(f.map + size - page, page, PROT_NONE), 0);
    return f;
}

/* Operands with rows `longer` than they are used, up to the last number that is theirs: the same product, and no fault. */
static void stays_inside(struct shape s, int how, int64_t longer)
{
    int64_t a_row = (how & A_TURNED ? s.m : s.k) + longer, b_row = (how & B_TURNED ? s.k : s.n) + longer;
    int64_t a_rows = how & A_TURNED ? s.k : s.m, b_rows = how & B_TURNED ? s.n : s.k;
    struct product p = compute(s, how);
    float *a = numbers_normal(a_rows * a_row, 5), *c = calloc((size_t)(s.m * s.n), sizeof(float));
    uint16_t *b = calloc((size_t)(b_rows * b_row), sizeof(uint16_t));
    int64_t scratch = how & HALVES ? gemm_bf16_halves_scratch(s.m, s.k) : gemm_bf16_scratch(s.m, s.n, s.k);
    struct fenced fenced[5];
    struct gemm g = {.m = s.m, .n = s.n, .k = s.k, .a_row = how & A_TURNED ? 1 : a_row, .a_k = how & A_TURNED ? a_row : 1,
                     .c_row = s.n};

    assert_true(b && c);
    for (int64_t i = 0; i < a_rows; i++)
        memcpy(a + i * a_row, p.a + i * (a_row - longer), (size_t)(a_row - longer) * sizeof(float));
    for (int64_t i = 0; i < b_rows; i++) {
        memcpy(b + i * b_row, p.halves + i * (b_row - longer), (size_t)(b_row - longer) * sizeof(uint16_t));
        for (int64_t j = b_row - longer; j < b_row; j++)
            b[i * b_row + j] = 0x7fc0;          /* NaN */
    }
    fenced[0] = fence(a, (size_t)(a_rows * a_row - longer) * sizeof(float));
    fenced[1] = fence(b, (size_t)(b_rows * b_row - longer) * sizeof(uint16_t));
    fenced[2] = fence(p.pairs, (size_t)(gemm_pairs(s.k) * gemm_padded(s.n)) * sizeof(uint32_t));
    fenced[3] = fence(c, (size_t)(s.m * s.n) * sizeof(float));
    fenced[4] = fence(p.scratch, (size_t)scratch * sizeof(float));
    g.a = (const float *)fenced[0].data;
    g.c = (float *)fenced[3].data;
    g.scratch = (float *)fenced[4].data;
    if (how & HALVES) {
        g.halves = (const uint16_t *)fenced[1].data;
        g.half_row = b_row;
        g.half_transposed = how & B_TURNED;
    } else {
        g.pairs = (const uint32_t *)fenced[2].data;
    }
    cpu->gemm_bf16(&g);
    assert_memory_equal(g.c, p.c, (size_t)(s.m * s.n) * sizeof(float));
    for (size_t i = 0; i < ARRAY_SIZE(fenced); i++)
        munmap(fenced[i].map, fenced[i].size);
    free(a);
    free(b);
    free(c);
    release(&p);
}

static void nothing_behind_is_touched(void **state)
{
    static const struct shape shapes[] = {{3, 40, 33}, {17, 32, 64}, {2, 64, 40}, {9, 96, 520}, {5, 48, 96}, {2, 96, 544},
                                          {40, 70, 1101}, {16, 70, 600}, {1, 33, 31}, {7, 160, 128}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(shapes); i++)
        for (int how = 0; how < 32; how++)
            if (!(how & (BIAS | ADD)))
                for (int longer = 1; longer <= 2; longer++)
                    stays_inside(shapes[i], how, longer);
}

/* ---- the linear op ----------------------------------------------------------------------------------------- */

enum { ROWS = 37, IN = 45, OUT = 70 };

/* y, dx, dW of the sum of y * c over rows first..first+count-1 of W. */
static void run_linear(bool fast, bool half, int64_t first, int64_t count, float *ret_y, float *ret_dx, float *dw)
{
    struct params params = {0};
    struct param *weight;
    struct tensor *x, *y;
    struct tape tape;
    float *w = numbers_normal(OUT * IN, 11), *c = numbers_normal(ROWS * OUT, 12), *values = numbers_normal(ROWS * IN, 13);

    if (fast)
        assert_true(params_use_fast(&params));
    weight = param_add(&params, "w", 2, (int64_t[]) {OUT, IN}, true);
    weight->half = half;
    assert_int_equal(params_allocate(&params), 0);
    for (int i = 0; i < OUT * IN; i++)
        if (half)
            weight->bf16[i] = float_to_bf16(w[i]);
        else
            weight->value[i] = (float)rounded(w[i]);
    assert_int_equal(params_pack(&params, true), 0);
    tape_init(&tape, true);
    tape.param_grad = dw;
    assert_int_equal(tape_reserve(&tape, 8 << 20), 0);
    x = tape_tensor(&tape, ROWS, IN);
    memcpy(x->x, values, ROWS * IN * sizeof(float));
    x->wants = true;
    y = first == 0 && count == OUT ? op_linear(&tape, x, weight, NULL) : op_linear_rows(&tape, x, weight, first, count);
    assert_non_null(y);
    memcpy(ret_y, y->x, (size_t)(ROWS * count) * sizeof(float));
    memcpy(y->g, c, (size_t)(ROWS * count) * sizeof(float));
    tape_backward(&tape);
    assert_int_equal(tape.error, 0);
    memcpy(ret_dx, x->g, ROWS * IN * sizeof(float));
    tape_release(&tape);
    params_free(&params);
    free(w);
    free(c);
    free(values);
}

static void close_to(const char *what, const float *got, const float *want, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < n; i++)     /* operands are N(0,1): k products off by some 2^-8 each, as a random walk, five
                                         * deviations */
        if (!(fabs((double)got[i] - (double)want[i]) <= 5 * 0x1p-8 * sqrt((double)k)))
            fail_msg("%s[%d] = %g, strict has %g", what, (int)i, (double)got[i], (double)want[i]);
}

static void linear_forwards_and_back(void **state)
{
    static const struct { int64_t first, count; } slices[] = {{0, OUT}, {0, 33}, {32, 38}, {7, 40}, {33, 1}, {1, 69}};
    float y[2][ROWS * OUT], dx[2][ROWS * IN], dw[2][OUT * IN + 64], none[OUT * IN + 64];

    (void)state;
    for (size_t s = 0; s < ARRAY_SIZE(slices); s++) {
        int64_t first = slices[s].first, count = slices[s].count;

        memset(dw, 0, sizeof(dw));
        run_linear(false, false, first, count, y[0], dx[0], dw[0]);
        run_linear(true, false, first, count, y[1], dx[1], dw[1]);
        close_to("y", y[1], y[0], ROWS * count, IN);
        close_to("dx", dx[1], dx[0], ROWS * IN, count);
        close_to("dW", dw[1], dw[0], OUT * IN, ROWS);
        for (int64_t i = 0; i < OUT * IN; i++)
            assert_true((i / IN >= first && i / IN < first + count) || dw[1][i] == 0.0f);
        assert_true(memcmp(y[0], y[1], (size_t)(ROWS * count) * sizeof(float)) != 0);
        run_linear(true, true, first, count, y[0], dx[0], none);        /* kept as bf16: no gradient of its own */
        assert_memory_equal(y[0], y[1], (size_t)(ROWS * count) * sizeof(float));
        if (first % 2 == 0)
            assert_memory_equal(dx[0], dx[1], sizeof(dx[0]));
        else                                    /* pairs begin elsewhere */
            close_to("dx", dx[0], dx[1], ROWS * IN, count);
    }
}

static void other_sets_have_it_not(void **state)
{
    static const char *const names[] = {"generic", "avx2", "avx512", "neon"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (cpu_kernels_named(names[i]))
            assert_null(cpu_kernels_named(names[i])->gemm_bf16);
}

int main(void)
{
    static const char *const sets[] = {"avx512bf16", "amx"};
    const struct CMUnitTest products[] = {
        cmocka_unit_test(odd_shapes_within_their_rounding), cmocka_unit_test(no_depth),
        cmocka_unit_test(special_numbers_pass_through),     cmocka_unit_test(rows_do_not_depend_on_their_batch),
        cmocka_unit_test(nothing_behind_is_touched),
    };
    const struct CMUnitTest tiles[] = {cmocka_unit_test(tiles_make_two_chains)};
    const struct CMUnitTest others[] = {cmocka_unit_test(other_sets_have_it_not)};
    const struct CMUnitTest linear[] = {cmocka_unit_test(linear_forwards_and_back)};
    int failed = cmocka_run_group_tests_name("sets without", others, NULL, NULL);

    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        cpu = cpu_kernels_named(sets[i]);
        if (cpu)
            failed += cmocka_run_group_tests_name(sets[i], products, NULL, NULL);
        else
            print_message("skipped: products by %s: not on this CPU\n", sets[i]);
    }
    if (cpu)
        failed += cmocka_run_group_tests_name("amx alone", tiles, NULL, NULL);
    return cpu_kernels()->gemm_bf16 ? failed + cmocka_run_group_tests_name("the linear op", linear, NULL, NULL) : failed;
}
