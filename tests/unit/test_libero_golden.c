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

#include "sim/suites/libero/assets.h"
#include "sim/suites/libero/check.h"
#include "sim/suites/libero/placement.h"
#include "base/atomic_file.h"
#include "base/npz_write.h"

static struct libero_assets assets;
static char cache[256], missing[480];
static const struct sim_options options = { .cache = cache };

static int find_files(void **state)
{
    struct error error = {0};
    const char *tmp = getenv("TMPDIR");

    (void)state;
    snprintf(cache, sizeof(cache), "%s/gantry-libero-test.%d", tmp ? tmp : "/tmp", (int)getpid());
    if (libero_assets_find(&options, &assets, &error) < 0)
        snprintf(missing, sizeof(missing), "%s", error.text);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    libero_assets_release(&assets);
    return remove_tree(cache);
}

static void need_files(void)
{
    if (missing[0]) {
        printf("skipped: %s\n", missing);
        skip();
    }
}

static const char *need_goldens(void)
{
    const char *goldens = getenv("GANTRY_GOLDENS");
    char path[4096];

    need_files();
    snprintf(path, sizeof(path), "%s/libero/models", goldens ? goldens : "");
    if (!goldens || access(path, R_OK) < 0) {
        printf("skipped: GANTRY_GOLDENS holds no libero/models\n");
        skip();
    }
    return goldens;
}

static struct libero_task *open_task(int suite, int index)
{
    struct libero_task *task = NULL;
    struct error error = {0};

    if (libero_task_open(&assets, cache, &libero_suites[suite], index, &task, &error) < 0)
        fail_msg("%s", error.text);
    return task;
}

enum { SPATIAL, OBJECT, GOAL, LONG };

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
    _cleanup_(libero_task_closep) struct libero_task *task = open_task(suite, index);
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

static void test_table(void **state) { (void)state; compare_task(need_goldens(), GOAL, 0); }
static void test_floor(void **state) { (void)state; compare_task(need_goldens(), OBJECT, 0); }
static void test_kitchen(void **state) { (void)state; compare_task(need_goldens(), LONG, 9); }
static void test_living_room(void **state) { (void)state; compare_task(need_goldens(), LONG, 6); }
static void test_study(void **state) { (void)state; compare_task(need_goldens(), LONG, 5); }

/* In a drawer that is open, and on a cabinet. */
static void test_drawn_on_things(void **state)
{
    _cleanup_(libero_task_closep) struct libero_task *task = NULL;

    (void)state;
    need_files();
    task = open_task(SPATIAL, 4);
    compare_draws(task);
}

/* Both cameras at two sizes, at a reset and after 20 steps, to one step of 255. */
static void test_pictures(void **state)
{
    const char *goldens = need_goldens();
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
    if (sim_suite_open("libero_10", &options, &suite, &error) < 0 ||
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
    snprintf(path, sizeof(path), "%s/libero/physics/libero_10_9_row0.npz", need_goldens());
    task = open_task(LONG, 9);
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
    need_files();
    task = open_task(OBJECT, 0);
    snprintf(path, sizeof(path), "%s/poor.npz", cache);
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
    need_files();
    assert_int_equal(file_read("tests/golden/libero/fixture_poses.txt", 1 << 20, &text, &n), 0);
    for (size_t t = 0; t < ARRAY_SIZE(tasks); t++) {
        _cleanup_(libero_task_closep) struct libero_task *task = open_task(tasks[t].suite, tasks[t].index);
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
    struct libero_assets newer = assets;
    _cleanup_(libero_task_closep) struct libero_task *old = NULL, *new = NULL;
    struct error error = {0};
    int geom;

    (void)state;
    need_files();
    newer.version = ROBOSUITE_1_4_1;
    old = open_task(LONG, 9);
    if (libero_task_open(&newer, cache, &libero_suites[LONG], 9, &new, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(new->model->ngeom, old->model->ngeom + 1);
    assert_int_equal(mj_name2id(old->model, mjOBJ_GEOM, "robot0_link7_collision"), -1);
    geom = mj_name2id(new->model, mjOBJ_GEOM, "robot0_link7_collision");
    assert_true(geom > 0 && new->model->geom_group[geom] == 0 && new->model->geom_contype[geom] == 1);
    assert_int_equal(new->model->nq, old->model->nq);
}

/* ---- behind sim.h ----------------------------------------------------------------------------------------- */

struct world {
    struct sim_suite *suite;
    struct sim_task *task;
    struct sim_slot *a, *b;
};

static void open_world(struct world *w)
{
    struct error error = {0};
    const char *name = libero_suites[GOAL].tasks[7];

    need_files();
    if (sim_suite_open("libero_goal", &options, &w->suite, &error) < 0 || sim_task_open(w->suite, name, &w->task, &error) < 0)
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
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_bad_actions),
        cmocka_unit_test(test_success),
        cmocka_unit_test(test_expert),
    };

    return cmocka_run_group_tests(tests, find_files, clean_up);
}
