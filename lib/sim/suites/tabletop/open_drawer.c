/* open_drawer: hook the handle from above with closed fingers and pull it out by 8 cm. */
#include "sim/suites/tabletop/tabletop.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/open_drawer.xml.inc"
;

static const char *const wordings[] = { "open the drawer", "pull the drawer open", "pull out the drawer", NULL };

enum { OVER, DOWN, PULL };

#define SLOT_X 0.067        /* middle of the slot behind the handle bar, from the cabinet's centre, drawer shut */
#define PULL_STEP 0.03

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double *cabinet = slot->mujoco.data->mocap_pos + 3 * slot->task->cabinet;

    cabinet[0] = tabletop_uniform(draws, -0.14, -0.08);
    cabinet[1] = tabletop_uniform(draws, -0.09, 0.09);
}

static double opened(const struct tabletop_slot *slot)
{
    return slot->mujoco.data->qpos[slot->task->drawer_qpos];
}

static bool success(const struct tabletop_slot *slot)
{
    return opened(slot) > 0.08;
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco), *cabinet = slot->mujoco.data->mocap_pos + 3 * slot->task->cabinet;
    double at[2] = { cabinet[0] + SLOT_X + opened(slot), cabinet[1] };
    struct tabletop_memory *m = &slot->memory;

    action[6] = GRIPPER_CLOSED;
    if (m->phase == PULL && (fabs(hand[1] - at[1]) > 0.03 || fabs(hand[0] - at[0]) > 0.04 || hand[2] > 0.06))
        m->phase = OVER;        /* it slipped out of the slot */
    if (m->phase == OVER && tabletop_distance_xy(hand, at) < 0.006)
        m->phase = DOWN;
    if (m->phase == DOWN && tabletop_distance_xy(hand, at) > 0.02)
        m->phase = OVER;
    if (m->phase == DOWN && hand[2] < 0.04)
        m->phase = PULL;

    switch (m->phase) {
    case OVER:
        tabletop_go(slot, at[0], at[1], 0.09, action);
        break;
    case DOWN:
        tabletop_go(slot, at[0], at[1], 0.03, action);
        break;
    case PULL:
        tabletop_go(slot, hand[0] + PULL_STEP, at[1], 0.03, action);
        break;
    }
}

const struct tabletop_rules tabletop_drawer = {
    .info = { .name = "open_drawer", .level = 1, .max_steps = 22, .control_hz = 10 },
    .mjcf = { "open_drawer.xml", mjcf }, .wordings = wordings,
    .slow_speed = 0.35, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
