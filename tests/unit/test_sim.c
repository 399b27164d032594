/* test_sim: what lib/sim promises: experts, predicates, states as bytes, disjoint splits, refusals, recovery, pictures. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fault.h"
#include "sim/suites/tabletop/tabletop.h"
#include "tests/harness/sanitized.h"

static const char *const names[] = {
    "pick_up_object", "push_to_target", "stack_two_blocks", "open_drawer", "sort_objects", "pour_liquid", "assemble_parts",
    "tool_use"
};
enum { PICK, PUSH, STACK, DRAWER, SORT, POUR, ASSEMBLE, TOOL, TASKS };

static struct sim_suite *suite;
static struct sim_task *tasks[TASKS];
static struct sim_slot *slots[TASKS], *others[TASKS];

static int open_all(void **state _unused_)
{
    struct error error = {0};
    int i, r = sim_suite_open("tabletop", NULL, &suite, &error);

    for (i = 0; i < TASKS && r == 0; i++) {
        r = sim_task_open(suite, names[i], &tasks[i], &error);
        if (r == 0)
            r = sim_slot_new(tasks[i], &slots[i]);
        if (r == 0)
            r = sim_slot_new(tasks[i], &others[i]);
    }
    if (r < 0)
        print_error("%s\n", error_text(&error, r));
    return r;
}

static int close_all(void **state _unused_)
{
    int i;

    for (i = 0; i < TASKS; i++) {
        sim_slot_free(slots[i]);
        sim_slot_free(others[i]);
        sim_task_close(tasks[i]);
    }
    sim_suite_close(suite);
    return 0;
}

/* Let the expert play; returns whether it succeeded within the task's limit. */
static bool expert_plays(struct sim_slot *slot, enum sim_split split, uint64_t seed, int limit, int *ret_steps)
{
    float action[SIM_ACTION_DIMS];
    bool success = false;
    int t;

    assert_int_equal(sim_reset(slot, split, seed, NULL), 0);
    for (t = 0; t < limit && !success; t++) {
        assert_int_equal(sim_expert(slot, action), 0);
        assert_int_equal(sim_step(slot, action, &success), 0);
    }
    *ret_steps = t;
    return success;
}

static void test_experts(void **state _unused_)
{
    enum { EPISODES = SANITIZED ? 20 : 200 };
    int i, e, steps, won, total;

    for (i = 0; i < TASKS; i++) {
        for (e = won = total = 0; e < EPISODES; e++) {
            won += expert_plays(slots[i], SIM_VAL, (uint64_t)e, sim_task_info(tasks[i])->max_steps, &steps);
            total += steps;
        }
        print_message("%s: expert %d/%d, %.1f steps\n", names[i], won, EPISODES, (double)total / EPISODES);
        assert_true(won >= EPISODES * 95 / 100);
    }
}

/* ---- predicates: true just inside, false just outside -------------------------------------------------------- */

struct situation {
    int task;
    double x, y, z;             /* block minus its reference (table place, disc, base); drawer: x = how far out */
    double opening;             /* of the fingers */
    bool success;
};

static const struct situation situations[] = {
    { PICK, 0, 0, 0, ARM_OPEN, false },
    { PICK, 0, 0, 0.079, 0.025, false },
    { PICK, 0, 0, 0.081, 0.025, true },
    { PUSH, 0.031, 0, 0, 0, false },
    { PUSH, 0.022, 0.022, 0, 0, false },
    { PUSH, 0.029, 0, 0, 0, true },
    { PUSH, -0.02, -0.02, 0, 0, true },
    { STACK, 0, 0, 0.05, ARM_OPEN, true },
    { STACK, 0.024, 0, 0.05, ARM_OPEN, true },
    { STACK, 0.026, 0, 0.05, ARM_OPEN, false },
    { STACK, 0, 0, 0.057, ARM_OPEN, false },
    { STACK, 0, 0, 0.043, ARM_OPEN, false },
    { STACK, 0, 0, 0.05, 0.025, false },           /* still held */
    { STACK, 0, 0, 0, ARM_OPEN, false },
    { DRAWER, 0, 0, 0, 0, false },
    { DRAWER, 0.079, 0, 0, 0, false },
    { DRAWER, 0.081, 0, 0, 0, true },
};

