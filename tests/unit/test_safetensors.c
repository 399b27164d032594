/* safetensors: a literal file, every way to lie in a header, and the round trip through the writer. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/safetensors.h"
#include "tests/harness/scratch.h"

/* u64 length, header, data. */
static size_t build(uint8_t *file, const char *header, const void *data, size_t n_data)
{
    size_t n = strlen(header);

    memset(file, 0, 8);
    file[0] = (uint8_t)n;
    file[1] = (uint8_t)(n >> 8);
    memcpy(file + 8, header, n);
    if (n_data)
        memcpy(file + 8 + n, data, n_data);
    return 8 + n + n_data;
}

static void test_reads_what_is_there(void **state)
{
    static const uint8_t data[] = {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, /* f32 1, -2 */
                                   0xc0, 0x3f, 0x00, 0x80,          /* bf16 1.5, -0 */
                                   0x00, 0x3c, 0x01, 0x00};         /* f16 1, 2^-24 */
    uint8_t file[512];
    struct safetensors *st = NULL;
    struct error error = {0};
    const struct st_tensor *t;
    float x[2];
    size_t n = build(file,
                     "{\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[12,16]},\"__metadata__\":{\"format\":\"pt\"},"
                     "\"f\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
                     "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}  ",
                     data, sizeof(data));

    (void)state;
    if (safetensors_parse(file, n, &st, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(st->count, 3);
    assert_string_equal(st->list[0].name, "f");                     /* file order */
    t = safetensors_find(st, "f");
    assert_int_equal(t->ndim, 2);
    assert_int_equal(t->dim[1], 2);
    assert_int_equal(st_read_f32(t, 0, 2, x), 0);
    assert_true(x[0] == 1 && x[1] == -2);
    assert_int_equal(st_read_f32(safetensors_find(st, "b"), 0, 2, x), 0);
    assert_true(x[0] == 1.5f && x[1] == 0 && signbit(x[1]));
    assert_int_equal(st_read_f32(safetensors_find(st, "h"), 0, 2, x), 0);
    assert_true(x[0] == 1 && x[1] == 0x1p-24f);
    assert_int_equal(st_read_f32(t, 1, 2, x), -ERANGE);
    assert_null(safetensors_find(st, "none"));
    safetensors_close(st);
}

/* Each for its own reason. The data have eight bytes. */
#define ENTRY(name, dtype, shape, offsets) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
static void test_lies_are_refused(void **state)
{
    static const struct { const char *header, *said; } cases[] = {
        {"{" ENTRY("a", "F32", "[2]", "[0,4]") "}", "4 bytes, expected 8"},
        {"{" ENTRY("a", "F32", "[1]", "[0,8]") "}", "8 bytes, expected 4"},
        {"{" ENTRY("a", "F32", "[4]", "[0,16]") "}", "cut short: it has 8 bytes of data"},
        {"{" ENTRY("a", "F32", "[-1]", "[0,4]") "}", "is not a whole number >= 0"},
        {"{" ENTRY("a", "F32", "[2]", "[8,0]") "}", "are no range"},
        {"{" ENTRY("a", "F32", "[4611686018427387904,4]", "[0,8]") "}", "shape is too large"},
        {"{" ENTRY("a", "F33", "[2]", "[0,8]") "}", "dtype F33 is not known"},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[2]", "[0,8]") "}", "overlap another tensor's"},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[1]", "[0,4]") "}", "overlap another tensor's"},
        {"{" ENTRY("a", "F32", "[1]", "[4,8]") "}", "leave a hole"},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "}", "4 bytes behind the last tensor"},
        {"{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("a", "F32", "[2]", "[0,8]") "}", "duplicate object key"},
        {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", "a list of at most"},
        {"{\"a\":1}", "dtype (none) is not known"},
        {"[]", "not an object"},
        {"{", "header: "},
        {"", "header: "},
    };
    uint8_t file[512], data[8] = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct safetensors *st = NULL;
        struct error error = {0};
        size_t n = build(file, cases[i].header, data, sizeof(data));

        if (safetensors_parse(file, n, &st, &error) != -EINVAL)
            fail_msg("accepted: %s", cases[i].header);
        assert_null(st);
        if (!strstr(error.text, cases[i].said))
            fail_msg("%s: said '%s', not '%s'", cases[i].header, error.text, cases[i].said);
    }
    memset(file, 0xff, 16);                             /* a header length beyond the file */
    assert_int_equal(safetensors_parse(file, 16, &(struct safetensors *) {NULL}, NULL), -EINVAL);
    assert_int_equal(safetensors_parse(file, 3, &(struct safetensors *) {NULL}, NULL), -EINVAL);
}

