/* What the expert does beyond taking and putting down: one test state each, played to its end.
 *
 * Skipped where LIBERO's files are missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim/suites/libero/libero.h"
#include "tests/harness/libero_lab.h"

static void solve(int suite, int index, uint64_t row)
{
    const struct libero_suite *of = &libero_suites[suite];
    struct sim_suite *opened;
    struct sim_task *task;
    struct sim_slot *slot;
    struct error error = {0};
    bool success = false;
    struct sim_options options = libero.options;
    float action[7];

    libero_lab_need_files();
    options.substeps = SIM_SUBSTEPS_ONEPASS;
    if (sim_suite_open(of->name, &options, &opened, &error) < 0 || sim_task_open(opened, of->tasks[index], &task, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(sim_slot_new(task, &slot), 0);
    assert_int_equal(sim_reset(slot, SIM_TEST, row, NULL), 0);
    for (int t = 0; t < of->max_steps && !success; t++) {
        assert_int_equal(sim_expert(slot, action), 0);
        for (int i = 0; i < 7; i++)
            assert_true(action[i] >= -1 && action[i] <= 1);
        assert_int_equal(sim_step(slot, action, &success), 0);
    }
    assert_true(success);
    sim_slot_free(slot);
    sim_task_close(task);
    sim_suite_close(opened);
}

/* A closed drawer whose handle cannot be taken from above. */
static void test_opens(void **state)
{
    (void)state;
    solve(GOAL, 0, 0);
}

/* The goal names what shall go in: that is put aside, since the drawer opens over it, the drawer opened, and then filled. */
static void test_opens_first(void **state)
{
    (void)state;
    solve(GOAL, 3, 0);
}

/* The file names the closing first; it is done last. */
static void test_closes_last(void **state)
{
    (void)state;
    solve(LONG, 3, 0);
}

static void test_slides(void **state)
{
    (void)state;
    solve(GOAL, 5, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens),
        cmocka_unit_test(test_opens_first),
        cmocka_unit_test(test_closes_last),
        cmocka_unit_test(test_slides),
    };

    return cmocka_run_group_tests(tests, libero_lab_find, libero_lab_clean_up);
}