static void arrange(struct tabletop_slot *slot, const struct situation *s)
{
    const struct tabletop_task *task = slot->task;
    mjData *data = slot->mujoco.data;
    double at[3] = { 0.05, 0.02, BLOCK_HALF };
    int i;

    if (s->task == DRAWER) {
        data->qpos[task->drawer_qpos] = s->x;
    } else {
        for (i = 0; s->task == PUSH && i < 2; i++)
            at[i] = data->mocap_pos[3 * task->disc + i];
        for (i = 0; s->task == STACK && i < 3; i++)
            data->qpos[task->base_qpos + i] = at[i];
        data->qpos[task->block_qpos] = at[0] + s->x;
        data->qpos[task->block_qpos + 1] = at[1] + s->y;
        data->qpos[task->block_qpos + 2] = at[2] + s->z;
    }
    data->qpos[ARM_LEFT] = data->qpos[ARM_RIGHT] = s->opening;
    mujoco_slot_place(&slot->mujoco);
}

static void test_predicates(void **state _unused_)
{
    size_t i;

    for (i = 0; i < ARRAY_SIZE(situations); i++) {
        struct sim_slot *slot = slots[situations[i].task];

        assert_int_equal(sim_reset(slot, SIM_TRAIN, 1, NULL), 0);
        assert_false(sim_success(slot));
        arrange((struct tabletop_slot *)slot, &situations[i]);
        if (sim_success(slot) != situations[i].success)
            fail_msg("%s, row %zu: should be %s", names[situations[i].task], i, situations[i].success ? "a success" : "none");
    }
}

static void test_success_is_kept(void **state _unused_)
{
    static const float drop[SIM_ACTION_DIMS] = { 0, 0, 0, 0, 0, 0, GRIPPER_OPEN };
    struct tabletop_slot *slot = (struct tabletop_slot *)slots[PICK];
    bool success;
    int t;

    assert_true(expert_plays(slots[PICK], SIM_VAL, 3, 24, &t));
    for (t = 0; t < 10; t++)
        assert_int_equal(sim_step(slots[PICK], drop, &success), 0);
    assert_true(tabletop_position(slot, slot->task->block)[2] < 0.05);     /* it lies on the table again */
    assert_true(success);
    assert_true(sim_success(slots[PICK]));
    assert_int_equal(sim_reset(slots[PICK], SIM_VAL, 3, NULL), 0);
    assert_false(sim_success(slots[PICK]));
}

/* ---- states ----------------------------------------------------------------------------------------------------- */

static void play_noise(struct sim_slot *slot, uint64_t seed, int steps)
{
    float action[SIM_ACTION_DIMS], label[SIM_ACTION_DIMS];
    int t;

    for (t = 0; t < steps; t++) {
        assert_int_equal(sim_demonstrate(slot, "clean", seed, t, action, label), 0);
        assert_int_equal(sim_step(slot, action, NULL), 0);
    }
}

static void test_equal_bytes_have_equal_futures(void **state _unused_)
{
    int i;

    for (i = 0; i < TASKS; i++) {
        size_t n = sim_state_size(tasks[i]);
        _cleanup_free_ char *start = malloc(n), *again = malloc(n), *end = malloc(n), *other_end = malloc(n);

        assert_int_equal(sim_reset(slots[i], SIM_TRAIN, 11, NULL), 0);
        play_noise(slots[i], 5, 8);
        sim_save(slots[i], start);
        play_noise(slots[i], 6, 12);
        sim_save(slots[i], end);
        assert_memory_not_equal(start, end, n);

        assert_int_equal(sim_restore(slots[i], start), 0);      /* the same slot, later */
        sim_save(slots[i], again);
        assert_memory_equal(start, again, n);
        play_noise(slots[i], 6, 12);
        sim_save(slots[i], other_end);
        assert_memory_equal(end, other_end, n);

        assert_int_equal(sim_reset(others[i], SIM_TEST, 99, NULL), 0);  /* another slot with another past */
        play_noise(others[i], 7, 3);
        assert_int_equal(sim_restore(others[i], start), 0);
        play_noise(others[i], 6, 12);
        sim_save(others[i], other_end);
        assert_memory_equal(end, other_end, n);
    }
}

