/* LIBERO behind sim.h: states saved and restored, actions that are none, success, the expert.
 *
 * Skipped where LIBERO's files are missing. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sim/suites/libero/libero.h"
#include "tests/harness/libero_lab.h"

struct world {
    struct sim_suite *suite;
    struct sim_task *task;
    struct sim_slot *a, *b;
};

static void open_world(struct world *w)
{
    struct error error = {0};
    const char *name = libero_suites[GOAL].tasks[7];

    libero_lab_need_files();
    if (sim_suite_open("libero_goal", &libero.options, &w->suite, &error) < 0 || sim_task_open(w->suite, name, &w->task, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(sim_slot_new(w->task, &w->a), 0);
    assert_int_equal(sim_slot_new(w->task, &w->b), 0);
}

static void close_world(struct world *w)
{
    sim_slot_free(w->a);
    sim_slot_free(w->b);
    sim_task_close(w->task);
    sim_suite_close(w->suite);
}

static void play(struct sim_slot *slot, int steps, uint8_t *ret_state)
{
    for (int t = 0; t < steps; t++) {
        const float action[7] = { 0.3f * (float)(t % 3), -0.2f, -0.4f, 0.05f, 0, -0.1f * (float)(t % 2), t < 3 ? -1 : 1 };

        assert_int_equal(sim_step(slot, action, NULL), 0);
    }
    sim_save(slot, ret_state);
}

static void test_states(void **state)
{
    struct world w;
    _cleanup_free_ uint8_t *one = NULL, *two = NULL, *saved = NULL;
    const char *text;
    float proprio[8];
    size_t n;

    (void)state;
    open_world(&w);
    n = sim_state_size(w.task);
    one = malloc(n);
    two = malloc(n);
    saved = malloc(n);
    for (int split = SIM_TRAIN; split <= SIM_TEST; split++) {       /* same numbers, same state, same future */
        assert_int_equal(sim_reset(w.a, (enum sim_split)split, 5, &text), 0);
        assert_string_equal(text, "turn on the stove");
        assert_int_equal(sim_reset(w.b, (enum sim_split)split, 5, NULL), 0);
        sim_save(w.a, saved);
        play(w.a, 4, one);
        play(w.b, 4, two);
        assert_memory_equal(one, two, n);
        assert_int_equal(sim_restore(w.b, saved), 0);               /* and from a saved state */
        play(w.b, 4, two);
        assert_memory_equal(one, two, n);
        assert_false(sim_success(w.a));
    }
    assert_int_equal(sim_reset(w.a, SIM_TRAIN, 5, NULL), 0);
    assert_int_equal(sim_reset(w.b, SIM_VAL, 5, NULL), 0);
    sim_save(w.a, one);
    sim_save(w.b, two);
    assert_memory_not_equal(one, two, n);
    assert_int_equal(sim_proprio(w.a, proprio), 0);
    assert_true(proprio[2] > 0.9f && proprio[2] < 1.4f && proprio[6] > 0.02f);      /* above the table, fingers open */
    close_world(&w);
}

static void test_bad_actions(void **state)
{
    const float nan_action[7] = { 0, NAN };
    struct world w;

    (void)state;
    open_world(&w);
    assert_int_equal(sim_reset(w.a, SIM_TEST, 0, NULL), 0);
    assert_int_equal(sim_step(w.a, nan_action, NULL), -EINVAL);
    close_world(&w);
}

/* Turning the knob by hand is what success means; it lights the burner one control step later, and is remembered. */
static void test_success(void **state)
{
    struct world w;
    struct libero_slot *slot;
    const float still[7] = { 0, 0, 0, 0, 0, 0, -1 };
    struct mujoco_view view;
    const struct libero_task *task;
    bool success = true;

    (void)state;
    open_world(&w);
    slot = (struct libero_slot *)w.a;
    task = slot->task;
    assert_int_equal(sim_reset(w.a, SIM_TEST, 3, NULL), 0);
    assert_int_equal(sim_step(w.a, still, &success), 0);
    assert_false(success);
    slot->mujoco.data->qpos[task->things[task->stove].joints[0]] = 0.6;
    assert_int_equal(sim_step(w.a, still, &success), 0);
    assert_true(success);
    libero_view(slot, 0, &view);
    assert_true(view.model->site_rgba[4 * task->burner_site + 3] == 0);
    assert_int_equal(sim_step(w.a, still, NULL), 0);
    libero_view(slot, 0, &view);
    assert_true(view.model->site_rgba[4 * task->burner_site + 3] == 1);
    slot->mujoco.data->qpos[task->things[task->stove].joints[0]] = 0.0;
    assert_int_equal(sim_step(w.a, still, &success), 0);
    assert_true(success);
    close_world(&w);
}

/* suite.chain: plain shows the same scene by other pixels. */
static void compare_plain(const uint8_t *as_benchmark, const uint8_t *plain, size_t n)
{
    double difference = 0;

    for (size_t i = 0; i < n; i++)
        difference += (double)abs(as_benchmark[i] - plain[i]) / (double)n;
    assert_true(difference > 0 && difference < 8);
}

/* The expert's memory is part of the state: from saved bytes it goes on as if nothing had happened. It solves the task, and what
 * its pictures cannot show is left out of them without a trace. */
static void test_expert(void **state)
{
    enum { SIDE = 64 };
    static uint8_t with[SIDE * SIDE * 3], without[SIDE * SIDE * 3], other[SIDE * SIDE * 3];
    _cleanup_free_ uint8_t *one = NULL, *two = NULL;
    struct sim_renderer *whole = NULL, *culling = NULL, *plain = NULL;
    struct error error = {0};
    struct world w;
    float action[7];
    bool success = false;
    size_t n;

    (void)state;
    open_world(&w);
    n = sim_state_size(w.task);
    one = malloc(n);
    two = malloc(n);
    if (sim_renderer_open(-1, SIDE, SIDE, &whole, &error) == 0 && sim_renderer_open(-1, SIDE, SIDE, &plain, &error) == 0 &&
        sim_renderer_open(-1, SIDE, SIDE, &culling, &error) == 0) {
        sim_renderer_set_cull(whole, false);
        sim_renderer_set_plain(plain, true);
    }
    assert_int_equal(sim_reset(w.a, SIM_TRAIN, 2, NULL), 0);
    for (int t = 0; t < 300 && !success; t++) {
        for (int camera = 0; camera < 2 && culling && t % 24 == 0; camera++) {
            assert_int_equal(sim_render_camera(whole, w.a, camera, without), 0);
            assert_int_equal(sim_render_camera(culling, w.a, camera, with), 0);
            assert_memory_equal(with, without, sizeof(with));
            assert_int_equal(sim_render_camera(plain, w.a, camera, other), 0);
            compare_plain(with, other, sizeof(with));
        }
        if (t % 16 == 0) {
            sim_save(w.a, one);
            assert_int_equal(sim_restore(w.b, one), 0);
        }
        assert_int_equal(sim_expert(w.a, action), 0);
        assert_int_equal(sim_step(w.a, action, &success), 0);
        assert_int_equal(sim_expert(w.b, action), 0);
        assert_int_equal(sim_step(w.b, action, NULL), 0);
        sim_save(w.a, one);
        sim_save(w.b, two);
        assert_memory_equal(one, two, n);
    }
    assert_true(success);
    sim_renderer_close(whole);
    sim_renderer_close(plain);
    sim_renderer_close(culling);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_bad_actions),
        cmocka_unit_test(test_success),
        cmocka_unit_test(test_expert),
    };

    return cmocka_run_group_tests(tests, libero_lab_find, libero_lab_clean_up);
}
