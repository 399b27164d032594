/* task.h - one opened LIBERO task: the shared constant model, and what names in the BDDL mean in it.
 *
 *   libero_task_open(&assets, cache, suite, index, &task, error) -> slots (libero.h) -> libero_task_close
 *
 * Everything here is constant after opening; slots and threads share it. */
#pragma once

#include "sim/suite.h"
#include "sim/suites/libero/controller.h"
#include "sim/suites/libero/init_states.h"
#include "sim/suites/libero/model.h"

enum { LIBERO_MAX_THINGS = 2 * BDDL_MAX, LIBERO_MAX_JOINTS = 8, LIBERO_MAX_FIXTURES = 8, LIBERO_CAMERAS = 2 };
enum { LIBERO_PROMPT_MAX = 200 };

/* An object or a fixture in the model. */
struct libero_thing {
    const char *name;           /* borrowed from the problem */
    const struct libero_category *category;
    bool movable;
    int body;                   /* <name>_main */
    int free_qpos, free_dof;    /* movable: its free joint's first qpos and dof */
    int joints[LIBERO_MAX_JOINTS], n_joints;    /* qpos of its own (not free) joints, document order */
    double bottom, top, radius; /* m, for placement: bottom_site z, top_site z, horizontal_radius_site x */
};

/* A region: a box-shaped site. */
struct libero_region {
    const char *name;
    int site;                   /* -1: nothing in the scene bears this name */
    int parent;                 /* thing index; -1: the work surface */
    int joints[LIBERO_MAX_JOINTS], n_joints;    /* qpos of the joints that move it (a drawer's slide) */
};

struct libero_task {
    struct sim_task base;
    const struct libero_suite *suite;
    int index;
    struct bddl_problem *problem;
    const struct libero_arena *arena;
    mjModel *model;
    struct init_states init;    /* rows of the .pruned_init file: the test states */
    char prompt[LIBERO_PROMPT_MAX];           /* what policies read: the file's stem without the scene, blanks for underscores */

    struct libero_thing things[LIBERO_MAX_THINGS];      /* objects, then fixtures without the work surface */
    int n_things, n_objects;
    struct libero_region regions[BDDL_MAX];             /* as in the problem */
    int16_t *geom_owner;        /* (ngeom): thing whose collision geom (group 0) it is; -1 */
    enum sim_substeps substeps; /* of the suite's options */
    int grip_site, hand_body;
    int cameras[LIBERO_CAMERAS];        /* agentview, robot0_eye_in_hand */
    int burner_site, stove;     /* flat_stove's burner and its thing; -1: none in this scene */
    double (*reset_fixtures)[LIBERO_MAX_FIXTURES][7];   /* (init.rows): fixtures after reset number row + 1 of seed 0 */
    struct controller rest;     /* copied at the reset posture: what the first control step after a reset uses */
};

/* -ENOENT, -EINVAL: missing or unexpected files, each in one line. */
int libero_task_open(const struct libero_assets *assets, const char *cache, const struct libero_suite *suite, int index,
                     struct libero_task **ret, struct error *error);
struct libero_task *libero_task_close(struct libero_task *task);
DEFINE_FREEP(struct libero_task, libero_task_close)

/* Index into things or regions; -1: none of that name. */
int libero_thing(const struct libero_task *task, const char *name);
int libero_region(const struct libero_task *task, const char *name);
/* pick_up_the_... -> "pick up the ..."; KITCHEN_SCENE3_turn_on... -> "turn on ..." */
void libero_prompt(const char *stem, char *ret, size_t n);