static void test_round_trip(void **state)
{
    static const float values[] = {1.0f, 3.14159274f, -1e-3f, 65504.0f};
    static const uint8_t raw[] = {7, 8, 9};
    const struct st_write out[] = {
        {.name = "small", .dtype = DTYPE_U8, .ndim = 1, .dim = {3}, .raw = raw},
        {.name = "b", .dtype = DTYPE_BF16, .ndim = 2, .dim = {2, 2}, .values = values},
        {.name = "z", .dtype = DTYPE_F32, .ndim = 1, .dim = {4}, .values = values},
        {.name = "a", .dtype = DTYPE_F32, .ndim = 1, .dim = {4}, .values = values},
    };
    char dir[SCRATCH_PATH], path[SCRATCH_PATH + 16];
    struct safetensors *st = NULL;
    float x[4];
    struct error error;

    (void)state;
    scratch_new(dir);
    snprintf(path, sizeof path, "%s/tensors", dir);
    if (safetensors_write(path, out, 4, &error) < 0 || safetensors_open(path, &st, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(st->list[0].name, "a");         /* wide dtypes first, then by name */
    assert_string_equal(st->list[1].name, "z");
    assert_string_equal(st->list[2].name, "b");
    assert_string_equal(st->list[3].name, "small");
    assert_int_equal(((uintptr_t)st->list[0].data - (uintptr_t)st->bytes) % 8, 0);
    assert_memory_equal(st->list[1].data, values, sizeof(values));
    assert_int_equal(st_read_f32(safetensors_find(st, "b"), 0, 4, x), 0);
    assert_true(x[0] == 1 && x[1] == 3.140625f && x[3] == 65536.0f);
    safetensors_close(st);
    assert_int_equal(remove_tree(dir), 0);
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(float_to_bf16(1.0f), 0x3f80);
    assert_int_equal(float_to_bf16(1.0f + 0x1p-8f), 0x3f80);                /* a tie goes to even: down */
    assert_int_equal(float_to_bf16(1.0f + 0x1p-7f + 0x1p-8f), 0x3f82);      /* and up */
    assert_int_equal(float_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);
    assert_int_equal(float_to_bf16(INFINITY), 0x7f80);
    assert_true((float_to_bf16(NAN) & 0x7fff) > 0x7f80);
}

/* Every half is itself again; between two neighbours the nearer wins, on a tie the even one. */
static void test_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        struct st_tensor two = {.dtype = DTYPE_F16, .numel = 2, .data = (uint16_t[]) {(uint16_t)h, (uint16_t)(h + 1)}};
        float x[2], middle;

        assert_int_equal(st_read_f32(&two, 0, 2, x), 0);
        middle = h == 0x7bff ? 65520.0f : x[0] + (x[1] - x[0]) / 2;
        assert_int_equal(float_to_f16(x[0]), h);
        assert_int_equal(float_to_f16(-x[0]), h | 0x8000);
        assert_int_equal(float_to_f16(middle), h & 1 ? h + 1 : h);
        assert_int_equal(float_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(float_to_f16(nextafterf(middle, INFINITY)), h + 1);
    }
    assert_int_equal(float_to_f16(-INFINITY), 0xfc00);
    assert_true((float_to_f16(NAN) & 0x7fff) > 0x7c00);
}

static int count_up(void *context, int64_t first, int64_t n, float *ret)
{
    int64_t *next = context;

    assert_int_equal(first, *next);                     /* once, in order */
    for (int64_t i = 0; i < n; i++)
        ret[i] = (float)((first + i) % 2048);
    *next += n;
    return 0;
}

/* A tensor that is never in memory at once; the order given is kept; what does not fit a dtype is said. */
static void test_streamed(void **state)
{
    enum { N = 200000 };
    char dir[SCRATCH_PATH], path[SCRATCH_PATH + 16];
    static const float large[] = {1, 70000};
    int64_t asked = 0;
    struct st_write out[] = {
        {.name = "b", .dtype = DTYPE_F16, .ndim = 2, .dim = {2, N / 2}, .fill = count_up, .context = &asked},
        {.name = "a", .dtype = DTYPE_F32, .ndim = 1, .dim = {2}, .values = large},
    };
    struct safetensors *st = NULL;
    struct error error = {0};
    float x[3];

    (void)state;
    scratch_new(dir);
    snprintf(path, sizeof path, "%s/tensors", dir);
    if (safetensors_write_as_given(path, out, 2, &error) < 0 || safetensors_open(path, &st, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(asked, N);
    assert_string_equal(st->path, path);
    assert_string_equal(st->list[0].name, "b");
    assert_int_equal(st_read_f32(&st->list[0], N - 3, 3, x), 0);
    assert_true(x[0] == (N - 3) % 2048 && x[2] == (N - 1) % 2048);
    safetensors_close(st);
    out[1].dtype = DTYPE_F16;
    asked = 0;
    assert_int_equal(safetensors_write(path, out, 2, &error), -ERANGE);
    assert_non_null(strstr(error.text, "tensor a: a value does not fit into F16"));
    assert_int_equal(remove_tree(dir), 0);
}

static void test_not_finite_is_found(void **state)
{
    enum { N = 70001 };
    float *values = calloc(N, sizeof(*values));
    uint16_t *half = calloc(N, sizeof(*half));
    struct st_tensor f32 = {.dtype = DTYPE_F32, .numel = N, .data = values};
    struct st_tensor f16 = {.dtype = DTYPE_F16, .numel = N, .data = half}, bf16 = {.dtype = DTYPE_BF16, .numel = N, .data = half};

    (void)state;
    assert_int_equal(st_not_finite(&f32), -1);
    values[N - 1] = NAN;
    assert_int_equal(st_not_finite(&f32), N - 1);
    values[7] = -INFINITY;
    assert_int_equal(st_not_finite(&f32), 7);
    half[66000] = 0x7c00;                               /* infinity as F16, 2.7e36 as BF16 */
    assert_int_equal(st_not_finite(&f16), 66000);
    assert_int_equal(st_not_finite(&bf16), -1);
    half[3] = 0xff81;
    assert_int_equal(st_not_finite(&bf16), 3);
    assert_int_equal(st_not_finite(&(struct st_tensor) {.dtype = DTYPE_I16, .numel = N, .data = half}), -1);
    free(values);
    free(half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_is_there),
        cmocka_unit_test(test_lies_are_refused),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_streamed),
        cmocka_unit_test(test_not_finite_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
