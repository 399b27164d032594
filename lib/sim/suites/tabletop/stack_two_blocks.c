/* stack_two_blocks: put one block on top of the other and let go. */
#include "sim/suites/tabletop/carry.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/stack_two_blocks.xml.inc"
;

static const char *const wordings[] = {
    "stack the %1 block on the %2 block", "put the %1 block on the %2 block", "place the %1 block on top of the %2 block", NULL
};

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double block[2], base[2];

    do {
        block[0] = tabletop_uniform(draws, -0.12, 0.12);
        block[1] = tabletop_uniform(draws, -0.13, 0.13);
        base[0] = tabletop_uniform(draws, -0.12, 0.12);
        base[1] = tabletop_uniform(draws, -0.13, 0.13);
    } while (tabletop_in_the_way(block, base));
    tabletop_put_block(slot, slot->task->block_qpos, block[0], block[1], tabletop_uniform(draws, -0.3, 0.3));
    tabletop_put_block(slot, slot->task->base_qpos, base[0], base[1], tabletop_uniform(draws, -0.3, 0.3));
}

static bool success(const struct tabletop_slot *slot)
{
    const double *block = tabletop_position(slot, slot->task->block), *base = tabletop_position(slot, slot->task->base_block);

    return tabletop_distance_xy(block, base) < 0.025 && fabs(block[2] - base[2] - 2 * BLOCK_HALF) < 0.006 &&
           arm_opening(&slot->mujoco) > 0.035;
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *block = tabletop_position(slot, slot->task->block), *base = tabletop_position(slot, slot->task->base_block);
    struct carry carry = { .thing = block, .goal = base, .drop = block[2] - base[2] - 2 * BLOCK_HALF, .near = 0.008 };

    tabletop_carry(slot, &carry, action);
}

const struct tabletop_rules tabletop_stack = {
    .info = { .name = "stack_two_blocks", .level = 1, .max_steps = 46, .control_hz = 10 },
    .mjcf = { "stack_two_blocks.xml", mjcf }, .wordings = wordings,
    .slow_speed = 0.34, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
