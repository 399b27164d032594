/* The LIBERO suites against the original's reference data: a few tasks here (one of each arena), all by `make libero-check`.
 *
 * Needs LIBERO_ROOT, robosuite's files (make libero-assets) and, for the comparisons, GANTRY_GOLDENS; skips what is missing. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/npz_write.h"
#include "sim/suites/libero/check.h"
#include "sim/suites/libero/placement.h"
#include "tests/harness/libero_lab.h"

struct bounds { double lo, hi; };

static void widen(struct bounds *bounds, double x, bool first)
{
    bounds->lo = first ? x : fmin(bounds->lo, x);
    bounds->hi = first ? x : fmax(bounds->hi, x);
}

/* The rows of .pruned_init were drawn by the original's samplers: ours draw as far around, and what does not vary is the same. */
static void compare_draws(const struct libero_task *task)
{
    enum { DRAWS = 60 };
    _cleanup_free_ struct placement_stream *stream = malloc(sizeof(*stream));
    _cleanup_free_ struct placement *drawn = malloc(sizeof(*drawn));
    _cleanup_free_ struct bounds *ours = calloc((size_t)task->init.width, sizeof(*ours));
    _cleanup_free_ struct bounds *theirs = calloc((size_t)task->init.width, sizeof(*theirs));
    _cleanup_free_ double *row = calloc((size_t)task->init.width, sizeof(*row));
    mjData *scratch = mj_makeData(task->model);

    placement_seed(stream, 1);
    for (int k = 0; k < DRAWS; k++) {
        assert_int_equal(placement_draw(stream, task, scratch, drawn, NULL), 0);
        placement_state(task, drawn, .02, row);
        for (int i = 0; i < task->init.width; i++)
            widen(&ours[i], row[i], k == 0);
    }
    mj_deleteData(scratch);
    for (int k = 0; k < task->init.rows; k++)
        for (int i = 0; i < task->init.width; i++)
            widen(&theirs[i], task->init.values[k * task->init.width + i], k == 0);
    for (int i = 0; i < task->init.width; i++) {
        const double span = theirs[i].hi - theirs[i].lo, slack = (i <= ARM ? 1 : .3) * span + 1e-9;     /* the arm's is noise */

        if (ours[i].lo < theirs[i].lo - slack || ours[i].hi > theirs[i].hi + slack ||
            ours[i].hi - ours[i].lo < .5 * span - 1e-9)
            fail_msg("%s/%d: number %d of a drawn state is %.9g to %.9g, in the file %.9g to %.9g", task->suite->name,
                     task->index, i, ours[i].lo, ours[i].hi, theirs[i].lo, theirs[i].hi);
    }
}

/* Everything that the goldens say about one task. */
static void compare_task(const char *goldens, int suite, int index)
{
    _cleanup_(libero_task_closep) struct libero_task *task = libero_lab_open(suite, index);
    static const struct { const char *kind, *suffix; } files[] = {
        { "models", ".json.gz" }, { "physics", "_row0.npz" }, { "physics", "_row7.npz" }, { "predicates", ".npz" },
    };

    compare_draws(task);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        struct check_result result = {0};
        struct error error = {0};
        char path[4096];

        snprintf(path, sizeof(path), "%s/libero/%s/%s_%d%s", goldens, files[i].kind, libero_suites[suite].name, index,
                 files[i].suffix);
        if (access(path, R_OK) < 0)
            continue;
        for (int order = LIBERO_REFERENCE; order <= (i == 1 || i == 2 ? LIBERO_ONEPASS : LIBERO_REFERENCE); order++) {
            int r = i == 0 ? check_model(task, path, &result, &error) :
                    i == 3 ? check_predicates(task, path, &result, &error) :
                             check_physics(task, path, (enum libero_order)order, &result, &error);

            if (r < 0)
                fail_msg("%s", error.text);
            if (!check_passed(&result))
                fail_msg("%s, order %d: %s (%d wrong, %d contact counts differ)", path, order, result.where, result.wrong,
                         result.contacts_differ);
            assert_true(result.compared > 0);
        }
    }
}

static void test_table(void **state) { (void)state; compare_task(libero_lab_need_goldens(), GOAL, 0); }
static void test_floor(void **state) { (void)state; compare_task(libero_lab_need_goldens(), OBJECT, 0); }
static void test_kitchen(void **state) { (void)state; compare_task(libero_lab_need_goldens(), LONG, 9); }
static void test_living_room(void **state) { (void)state; compare_task(libero_lab_need_goldens(), LONG, 6); }
static void test_study(void **state) { (void)state; compare_task(libero_lab_need_goldens(), LONG, 5); }

/* In a drawer that is open, and on a cabinet. */
static void test_drawn_on_things(void **state)
{
    _cleanup_(libero_task_closep) struct libero_task *task = NULL;

    (void)state;
    libero_lab_need_files();
    task = libero_lab_open(SPATIAL, 4);
    compare_draws(task);
}

