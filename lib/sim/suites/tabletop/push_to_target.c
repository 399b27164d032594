/* push_to_target: slide a block onto a yellow disc, towards the camera, with the gripper closed. */
#include "sim/suites/tabletop/tabletop.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/push_to_target.xml.inc"
;

static const char *const wordings[] = {
    "push the %1 block to the target", "slide the %1 block to the target", "push the %1 block onto the yellow disc", NULL
};

enum { BEHIND, DOWN, PUSH, RISE };

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double x = tabletop_uniform(draws, -0.09, -0.01), y = tabletop_uniform(draws, -0.10, 0.10);
    double *disc = slot->mujoco.data->mocap_pos + 3 * slot->task->disc;

    tabletop_put_block(slot, slot->task->block_qpos, x, y, tabletop_uniform(draws, -0.3, 0.3));
    disc[0] = tabletop_uniform(draws, 0.07, 0.13);
    disc[1] = tabletop_uniform(draws, -0.10, 0.10);
}

static const double *disc_of(const struct tabletop_slot *slot)
{
    return slot->mujoco.data->mocap_pos + 3 * slot->task->disc;
}

static bool success(const struct tabletop_slot *slot)
{
    return tabletop_distance_xy(tabletop_position(slot, slot->task->block), disc_of(slot)) < 0.03;
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco), *block = tabletop_position(slot, slot->task->block), *disc = disc_of(slot);
    double gap = tabletop_distance_xy(block, disc), nx = (disc[0] - block[0]) / gap, ny = (disc[1] - block[1]) / gap;
    double behind[2] = { block[0] - 0.068 * nx, block[1] - 0.068 * ny };
    double dx = hand[0] - block[0], dy = hand[1] - block[1], along = dx * nx + dy * ny;     /* hand seen from the block */
    double sideways[2] = { dx - along * nx, dy - along * ny };
    double lateral = hypot(sideways[0], sideways[1]), advance = MIN(0.04, gap + 0.012);
    struct tabletop_memory *m = &slot->memory;
    int i;

    action[6] = GRIPPER_CLOSED;
    if (m->phase == PUSH && (lateral > 0.03 || along > 0))
        m->phase = RISE;
    if (m->phase == RISE && hand[2] > 0.08)
        m->phase = BEHIND;
    if (m->phase == BEHIND && tabletop_distance_xy(hand, behind) < 0.012)
        m->phase = DOWN;
    if (m->phase == DOWN && hand[2] < 0.03)
        m->phase = PUSH;

    switch (m->phase) {
    case BEHIND:
        tabletop_go(slot, behind[0], behind[1], 0.09, action);
        break;
    case DOWN:
        tabletop_go(slot, behind[0], behind[1], 0.015, action);
        break;
    case PUSH:
        tabletop_go(slot, hand[0], hand[1], 0.015, action);
        for (i = 0; i < 2; i++) {
            double move = 0.75 * (advance * (i ? ny : nx) - 1.2 * sideways[i]) / ARM_REACH;

            action[i] = (float)CLAMP(move, -1.0, 1.0);
        }
        break;
    case RISE:
        tabletop_go(slot, hand[0], hand[1], 0.10, action);
        break;
    }
}

const struct tabletop_rules tabletop_push = {
    .info = { .name = "push_to_target", .level = 0, .max_steps = 26, .control_hz = 10 },
    .mjcf = { "push_to_target.xml", mjcf }, .wordings = wordings,
    .slow_speed = 0.45, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
