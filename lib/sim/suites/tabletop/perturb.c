/* What the world does to an episode: a shove, a lost grip, a knocked arm. Recovery from these is what imitation of undisturbed
 * demonstrations does not teach. */
#include <math.h>
#include <string.h>

#include "base/crc32c.h"
#include "sim/suites/tabletop/tabletop.h"

#define SHOVE 0.04       /* metres */
#define OUT_OF_HAND 0.07 /* across the fingers, which close in y: never into one of them */
#define KNOCK 0.05
#define NEAR 0.06        /* xy, from hand to thing: it is between the fingers or soon will be */
#define TOGETHER 0.035   /* xy: what lies in or on the thing goes with it */
#define LIFTED 0.05      /* height of the hand from which on what it holds is in the air */
#define DRAWER_HELD 0.03 /* metres a drawer is open, when a drop takes it out of the hand */

/* A step of the first half, when something is under way and time is left. */
static bool is_due(struct philox *draws, int step, int limit)
{
    uint32_t first = (uint32_t)MAX(limit / 8, 1), span = (uint32_t)MAX(limit * 3 / 8, 1);

    return (uint32_t)step == first + philox_below(draws, span);
}

/* qpos of the thing that the task is about: the block, or the scene's first free body. -1: none. */
static int thing_qpos(const struct tabletop_slot *slot)
{
    const mjModel *model = slot->task->model;

    if (slot->task->block_qpos >= 0)
        return slot->task->block_qpos;
    for (int i = 0; i < model->njnt; i++)
        if (model->jnt_type[i] == mjJNT_FREE)
            return model->jnt_qposadr[i];
    return -1;
}

static void shift(struct tabletop_slot *slot, int thing, double dx, double dy)
{
    const mjModel *model = slot->task->model;
    double *qpos = slot->mujoco.data->qpos;
    const double from[2] = {qpos[thing], qpos[thing + 1]};

    dx = CLAMP(from[0] + dx, -0.17, 0.17) - from[0];
    dy = CLAMP(from[1] + dy, -0.17, 0.17) - from[1];
    for (int i = 0; i < model->njnt; i++) {
        double *q = qpos + model->jnt_qposadr[i];

        if (model->jnt_type[i] == mjJNT_FREE && tabletop_distance_xy(q, from) < TOGETHER) {
            q[0] += dx;
            q[1] += dy;
        }
    }
}

static int move_thing(struct tabletop_slot *slot, double dx, double dy)
{
    const double *hand = arm_hand(&slot->mujoco);
    int thing = thing_qpos(slot);

    if (thing < 0)
        return 0;
    if (tabletop_distance_xy(hand, slot->mujoco.data->qpos + thing) < NEAR)
        shift(slot, thing, hand[0] > 0 ? -OUT_OF_HAND : OUT_OF_HAND, 0);
    else
        shift(slot, thing, SHOVE * dx, SHOVE * dy);
    return 1;
}

static int push(struct tabletop_slot *slot, double dx, double dy)
{
    if (slot->task->drawer_qpos < 0)
        return move_thing(slot, dx, dy);
    slot->mujoco.data->qpos[slot->task->drawer_qpos] = 0;
    return 1;
}

static int drop(struct tabletop_slot *slot)
{
    const double *hand = arm_hand(&slot->mujoco), *qpos = slot->mujoco.data->qpos;
    int thing = thing_qpos(slot);

    if (slot->task->drawer_qpos >= 0)
        return qpos[slot->task->drawer_qpos] < DRAWER_HELD ? 0 : push(slot, 0, 0);
    if (thing < 0 || slot->memory.target.grip > 0 || hand[2] < LIFTED || tabletop_distance_xy(hand, qpos + thing) > TOGETHER ||
        fabs(hand[2] - qpos[thing + 2]) > TOGETHER)
        return 0;
    return move_thing(slot, 0, 0); /* it falls beside the hand */
}

static int knock(struct tabletop_slot *slot, double dx, double dy)
{
    double *qpos = slot->mujoco.data->qpos;

    for (int i = 0; i < 2; i++) {
        qpos[i] = CLAMP(qpos[i] + KNOCK * (i ? dy : dx), -0.2, 0.2);
        slot->memory.target.xyz[i] = qpos[i];
    }
    return 1;
}

int tabletop_perturb(struct sim_slot *base, const char *kind, uint64_t seed, int step, int limit)
{
    struct tabletop_slot *slot = (struct tabletop_slot *)base;
    const char *name = slot->task->rules->info.name;
    struct philox draws = philox_at(seed, PHILOX_PERTURB, crc32c(0, name, strlen(name)), 0, 0);
    bool due = is_due(&draws, step, limit);
    double angle = tabletop_uniform(&draws, 0, 2 * M_PI), dx = cos(angle), dy = sin(angle);
    int done = !strcmp(kind, "drop") ? drop(slot) : !due ? 0 : !strcmp(kind, "offset") ? knock(slot, dx, dy) : push(slot, dx, dy);

    if (done)
        mujoco_slot_place(&slot->mujoco);
    return done;
}
