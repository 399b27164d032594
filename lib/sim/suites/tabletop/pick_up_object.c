/* pick_up_object: one block, anywhere in reach; lift it by 8 cm. */
#include "sim/suites/tabletop/tabletop.h"

static const char mjcf[] =
#include "lib/sim/suites/tabletop/pick_up_object.xml.inc"
;

static const char *const wordings[] = { "pick up the %1 block", "lift the %1 block", "grasp the %1 block", NULL };

enum { ABOVE, DOWN, CLOSE, LIFT };

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double x = tabletop_uniform(draws, -0.12, 0.12), y = tabletop_uniform(draws, -0.13, 0.13);

    tabletop_put_block(slot, slot->task->block_qpos, x, y, tabletop_uniform(draws, -0.3, 0.3));
}

static bool success(const struct tabletop_slot *slot)
{
    return tabletop_position(slot, slot->task->block)[2] > BLOCK_HALF + 0.08;
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco), *block = tabletop_position(slot, slot->task->block);
    double off = tabletop_distance_xy(hand, block);
    struct tabletop_memory *m = &slot->memory;

    if (m->phase == ABOVE && off < 0.01)
        m->phase = DOWN;
    if (m->phase == DOWN && off > 0.03)
        m->phase = ABOVE;
    if (m->phase == DOWN && hand[2] < 0.020)
        m->phase = CLOSE;
    if (m->phase == CLOSE && m->held >= 3)
        m->phase = LIFT;
    if (m->phase == LIFT && hand[2] > block[2] + 0.04) {    /* it slipped */
        m->phase = ABOVE;
        m->held = 0;
    }

    switch (m->phase) {
    case ABOVE:
        tabletop_go(slot, block[0], block[1], 0.10, action);
        break;
    case DOWN:
        tabletop_go(slot, block[0], block[1], 0.012, action);
        break;
    case CLOSE:
        action[6] = GRIPPER_CLOSED;
        m->held++;
        break;
    case LIFT:
        tabletop_go(slot, hand[0], hand[1], 0.16, action);
        action[6] = GRIPPER_CLOSED;
        break;
    }
}

const struct tabletop_rules tabletop_pick = {
    .info = { .name = "pick_up_object", .level = 0, .max_steps = 24, .control_hz = 10 },
    .mjcf = { "pick_up_object.xml", mjcf }, .wordings = wordings,
    .slow_speed = 0.36, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