static void test_splits_are_disjoint(void **state _unused_)
{
    struct tabletop_slot *slot = (struct tabletop_slot *)slots[PICK];
    const char *instruction;
    uint64_t seed;
    int split;

    for (split = SIM_TRAIN; split <= SIM_TEST; split++)
        for (seed = 0; seed < 3000; seed++) {
            double cell;

            assert_int_equal(sim_reset(slots[PICK], (enum sim_split)split, seed * 7919, &instruction), 0);
            cell = (arm_hand(&slot->mujoco)[0] + 0.10) / 0.12 * 3 * (1 << 20);
            assert_int_equal((int64_t)floor(cell) % 3, split);          /* no seed of another split can get there */
            assert_true(fabs(cell - floor(cell) - 0.5) < 0.01);
        }
    assert_int_equal(sim_reset(slots[PICK], (enum sim_split)3, 0, NULL), -EINVAL);
}

static void test_states_are_numbered(void **state _unused_)
{
    size_t n = sim_state_size(tasks[STACK]);
    _cleanup_free_ char *a = malloc(n), *b = malloc(n);

    assert_int_equal(sim_reset(slots[STACK], SIM_TRAIN, 42, NULL), 0);
    sim_save(slots[STACK], a);
    play_noise(others[STACK], 1, 0);
    assert_int_equal(sim_reset(others[STACK], SIM_TRAIN, 42, NULL), 0);
    sim_save(others[STACK], b);
    assert_memory_equal(a, b, n);
    assert_int_equal(sim_reset(others[STACK], SIM_TRAIN, 43, NULL), 0);
    sim_save(others[STACK], b);
    assert_memory_not_equal(a, b, n);
}

/* ---- refusals and recovery ---------------------------------------------------------------------------------------- */

static void test_nan_is_refused(void **state _unused_)
{
    size_t n = sim_state_size(tasks[PUSH]);
    _cleanup_free_ char *before = malloc(n), *after = malloc(n);
    float action[SIM_ACTION_DIMS] = {0};
    int i;

    assert_int_equal(sim_reset(slots[PUSH], SIM_TRAIN, 5, NULL), 0);
    sim_save(slots[PUSH], before);
    for (i = 0; i < SIM_ACTION_DIMS; i++) {
        action[i] = NAN;
        assert_int_equal(sim_step(slots[PUSH], action, NULL), -EINVAL);
        action[i] = 0;
    }
    sim_save(slots[PUSH], after);
    assert_memory_equal(before, after, n);
    action[0] = INFINITY;                       /* clipped like any other large number */
    assert_int_equal(sim_step(slots[PUSH], action, NULL), 0);
}

static void expect_broken_then_usable(struct sim_slot *slot)
{
    static const float still[SIM_ACTION_DIMS];
    float action[SIM_ACTION_DIMS];
    int steps;

    assert_int_equal(sim_step(slot, still, NULL), -EIO);
    assert_int_equal(sim_step(slot, still, NULL), -EIO);       /* until it is reset */
    assert_int_equal(sim_expert(slot, action), -EIO);
    assert_true(expert_plays(slot, SIM_VAL, 1, 24, &steps));
}

static void test_broken_simulation(void **state _unused_)
{
    struct tabletop_slot *slot = (struct tabletop_slot *)slots[PICK];

    assert_int_equal(sim_reset(slots[PICK], SIM_TRAIN, 1, NULL), 0);    /* the state blows up */
    slot->mujoco.data->qvel[0] = NAN;
    expect_broken_then_usable(slots[PICK]);

    assert_int_equal(sim_reset(slots[PICK], SIM_TRAIN, 1, NULL), 0);    /* mju_error inside the step */
    assert_int_equal(fault_arm("sim.step=eio@1"), 0);
    expect_broken_then_usable(slots[PICK]);
    assert_int_equal(fault_arm(""), 0);
}

