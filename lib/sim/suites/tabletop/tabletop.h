/* tabletop.h - the built-in suite, inside: what a task file provides and what it may use.
 *
 * A task is one row of functions: place the scene, judge it, play it. Task files see the slot's MuJoCo state through
 * the helpers here and in arm.h; tabletop.c does the rest (state bytes, wordings, colours, the success latch).
 * Everything an episode remembers outside MuJoCo is in `struct tabletop_memory`, plain bytes: saving it with MuJoCo's
 * integrator state makes a state complete, so equal bytes have equal futures. */
#pragma once

#include "base/philox.h"
#include "sim/suite.h"
#include "sim/suites/tabletop/arm.h"

struct tabletop_memory {
    struct arm_target target;
    uint32_t phase, held, turn;     /* the expert's; what they mean is the task's business */
    uint32_t latched;               /* 1: the task's predicate has held once in this episode */
    uint32_t color[2];              /* of block and base: index into the palette */
    uint32_t wording;               /* index into the task's wordings */
};

struct tabletop_slot {
    struct sim_slot base;
    const struct tabletop_task *task;       /* borrowed */
    struct mujoco_slot mujoco;
    struct tabletop_memory memory;
    char instruction[96];
};

/* One task's rules. Lengths in metres. */
struct tabletop_rules {
    struct sim_task_info info;
    struct mujoco_file mjcf;
    const char *const *wordings;            /* %1 = the block's colour, %2 = the base's; ends with NULL */
    const char *const *parts;               /* bodies of this scene alone, found as task->parts in this order; ends with NULL */
    double slow_speed, slow_noise;          /* the slow demonstrator: action = speed * expert + N(0, noise) on xyz */
    void (*place)(struct tabletop_slot *slot, struct philox *draws);    /* objects; the hand is already drawn */
    bool (*success)(const struct tabletop_slot *slot);
    void (*expert)(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS]);   /* action comes zeroed, gripper open */
};

extern const struct tabletop_rules tabletop_pick, tabletop_push, tabletop_stack, tabletop_drawer, tabletop_sort, tabletop_pour,
    tabletop_assemble, tabletop_tool;

enum { TABLETOP_PARTS = 10, TABLETOP_CAMERAS = 2 };

/* A task as opened: the compiled model and where its movable things are (-1: not in this scene). */
struct tabletop_task {
    struct sim_task base;
    const struct tabletop_rules *rules;
    mjModel *model;
    int camera[TABLETOP_CAMERAS];   /* in front; in the hand */
    int block, base_block;          /* body ids */
    int block_geom, base_geom;      /* geom ids */
    int block_qpos, base_qpos;      /* first of the free joint's seven */
    int disc, cabinet;              /* mocap ids */
    int discs[2], disc_geoms[2];    /* mocap and geom ids of the discs that share the colours of block and base */
    int drawer_qpos;
    int parts[TABLETOP_PARTS];      /* body ids, as rules->parts names them */
};

/* sim_demonstrate (demonstrator.c). */
int tabletop_demonstrate(struct sim_slot *slot, const char *style, uint64_t seed, int step,
                         float ret_action[SIM_ACTION_DIMS], float ret_label[SIM_ACTION_DIMS]);

/* sim_perturb (perturb.c). */
int tabletop_perturb(struct sim_slot *slot, const char *kind, uint64_t seed, int step, int limit);

double tabletop_uniform(struct philox *draws, double lo, double hi);

/* Set a free body down, upright; z is its origin's height. */
void tabletop_put(struct tabletop_slot *slot, int qpos, double x, double y, double z, double yaw);
void tabletop_put_block(struct tabletop_slot *slot, int qpos, double x, double y, double yaw);   /* resting on the table */
const double *tabletop_position(const struct tabletop_slot *slot, int body);                     /* xyz */

int tabletop_part_qpos(const struct tabletop_slot *slot, int part);     /* first of the free joint's seven */
int tabletop_part_mocap(const struct tabletop_slot *slot, int part);

/* Too near one another for the open fingers, which reach 7 cm to either side in y. */
bool tabletop_in_the_way(const double a[2], const double b[2]);

/* The expert's step towards a point: action xyz = clip((point - hand) / ARM_REACH). */
void tabletop_go(const struct tabletop_slot *slot, double x, double y, double z, float action[SIM_ACTION_DIMS]);
double tabletop_distance_xy(const double a[2], const double b[2]);

#define BLOCK_HALF 0.025
#define GRIPPER_OPEN 1.0f
#define GRIPPER_CLOSED (-1.0f)
