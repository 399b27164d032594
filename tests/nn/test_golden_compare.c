/* The judge of the goldens: a number that is none agrees with nothing, wherever it stands; a set that names nothing passes
 * nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/golden/golden_internal.h"
#include "nn/golden/prm_internal.h"
#include "tests/harness/scratch.h"

static FILE *nowhere;

static int set_up(void **state)
{
    (void)scratch_set_up(state);
    nowhere = fopen("/dev/null", "w");
    return nowhere ? 0 : -1;
}

static int tear_down(void **state)
{
    fclose(nowhere);
    return scratch_tear_down(state);
}

/* How many fail when x is compared with 1, 2, 3 under this tolerance. */
static int failures(const char *tolerance, const float *x, bool margin)
{
    static const float ref[] = {1, 2, 3};
    const struct st_write one = {.name = "t", .dtype = DTYPE_F32, .ndim = 1, .dim = {3}, .values = ref};
    _cleanup_json_ json_t *seen = json_object();
    _cleanup_json_ json_t *manifest = json_pack("{s:{s:{s:{s:{s:s}}}}}", "files", "f.safetensors", "tensors", "t", "tolerance",
                                                tolerance);
    struct error error = {0};
    struct golden g = {.out = nowhere, .error = &error, .manifest = manifest, .seen = seen, .n_files = 1, .dtype = "bf16",
                       .files = {{.name = "f"}}};

    assert_int_equal(safetensors_write(scratch_at("f.safetensors"), &one, 1, NULL), 0);
    assert_int_equal(safetensors_open(scratch_at("f.safetensors"), &g.files[0].file, NULL), 0);
    golden_begin(&g);
    assert_int_equal(margin ? golden_compare_margin(&g, "f", "t", x, 3) : golden_compare(&g, "f", "t", x, 3), 0);
    safetensors_close(g.files[0].file);
    assert_int_equal(g.count, 1);
    return g.failures;
}

static void test_nan_agrees_with_nothing(void **state)
{
    static const char *const tolerances[] = {"exact", "abs 1", "fp32 abs 1", "bf16 l2", "bf16 abs", "rel 1", "fp32 2e-4",
                                             "fp32 1e-4", "follows from ids"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(tolerances); i++)
        for (int bad = 0; bad < 3; bad++) {
            float x[] = {1, 2, 3};

            assert_int_equal(failures(tolerances[i], x, false), 0);
            assert_int_equal(failures(tolerances[i], x, true), 0);
            x[bad] = NAN;
            if (failures(tolerances[i], x, false) != 1 || failures(tolerances[i], x, true) != 1)
                fail_msg("NaN as number %d passes '%s'", bad, tolerances[i]);
        }
}

static void test_nan_is_no_score(void **state)
{
    static const double ref[] = {1, 2, 3};

    (void)state;
    for (int rule = PRM_EXACT; rule <= PRM_REL; rule++)
        for (int bad = 0; bad < 3; bad++) {
            double x[] = {1, 2, 3};
            struct prm_check p = {.out = nowhere};

            prm_values(&p, "x", x, ref, 3, (enum prm_rule)rule, 1);
            assert_int_equal(p.failed, 0);
            x[bad] = NAN;
            prm_values(&p, "x", x, ref, 3, (enum prm_rule)rule, 1);
            if (p.failed != 1)
                fail_msg("NaN as number %d passes rule %d", bad, rule);
        }
}

static void test_nothing_named_passes_nothing(void **state)
{
    struct error error = {0};

    (void)state;
    assert_int_equal(file_write(scratch_at("manifest.json"), "{}", 2), 0);
    assert_int_equal(file_write(scratch_at("stats.json"), "{}", 2), 0);
    assert_true(golden_check(scratch_dir, NULL, nowhere, &error) < 0);
    assert_non_null(strstr(error.text, "manifest.json: names no model"));
    assert_int_equal(unlink(scratch_at("stats.json")), 0);
    assert_int_equal(safetensors_write(scratch_at("resize.safetensors"), NULL, 0, NULL), 0);
    assert_true(golden_check(scratch_dir, NULL, nowhere, &error) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nan_agrees_with_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nan_is_no_score, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_named_passes_nothing, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
