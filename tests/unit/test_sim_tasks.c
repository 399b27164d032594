/* test_sim_tasks: what counts as a success in the tasks of levels 2 and 3 of the tabletop suite, and what only looks like one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "sim/suites/tabletop/tabletop.h"

static struct sim_suite *suite;

struct scene {
    struct sim_task *task;
    struct tabletop_slot *slot;
};

static struct scene open_scene(const char *name)
{
    struct scene s;
    struct sim_slot *slot;
    struct error error = {0};

    if (sim_task_open(suite, name, &s.task, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(sim_slot_new(s.task, &slot), 0);
    s.slot = (struct tabletop_slot *)slot;
    assert_int_equal(sim_reset(slot, SIM_TRAIN, 1, NULL), 0);
    assert_false(sim_success(slot));
    return s;
}

static void close_scene(struct scene *s)
{
    sim_slot_free(&s->slot->base);
    sim_task_close(s->task);
}

static void set_opening(struct tabletop_slot *slot, double opening)
{
    slot->mujoco.data->qpos[ARM_LEFT] = slot->mujoco.data->qpos[ARM_RIGHT] = opening;
}

static bool judged(struct tabletop_slot *slot)
{
    mujoco_slot_place(&slot->mujoco);
    return sim_success(&slot->base);
}

static void test_sort(void **state _unused_)
{
    static const struct { double first, second, z, opening; bool swapped, success; } rows[] = {
        { 0, 0, 0, ARM_OPEN, false, true },
        { .029, .029, 0, ARM_OPEN, false, true },
        { .031, 0, 0, ARM_OPEN, false, false },
        { 0, .031, 0, ARM_OPEN, false, false },
        { 0, 0, .007, ARM_OPEN, false, false },         /* in the air */
        { 0, 0, 0, .025, false, false },                /* still held */
        { 0, 0, 0, ARM_OPEN, true, false },             /* each on the other's disc */
    };
    struct scene s = open_scene("sort_objects");
    const struct tabletop_task *task = s.slot->task;
    const double *discs = s.slot->mujoco.data->mocap_pos;

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const double *one = discs + 3 * task->discs[rows[i].swapped], *two = discs + 3 * task->discs[!rows[i].swapped];

        tabletop_put(s.slot, task->block_qpos, one[0] + rows[i].first, one[1], BLOCK_HALF + rows[i].z, 0);
        tabletop_put(s.slot, task->base_qpos, two[0], two[1] - rows[i].second, BLOCK_HALF, 0);
        set_opening(s.slot, rows[i].opening);
        if (judged(s.slot) != rows[i].success)
            fail_msg("row %zu should be %s", i, rows[i].success ? "a success" : "none");
    }
    close_scene(&s);
}

static void test_assemble(void **state _unused_)
{
    enum { RING, PEG };
    static const struct { double off, z, opening; bool success; } rows[] = {
        { 0, .020, ARM_OPEN, true },
        { .011, .020, ARM_OPEN, true },
        { .013, .020, ARM_OPEN, false },
        { 0, .026, ARM_OPEN, false },                   /* not down yet */
        { 0, .060, ARM_OPEN, false },                   /* on top of the peg */
        { 0, .020, .032, false },                       /* still held */
    };
    struct scene s = open_scene("assemble_parts");
    const double *peg = s.slot->mujoco.data->mocap_pos + 3 * tabletop_part_mocap(s.slot, PEG);

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        tabletop_put(s.slot, tabletop_part_qpos(s.slot, RING), peg[0] + rows[i].off, peg[1], rows[i].z, 0);
        set_opening(s.slot, rows[i].opening);
        if (judged(s.slot) != rows[i].success)
            fail_msg("row %zu should be %s", i, rows[i].success ? "a success" : "none");
    }
    close_scene(&s);
}

static void test_pour(void **state _unused_)
{
    enum { STAND, JUG, BOWL, BEAD, BEADS = 6 };
    static const struct { int inside; double aside, bowl_z; bool success; } rows[] = {
        { 6, 0, .016, true },
        { 5, 0, .016, true },
        { 4, 0, .016, false },
        { 0, 0, .016, false },
        { 6, .036, .016, false },                       /* beside the bowl's wall */
        { 6, 0, .026, false },                          /* the bowl is in the air */
    };
    struct scene s = open_scene("pour_liquid");

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        tabletop_put(s.slot, tabletop_part_qpos(s.slot, BOWL), .05, .02, rows[i].bowl_z, 0);
        for (int k = 0; k < BEADS; k++) {
            bool inside = k < rows[i].inside;

            tabletop_put(s.slot, tabletop_part_qpos(s.slot, BEAD + k), .05 + rows[i].aside + (inside ? 0 : .1), .02 + .002 * k,
                         .018, 0);
        }
        if (judged(s.slot) != rows[i].success)
            fail_msg("row %zu should be %s", i, rows[i].success ? "a success" : "none");
    }
    close_scene(&s);
}

static void test_tool(void **state _unused_)
{
    static const struct { double x, z; bool success; } rows[] = {
        { -.119, BLOCK_HALF, true }, { -.121, BLOCK_HALF, false }, { 0, BLOCK_HALF + .01, false }, { .05, BLOCK_HALF, true },
    };
    struct scene s = open_scene("tool_use");

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        tabletop_put(s.slot, s.slot->task->block_qpos, rows[i].x, 0, rows[i].z, 0);
        if (judged(s.slot) != rows[i].success)
            fail_msg("row %zu should be %s", i, rows[i].success ? "a success" : "none");
    }
    close_scene(&s);
}

/* The hook is needed: with the fingers alone, as far out as the arm goes, the block stays where it is. */
static void test_block_is_out_of_reach(void **state _unused_)
{
    struct scene s = open_scene("tool_use");
    uint64_t seed;

    for (seed = 0; seed < 20; seed++) {
        const double *block;
        double before[2];
        int t;

        assert_int_equal(sim_reset(&s.slot->base, SIM_VAL, seed, NULL), 0);
        block = tabletop_position(s.slot, s.slot->task->block);
        before[0] = block[0], before[1] = block[1];
        for (t = 0; t < 30; t++) {          /* over it, down on it, pinch, back */
            float action[SIM_ACTION_DIMS] = { 0, 0, 0, 0, 0, 0, t < 12 ? GRIPPER_OPEN : GRIPPER_CLOSED };

            tabletop_go(s.slot, t < 16 ? -.2 : 0, before[1], t < 6 ? .1 : .012, action);
            assert_int_equal(sim_step(&s.slot->base, action, NULL), 0);
        }
        assert_true(fabs(block[0] - before[0]) < .01);
        assert_false(sim_success(&s.slot->base));
    }
    close_scene(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sort),
        cmocka_unit_test(test_assemble),
        cmocka_unit_test(test_pour),
        cmocka_unit_test(test_tool),
        cmocka_unit_test(test_block_is_out_of_reach),
    };
    struct error error = {0};
    int failed;

    if (sim_suite_open("tabletop", NULL, &suite, &error) < 0) {
        print_error("%s\n", error.text);
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    sim_suite_close(suite);
    return failed;
}
