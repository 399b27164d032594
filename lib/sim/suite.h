/* suite.h - what a suite must offer to stand behind sim.h; internal to lib/sim.
 *
 * A suite is one constant table of functions and one line in sim.c. Its task and slot types begin with the two
 * structs below. Contracts are those of the function of the same name in sim.h; sim.c has already refused NULL,
 * NaN and unknown names. */
#pragma once

#include "sim/sim.h"

struct mujoco_view;

struct sim_suite {
    const struct sim_suite_driver *driver;
    struct sim_options options; /* strings owned */
    void *state;                /* the driver's, from open to close */
};

struct sim_suite_driver {
    const char *name;
    int (*open)(struct sim_suite *suite, struct error *error);  /* are its files here? NULL: it needs none */
    void (*close)(struct sim_suite *suite);                     /* after a successful open. NULL: nothing to undo */
    int (*tasks)(const struct sim_suite *suite, const struct sim_task_info **ret_infos);
    int (*task_open)(struct sim_suite *suite, int task, struct sim_task **ret, struct error *error);
    struct sim_task *(*task_close)(struct sim_task *task);

    int (*slot_new)(struct sim_task *task, struct sim_slot **ret);
    struct sim_slot *(*slot_free)(struct sim_slot *slot);
    void (*slot_rest)(struct sim_slot *slot);                    /* NULL: there is nothing to give up */
    int (*reset)(struct sim_slot *slot, enum sim_split split, uint64_t seed, const char **ret_instruction);
    int (*step)(struct sim_slot *slot, const float *action, bool *ret_success);
    bool (*success)(const struct sim_slot *slot);
    float (*reward)(const struct sim_slot *slot);               /* NULL: it never says */
    const char *(*reason)(const struct sim_slot *slot);          /* NULL: it never says */
    int (*expert)(struct sim_slot *slot, float *ret_action);
    int (*demonstrate)(struct sim_slot *slot, const char *style, uint64_t seed, int step,
                       float *ret_action, float *ret_label);
    int (*proprio)(const struct sim_slot *slot, float *ret);     /* NULL: none */
    int (*perturb)(struct sim_slot *slot, const char *kind, uint64_t seed, int step, int limit);       /* NULL: it cannot */
    size_t (*state_size)(const struct sim_task *task);
    int (*save)(struct sim_slot *slot, void *ret_state);
    int (*restore)(struct sim_slot *slot, const void *state);

    /* Either what the renderer draws, or the picture itself, u8 [height][width][3]; the other is NULL. */
    void (*view)(struct sim_slot *slot, int camera, struct mujoco_view *ret);
    int (*picture)(struct sim_slot *slot, int camera, int height, int width, uint8_t *ret_rgb);
};

struct sim_task {
    const struct sim_suite_driver *driver;
    const struct sim_task_info *info;
    uint64_t serial;            /* unique in this process: the renderer's cache key, never reused */
};

struct sim_slot {
    struct sim_task *task;      /* borrowed */
};

extern const struct sim_suite_driver suite_tabletop, suite_libero_spatial, suite_libero_object, suite_libero_goal,
    suite_libero_10, suite_libero_90, suite_remote;