/* Only a step is guarded: an error of MuJoCo's after one ends the process, it does not go back into the step. */
static void test_unguarded(void **state _unused_)
{
    static const float still[SIM_ACTION_DIMS];
    struct tabletop_slot *slot = (struct tabletop_slot *)slots[PICK];
    int status;
    pid_t child;

    assert_int_equal(sim_reset(slots[PICK], SIM_TRAIN, 1, NULL), 0);
    assert_int_equal(sim_step(slots[PICK], still, NULL), 0);
    assert_true(fabs(slot->mujoco.data->time - .1) < 1e-9);
    child = fork();
    if (child == 0) {
        (void)dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        (void)signal(SIGABRT, SIG_DFL);
        mju_error("after the step");
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* What broke while it looked ahead goes on from what was saved, as if it had never looked. */
static void test_restored_after_it_broke(void **state _unused_)
{
    static const float still[SIM_ACTION_DIMS];
    size_t n = sim_state_size(tasks[PICK]);
    _cleanup_free_ char *saved = malloc(n), *after = malloc(n), *again = malloc(n);

    assert_int_equal(sim_reset(slots[PICK], SIM_TRAIN, 1, NULL), 0);
    sim_save(slots[PICK], saved);
    assert_int_equal(sim_step(slots[PICK], still, NULL), 0);
    sim_save(slots[PICK], after);
    assert_int_equal(fault_arm("sim.step=eio@1"), 0);
    assert_int_equal(sim_step(slots[PICK], still, NULL), -EIO);
    assert_int_equal(fault_arm(""), 0);
    assert_int_equal(sim_restore(slots[PICK], saved), 0);
    assert_int_equal(sim_step(slots[PICK], still, NULL), 0);
    sim_save(slots[PICK], again);
    assert_memory_equal(again, after, n);
}

static void test_names(void **state _unused_)
{
    struct error error = {0};
    struct sim_suite *no_suite = NULL;
    struct sim_task *no_task = NULL;

    assert_int_equal(sim_suite_open("tabletops", NULL, &no_suite, &error), -ENOENT);
    assert_non_null(strstr(error.text, "tabletops"));
    assert_int_equal(sim_task_open(suite, "pick", &no_task, &error), -ENOENT);
    assert_non_null(strstr(error.text, "'pick'"));
    assert_null(no_suite);
    assert_null(no_task);
}

/* ---- words and demonstrators --------------------------------------------------------------------------------------- */

static void test_instructions(void **state _unused_)
{
    static const int wordings[TASKS] = {        /* wordings with one colour come three times, with two six times */
        [PICK] = 9, [PUSH] = 9, [STACK] = 18, [DRAWER] = 3, [SORT] = 2 + 6, [POUR] = 3, [ASSEMBLE] = 3, [TOOL] = 9
    };
    char seen[64][96];
    const char *text;
    int i, e, k, n;

    for (i = 0; i < TASKS; i++) {
        for (e = n = 0; e < 200; e++) {
            assert_int_equal(sim_reset(slots[i], SIM_TRAIN, (uint64_t)e, &text), 0);
            assert_int_equal(strspn(text, "abcdefghijklmnopqrstuvwxyz "), strlen(text));
            for (k = 0; k < n && strcmp(seen[k], text) != 0; k++)
                ;
            if (k == n)
                snprintf(seen[n++], sizeof(seen[0]), "%s", text);
        }
        print_message("%s: %d instructions, e.g. \"%s\"\n", names[i], n, seen[0]);
        assert_int_equal(n, wordings[i]);
    }
}

static void test_demonstrators(void **state _unused_)
{
    float action[SIM_ACTION_DIMS], label[SIM_ACTION_DIMS], expert[SIM_ACTION_DIMS];
    double sum = 0, sum2 = 0;
    int seed, i, n = 0;

    for (seed = 0; seed < 400; seed++) {
        assert_int_equal(sim_reset(slots[PICK], SIM_TRAIN, 21, NULL), 0);
        assert_int_equal(sim_expert(slots[PICK], expert), 0);
        assert_int_equal(sim_demonstrate(slots[PICK], "clean", (uint64_t)seed, 0, action, label), 0);
        assert_memory_equal(label, expert, sizeof(label));
        assert_int_equal(sim_demonstrate(slots[PICK], "slow", (uint64_t)seed, 0, action, label), 0);
        assert_memory_equal(label, action, sizeof(label));
        for (i = 0; i < 3; i++, n++) {
            double noise = (double)action[i] - 0.36 * (double)expert[i];

            sum += noise;
            sum2 += noise * noise;
        }
        assert_true(action[6] == expert[6]);
    }
    assert_true(fabs(sum / n) < 0.01);
    assert_true(fabs(sqrt(sum2 / n) - 0.1) < 0.01);
    assert_int_equal(sim_demonstrate(slots[PICK], "hasty", 0, 0, action, label), -EINVAL);
}

/* ---- pictures --------------------------------------------------------------------------------------------------------- */

/* Mean row of the pixels that are clearly orange (fingers) / the most of one primary colour (block); -1: none. */
static double mean_row(const uint8_t *rgb, int size, bool orange)
{
    long n = 0, sum = 0;
    int y, x;

    for (y = 0; y < size; y++)
        for (x = 0; x < size; x++) {
            const uint8_t *p = rgb + 3 * (y * size + x);
            bool is_orange = p[0] > 150 && p[1] > 60 && p[1] < 160 && p[2] < 60;
            bool is_blue = p[2] > p[0] + 80 && p[2] > p[1] + 80;

            if (orange ? is_orange : is_blue) {
                n++;
                sum += y;
            }
        }
    return n ? (double)sum / (double)n : -1;
}

static void test_pictures(void **state _unused_)
{
    enum { SIZE = 64 };
    static uint8_t rgb[SIZE * SIZE * 3], again[SIZE * SIZE * 3];
    _cleanup_free_ char *bytes = malloc(sim_state_size(tasks[PICK]));
    struct sim_renderer *renderer;
    struct error error = {0};
    const char *text;
    uint64_t seed = 0;
    int i;

    if (sim_renderer_open(-1, SIZE, SIZE, &renderer, &error) < 0) {
        print_message("SKIP pictures: %s\n", error.text);
        skip();
    }
    print_message("renderer: %s\n", sim_renderer_name(renderer));
    assert_true(sim_renderer_is_software(renderer));

    do
        assert_int_equal(sim_reset(slots[PICK], SIM_TRAIN, seed++, &text), 0);
    while (!strstr(text, "blue"));
    assert_int_equal(sim_render(renderer, slots[PICK], rgb), 0);
    assert_true(mean_row(rgb, SIZE, true) >= 0);                /* the fingers are seen, */
    assert_true(mean_row(rgb, SIZE, false) > mean_row(rgb, SIZE, true));    /* above the block: the top row comes first */

    play_noise(slots[PICK], 1, 4);                              /* a restored state looks as it did */
    sim_save(slots[PICK], bytes);
    assert_int_equal(sim_render(renderer, slots[PICK], rgb), 0);
    play_noise(slots[PICK], 2, 4);
    for (i = 0; i < TASKS; i++) {
        assert_int_equal(sim_reset(others[i], SIM_TEST, 1, NULL), 0);
        assert_int_equal(sim_render(renderer, others[i], again), 0);
    }
    assert_int_equal(sim_restore(others[PICK], bytes), 0);
    assert_int_equal(sim_render(renderer, others[PICK], again), 0);
    assert_memory_equal(rgb, again, sizeof(rgb));
    sim_renderer_keep(renderer, 2);                             /* nor does one that has had to make room in between */
    for (i = 0; i < TASKS; i++)
        if (i != PICK)
            assert_int_equal(sim_render(renderer, others[i], again), 0);
    assert_int_equal(sim_render(renderer, others[PICK], again), 0);
    assert_memory_equal(rgb, again, sizeof(rgb));
    sim_renderer_close(renderer);

    assert_int_equal(sim_renderer_open(-2, SIZE, SIZE, &renderer, &error), 0);     /* a GPU here, or what there is */
    print_message("auto: %s, %s\n", sim_renderer_name(renderer), sim_renderer_is_software(renderer) ? "software" : "a GPU");
    sim_renderer_close(renderer);
    assert_int_equal(sim_renderer_open(1000, SIZE, SIZE, &renderer, &error), -ENODEV);
    assert_non_null(strstr(error.text, "1000"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_predicates),
        cmocka_unit_test(test_success_is_kept),
        cmocka_unit_test(test_equal_bytes_have_equal_futures),
        cmocka_unit_test(test_splits_are_disjoint),
        cmocka_unit_test(test_states_are_numbered),
        cmocka_unit_test(test_nan_is_refused),
        cmocka_unit_test(test_broken_simulation),
        cmocka_unit_test(test_unguarded),
        cmocka_unit_test(test_restored_after_it_broke),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_instructions),
        cmocka_unit_test(test_demonstrators),
        cmocka_unit_test(test_pictures),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