/* Both cameras at two sizes, at a reset and after 20 steps, to one step of 255. */
static void test_pictures(void **state)
{
    const char *goldens = libero_lab_need_goldens();
    struct sim_renderer *renderers[2] = { NULL, NULL };
    struct sim_suite *suite;
    struct sim_task *task;
    struct check_result result;
    struct error error = {0};
    char path[4096];

    (void)state;
    for (int i = 0; i < 2; i++)
        if (sim_renderer_open(-1, 128 << i, 128 << i, &renderers[i], &error) < 0) {
            printf("skipped: %s\n", error.text);
            skip();
        }
    snprintf(path, sizeof(path), "%s/libero/images/libero_10_9_states.npz", goldens);
    if (sim_suite_open("libero_10", &libero.options, &suite, &error) < 0 ||
        sim_task_open(suite, libero_suites[LONG].tasks[9], &task, &error) < 0 ||
        check_images((const struct libero_task *)task, path, renderers, &result, &error) < 0)
        fail_msg("%s", error.text);
    if (!check_passed(&result))
        fail_msg("%s", result.where);
    assert_int_equal(result.compared, 8);
    sim_task_close(task);
    sim_suite_close(suite);
    for (int i = 0; i < 2; i++)
        sim_renderer_close(renderers[i]);
}

/* A comparison that cannot fail proves nothing: the same rollout from another row must not agree. */
static void test_comparison_can_fail(void **state)
{
    _cleanup_(libero_task_closep) struct libero_task *task = NULL;
    struct check_result result;
    struct error error = {0};
    char path[4096];

    (void)state;
    snprintf(path, sizeof(path), "%s/libero/physics/libero_10_9_row0.npz", libero_lab_need_goldens());
    task = libero_lab_open(LONG, 9);
    task->rest.x[2] += 1e-6;    /* the first step's goal is a micrometre off */
    if (check_physics(task, path, LIBERO_REFERENCE, &result, &error) < 0)
        fail_msg("%s", error.text);
    assert_false(check_passed(&result));
    assert_int_equal(result.first_bad, 0);
}

/* ---- reference files that are cut short, or say nothing ------------------------------------------------------ */

static void add(struct npz *npz, const char *name, const char *descr, size_t rows, size_t columns, const void *bytes)
{
    struct error error = {0};

    if (npz_add(npz, name, descr, (const size_t[]) { rows, columns }, 2, bytes, &error) < 0)
        fail_msg("%s", error.text);
}

static void create(const char *path, struct npz *npz)
{
    struct error error = {0};

    if (npz_create(path, npz, &error) < 0)
        fail_msg("%s", error.text);
    add(npz, "fixture_names", "<U1", 0, 1, "");
    add(npz, "fixture_pose", "<f8", 0, 7, "");
}

/* One predicate after the first `states` test states; what is said of all of them, but for `cut`, which says it of none. */
static void write_truths(const char *path, const struct libero_task *task, size_t states, const char *cut)
{
    static const char *const names[] = { "fwd", "step", "fwd_success", "step_done", "fwd_ncon" };
    struct error error = {0};
    struct npz npz;
    char statement[200];

    create(path, &npz);
    snprintf(statement, sizeof(statement), "up %s", task->things[0].name);
    if (npz_add_text(&npz, "predicates", statement, &error) < 0)
        fail_msg("%s", error.text);
    add(&npz, "state_names", "<U1", states, 1, (const uint32_t[4]) { 'a', 'b', 'c', 'd' });
    add(&npz, "states", "<f8", states, (size_t)task->init.width, task->init.values);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        add(&npz, names[i], "|u1", cut && strcmp(cut, names[i]) == 0 ? 0 : states, 1, (const uint8_t[4]) {0});
    if (npz_close(&npz, &error) < 0)
        fail_msg("%s", error.text);
}

/* One step in which nothing moved, but for qpos, which is no number. */
static void write_rollout(const char *path, const struct libero_task *task)
{
    const struct { const char *name; size_t columns; } arrays[] = {
        { "actions", 7 }, { "qacc_warmstart0", (size_t)task->model->nv }, { "ctrl", (size_t)task->model->nu }, { "ncon", 1 },
        { "done", 1 }, { "sens_noise", 1 }, { "obs_eef_pos", 3 }, { "obs_eef_quat", 4 }, { "obs_joint_pos", ARM },
        { "obs_joint_vel", ARM }, { "obs_gripper_qpos", 2 }, { "obs_gripper_qvel", 2 },
    };
    double zeros[200] = {0}, none[200];
    struct error error = {0};
    struct npz npz;

    assert_true(task->init.width < 200);
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        none[i] = NAN;
    create(path, &npz);
    add(&npz, "init_state", "<f8", 1, (size_t)task->init.width, task->init.values);
    add(&npz, "qpos", "<f8", 1, (size_t)task->model->nq, none);
    for (size_t i = 0; i < ARRAY_SIZE(arrays); i++)
        add(&npz, arrays[i].name, "<f8", 1, arrays[i].columns, zeros);
    if (npz_close(&npz, &error) < 0)
        fail_msg("%s", error.text);
}

