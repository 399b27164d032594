/* What a picture cannot show is left out of it, and only that: a ball behind the camera goes, unless a mirror shows it; pictures
 * are the same to the bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "sim/cull.h"
#include "sim/mujoco_slot.h"
#include "sim/sim.h"

/* The camera at the origin looks along +y; before it a box whose upper side (towards the camera) may reflect. */
static const char scene_text[] =
    "<mujoco><asset><material name='m' reflectance='%s'/></asset><worldbody>"
    "<light pos='0 0 3' castshadow='%s'/><camera name='c' pos='0 0 0' xyaxes='1 0 0 0 0 1'/>"
    "<geom name='mirror' type='box' size='.5 .5 .01' pos='0 2 0' euler='90 0 0' material='m' rgba='1 1 1 1'/>"
    "<geom name='before' type='sphere' size='.1' pos='.3 1 0'/>"
    "<geom name='behind' type='sphere' size='.1' pos='0 -1 0'/>"
    "<geom name='behind_aside' type='sphere' size='.1' pos='9 -1 0'/>"
    "<geom name='edge' type='sphere' size='.1' pos='%s'/>"
    "<geom name='floor' type='plane' size='0 0 1' pos='0 0 -1'/>"
    "</worldbody></mujoco>";

static bool is_kept(const char *reflectance, const char *shadow, const char *edge, const char *name)
{
    char text[2000];
    const struct mujoco_file file = {"scene.xml", text};
    struct error error = {0};
    mjvCamera camera;
    mjvOption option;
    mjvScene scene;
    mjModel *model;
    mjData *data;
    bool kept = false;

    snprintf(text, sizeof(text), scene_text, reflectance, shadow, edge);
    if (mujoco_compile(&file, 1, &model, &error) < 0)
        fail_msg("%s", error.text);
    data = mj_makeData(model);
    mj_forward(model, data);
    mjv_defaultOption(&option);
    mjv_defaultCamera(&camera);
    mjv_defaultScene(&scene);
    mjv_makeScene(model, &scene, 100);
    camera.type = mjCAMERA_FIXED;
    camera.fixedcamid = 0;
    mjv_updateScene(model, data, &option, NULL, &camera, mjCAT_ALL, &scene);
    (void)scene_cull(model, &scene, 64, 64);
    for (int i = 0; i < scene.ngeom; i++)
        kept |= scene.geoms[i].objtype == mjOBJ_GEOM && scene.geoms[i].objid == mj_name2id(model, mjOBJ_GEOM, name);
    mjv_freeScene(&scene);
    mj_deleteData(data);
    mj_deleteModel(model);
    return kept;
}

static void test_frustum(void **state)
{
    (void)state;
    assert_true(is_kept("0", "false", "3 1 0", "before"));
    assert_true(is_kept("0", "false", "3 1 0", "floor"));
    assert_false(is_kept("0", "false", "3 1 0", "behind"));
    assert_false(is_kept("0", "false", "3 1 0", "edge"));
    assert_true(is_kept("0", "false", ".5 1 0", "edge"));   /* half of 45 degrees at 1 m: .414; it reaches in */
    assert_false(is_kept("0", "false", ".6 1 0", "edge"));    /* .58, by the box around it */
}

static void test_mirror(void **state)
{
    (void)state;
    assert_true(is_kept(".5", "false", "3 1 0", "behind"));         /* one sees it in the mirror */
    assert_false(is_kept(".5", "false", "3 1 0", "behind_aside"));
    assert_false(is_kept(".5", "false", "3 1 0", "edge"));
    for (int up = 0; up < 2; up++) {            /* the mirror shows what is within a quarter of the way, 5 m away */
        assert_true(is_kept(".5", "false", up ? "0 -1 1.1" : "1.1 -1 0", "edge"));
        assert_false(is_kept(".5", "false", up ? "0 -1 1.7" : "1.7 -1 0", "edge"));
    }
}

static void test_shadows(void **state)
{
    (void)state;
    assert_true(is_kept("0", "true", "3 1 0", "behind"));
}

/* The built-in suite, all tasks, along an episode. */
static void test_pictures(void **state)
{
    enum { SIDE = 64 };
    static uint8_t with[SIDE * SIDE * 3], without[SIDE * SIDE * 3];
    struct sim_renderer *renderer[2];
    const struct sim_task_info *infos;
    struct sim_suite *suite;
    struct error error = {0};
    int n;

    (void)state;
    for (int i = 0; i < 2; i++) {
        if (sim_renderer_open(-1, SIDE, SIDE, &renderer[i], &error) < 0)
            fail_msg("%s", error.text);
        sim_renderer_set_cull(renderer[i], i == 1);
    }
    assert_int_equal(sim_suite_open("tabletop", NULL, &suite, &error), 0);
    n = sim_suite_tasks(suite, &infos);
    for (int t = 0; t < n; t++) {
        struct sim_task *task;
        struct sim_slot *slot;
        float action[SIM_ACTION_DIMS];

        assert_int_equal(sim_task_open(suite, infos[t].name, &task, &error), 0);
        assert_int_equal(sim_slot_new(task, &slot), 0);
        assert_int_equal(sim_reset(slot, SIM_TEST, 1, NULL), 0);
        for (int step = 0; step < 12; step++) {
            assert_int_equal(sim_render(renderer[0], slot, without), 0);
            assert_int_equal(sim_render(renderer[1], slot, with), 0);
            assert_memory_equal(with, without, sizeof(with));
            assert_int_equal(sim_expert(slot, action), 0);
            assert_int_equal(sim_step(slot, action, NULL), 0);
        }
        sim_slot_free(slot);
        sim_task_close(task);
    }
    sim_suite_close(suite);
    for (int i = 0; i < 2; i++)
        sim_renderer_close(renderer[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frustum),
        cmocka_unit_test(test_mirror),
        cmocka_unit_test(test_shadows),
        cmocka_unit_test(test_pictures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
