/* stack_two_blocks: put one block on top of the other and let go. */
#include "sim/suites/tabletop/tabletop.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/stack_two_blocks.xml.inc"
;

static const char *const wordings[] = {
    "stack the %1 block on the %2 block", "put the %1 block on the %2 block", "place the %1 block on top of the %2 block", NULL
};

enum { ABOVE, DOWN, CLOSE, RAISE, TRAVEL, LOWER, OPEN };

/* The blocks keep apart, and the base stays out of the way of the open fingers, which reach 7 cm to either side in y. */
static bool in_the_way(double x, double y, double base_x, double base_y)
{
    return hypot(x - base_x, y - base_y) < 0.11 || (fabs(x - base_x) < 0.055 && fabs(y - base_y) < 0.13);
}

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double x, y, base_x, base_y;

    do {
        x = tabletop_uniform(draws, -0.12, 0.12);
        y = tabletop_uniform(draws, -0.13, 0.13);
        base_x = tabletop_uniform(draws, -0.12, 0.12);
        base_y = tabletop_uniform(draws, -0.13, 0.13);
    } while (in_the_way(x, y, base_x, base_y));
    tabletop_put_block(slot, slot->task->block_qpos, x, y, tabletop_uniform(draws, -0.3, 0.3));
    tabletop_put_block(slot, slot->task->base_qpos, base_x, base_y, tabletop_uniform(draws, -0.3, 0.3));
}

static bool success(const struct tabletop_slot *slot)
{
    const double *block = tabletop_position(slot, slot->task->block), *base = tabletop_position(slot, slot->task->base_block);

    return tabletop_distance_xy(block, base) < 0.025 && fabs(block[2] - base[2] - 2 * BLOCK_HALF) < 0.006 &&
           arm_opening(&slot->mujoco) > 0.035;
}

static void advance_phase(struct tabletop_memory *m, const double *hand, const double *block, const double *base)
{
    double off = tabletop_distance_xy(hand, block), to_base = tabletop_distance_xy(block, base);

    if (m->phase >= RAISE && m->phase <= LOWER && hand[2] > block[2] + 0.04) {      /* it slipped */
        m->phase = ABOVE;
        m->held = 0;
    }
    if (m->phase == OPEN && m->held >= 8) {                                         /* let go, yet not on top */
        m->phase = ABOVE;
        m->held = 0;
    }
    if (m->phase == ABOVE && off < 0.01)
        m->phase = DOWN;
    if (m->phase == DOWN && off > 0.03)
        m->phase = ABOVE;
    if (m->phase == DOWN && hand[2] < 0.020)
        m->phase = CLOSE;
    if (m->phase == CLOSE && m->held >= 3)
        m->phase = RAISE;
    if (m->phase == RAISE && hand[2] > 0.09)
        m->phase = TRAVEL;
    if (m->phase == TRAVEL && to_base < 0.008)
        m->phase = LOWER;
    if (m->phase == LOWER && block[2] < base[2] + 2 * BLOCK_HALF + 0.003) {
        m->phase = OPEN;
        m->held = 0;
    }
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco);
    const double *block = tabletop_position(slot, slot->task->block), *base = tabletop_position(slot, slot->task->base_block);
    double over[2] = { hand[0] + base[0] - block[0], hand[1] + base[1] - block[1] };   /* puts the block over the base */
    struct tabletop_memory *m = &slot->memory;

    advance_phase(m, hand, block, base);
    if (m->phase >= CLOSE && m->phase <= LOWER)
        action[6] = GRIPPER_CLOSED;

    switch (m->phase) {
    case ABOVE:
        tabletop_go(slot, block[0], block[1], 0.10, action);
        break;
    case DOWN:
        tabletop_go(slot, block[0], block[1], 0.012, action);
        break;
    case RAISE:
        tabletop_go(slot, hand[0], hand[1], 0.13, action);
        break;
    case TRAVEL:
        tabletop_go(slot, over[0], over[1], 0.13, action);
        break;
    case LOWER:     /* to contact and 1 mm further */
        tabletop_go(slot, over[0], over[1], hand[2] - (block[2] - base[2] - 2 * BLOCK_HALF) - 0.001, action);
        break;
    case CLOSE:
    case OPEN:
        m->held++;
        break;
    }
}

const struct tabletop_rules tabletop_stack = {
    .info = { .name = "stack_two_blocks", .level = 1, .max_steps = 48, .control_hz = 10 },
    .mjcf = { "stack_two_blocks.xml", mjcf }, .wordings = wordings,
    .slow_speed = 0.35, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
