/* test_sim_perturb: blows of the world: once in an episode, at a step and in a direction that the state fixes, never breaking the
 * simulation; what was held is held no longer, and an expert that looks again recovers. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim/sim.h"

enum { EPISODES = 12 };
static struct sim_suite *suite;

struct played { int struck, succeeded; int first_step; };

/* The expert, half as much time again, and one blow. */
static struct played play(const char *name, const char *kind)
{
    struct sim_task *task;
    struct sim_slot *slot;
    struct error error;
    struct played played = {0};
    int limit;

    if (sim_task_open(suite, name, &task, &error) < 0)
        fail_msg("%s", error.text);
    limit = sim_task_info(task)->max_steps;
    assert_int_equal(sim_slot_new(task, &slot), 0);
    for (uint64_t seed = 0; seed < EPISODES; seed++) {
        bool success = false, struck = false;
        float action[SIM_ACTION_DIMS];

        assert_int_equal(sim_reset(slot, SIM_VAL, seed, NULL), 0);
        for (int t = 0; t < limit * 3 / 2 && !success; t++) {
            int r = struck ? 0 : sim_perturb(slot, kind, seed, t, limit);

            assert_in_range(r, 0, 1);
            if (r && seed == 0)
                played.first_step = t;
            struck |= r;
            played.struck += r;
            assert_int_equal(sim_expert(slot, action), 0);
            assert_int_equal(sim_step(slot, action, &success), 0);
        }
        played.succeeded += success && struck;
    }
    sim_slot_free(slot);
    sim_task_close(task);
    return played;
}

static void test_blows(void **state _unused_)
{
    static const char *const kinds[] = {"push", "drop", "offset"};
    const struct sim_task_info *infos;
    int n = sim_suite_tasks(suite, &infos);

    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
            struct played once = play(infos[i].name, kinds[k]);

            print_message("%s, %s: struck %d of %d, recovered %d\n", infos[i].name, kinds[k], once.struck, EPISODES,
                          once.succeeded);
            assert_true(once.struck <= EPISODES);
            if (k != 1)
                assert_true(once.struck > EPISODES / 3);        /* others were over before it came */
            if (i == 0)
                assert_int_equal(play(infos[i].name, kinds[k]).first_step, once.first_step);
        }
}

/* Where the expert looks before it acts, it recovers. */
static void test_recovery(void **state _unused_)
{
    struct played dropped = play("pick_up_object", "drop"), pushed = play("pick_up_object", "push");

    assert_true(dropped.struck > EPISODES * 9 / 10);
    assert_true(dropped.succeeded > dropped.struck / 2);
    assert_true(pushed.succeeded > pushed.struck * 3 / 4);
}

static void test_refusals(void **state _unused_)
{
    struct sim_task *task;
    struct sim_slot *slot;
    struct error error;

    assert_int_equal(sim_task_open(suite, "pick_up_object", &task, &error), 0);
    assert_int_equal(sim_slot_new(task, &slot), 0);
    assert_int_equal(sim_reset(slot, SIM_VAL, 0, NULL), 0);
    assert_int_equal(sim_perturb(slot, "earthquake", 0, 3, 24), -EINVAL);
    sim_slot_free(slot);
    sim_task_close(task);
}

static int open_suite(void **state _unused_)
{
    struct error error;

    return sim_suite_open("tabletop", NULL, &suite, &error);
}

static int close_suite(void **state _unused_)
{
    suite = sim_suite_close(suite);
    return 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_blows), cmocka_unit_test(test_recovery),
                                              cmocka_unit_test(test_refusals)};

    return cmocka_run_group_tests(tests, open_suite, close_suite);
}