static void test_poor_references(void **state)
{
    static const char *const cuts[] = { "fwd", "step", "fwd_success", "step_done", "fwd_ncon" };
    _cleanup_(libero_task_closep) struct libero_task *task = NULL;
    struct check_result result;
    struct error error = {0};
    char path[300], wanted[80];

    (void)state;
    libero_lab_need_files();
    task = libero_lab_open(OBJECT, 0);
    snprintf(path, sizeof(path), "%s/poor.npz", libero.cache);
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        write_truths(path, task, 2, cuts[i]);
        assert_int_equal(check_predicates(task, path, &result, &error), -EINVAL);
        snprintf(wanted, sizeof(wanted), ": %s: 0 rows, expected 2", cuts[i]);
        assert_non_null(strstr(error.text, wanted));
    }
    write_truths(path, task, 0, NULL);          /* nothing differs, as nothing was compared */
    assert_int_equal(check_predicates(task, path, &result, &error), 0);
    assert_false(check_passed(&result));
    write_rollout(path, task);
    assert_int_equal(check_physics(task, path, LIBERO_REFERENCE, &result, &error), 0);
    assert_true(isinf(result.qpos));
    assert_non_null(strstr(result.where, "qpos"));
}

/* Resets 1, 2, 7 and 50 of every task with fixtures that is opened above, against the original's. */
static void test_fixture_poses(void **state)
{
    static const struct { int suite, index; } tasks[] = { { GOAL, 0 }, { LONG, 9 }, { LONG, 5 } };
    _cleanup_free_ char *text = NULL;
    size_t n;

    (void)state;
    libero_lab_need_files();
    assert_int_equal(file_read("tests/golden/libero/fixture_poses.txt", 1 << 20, &text, &n), 0);
    for (size_t t = 0; t < ARRAY_SIZE(tasks); t++) {
        _cleanup_(libero_task_closep) struct libero_task *task = libero_lab_open(tasks[t].suite, tasks[t].index);
        char key[100];
        int found = 0;

        snprintf(key, sizeof(key), "%s/%d ", task->suite->name, task->index);
        for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
            char name[100];
            double pose[7];
            int reset, thing;

            if (strncmp(line, key, strlen(key)) != 0 ||
                sscanf(line + strlen(key), "%99s %d %lf %lf %lf %lf %lf %lf %lf", name, &reset, &pose[0], &pose[1], &pose[2],
                       &pose[3], &pose[4], &pose[5], &pose[6]) != 9)
                continue;
            thing = libero_thing(task, name);
            assert_true(thing >= task->n_objects);
            for (int k = 0; k < 7; k++)
                if (!(fabs(task->reset_fixtures[reset - 1][thing - task->n_objects][k] - pose[k]) <= 1e-15))
                    fail_msg("%s%s, reset %d, number %d: %.17g, expected %.17g", key, name, reset, k,
                             task->reset_fixtures[reset - 1][thing - task->n_objects][k], pose[k]);
            found++;
        }
        assert_true(found >= 4);
    }
}

/* robosuite 1.4.1's arm has one more geom that collides; the rest stays in order. */
static void test_link7(void **state)
{
    struct libero_assets newer = libero.assets;
    _cleanup_(libero_task_closep) struct libero_task *old = NULL, *new = NULL;
    struct error error = {0};
    int geom;

    (void)state;
    libero_lab_need_files();
    newer.version = ROBOSUITE_1_4_1;
    old = libero_lab_open(LONG, 9);
    if (libero_task_open(&newer, libero.cache, &libero_suites[LONG], 9, &new, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(new->model->ngeom, old->model->ngeom + 1);
    assert_int_equal(mj_name2id(old->model, mjOBJ_GEOM, "robot0_link7_collision"), -1);
    geom = mj_name2id(new->model, mjOBJ_GEOM, "robot0_link7_collision");
    assert_true(geom > 0 && new->model->geom_group[geom] == 0 && new->model->geom_contype[geom] == 1);
    assert_int_equal(new->model->nq, old->model->nq);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_kitchen),
        cmocka_unit_test(test_living_room),
        cmocka_unit_test(test_study),
        cmocka_unit_test(test_drawn_on_things),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_comparison_can_fail),
        cmocka_unit_test(test_poor_references),
        cmocka_unit_test(test_fixture_poses),
        cmocka_unit_test(test_link7),
    };

    return cmocka_run_group_tests(tests, libero_lab_find, libero_lab_clean_up);
}
