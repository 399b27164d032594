/* sort_objects: two blocks, each onto the disc of its own colour. */
#include "sim/suites/tabletop/carry.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/sort_objects.xml.inc"
;

static const char *const wordings[] = {
    "sort the blocks by color", "put each block on the disc of its color", "put the %1 block and the %2 block on their discs",
    NULL
};

enum { THINGS = 4 };            /* block, base, and their discs in the same order */

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    const struct tabletop_task *task = slot->task;
    double at[THINGS][2];
    bool clash;
    int i, j;

    do {
        clash = false;
        for (i = 0; i < THINGS; i++) {
            at[i][0] = tabletop_uniform(draws, -0.14, 0.14);
            at[i][1] = tabletop_uniform(draws, -0.15, 0.15);
            for (j = 0; j < i; j++)
                clash |= tabletop_in_the_way(at[i], at[j]);
        }
    } while (clash);
    tabletop_put_block(slot, task->block_qpos, at[0][0], at[0][1], tabletop_uniform(draws, -0.3, 0.3));
    tabletop_put_block(slot, task->base_qpos, at[1][0], at[1][1], tabletop_uniform(draws, -0.3, 0.3));
    for (i = 0; i < 2; i++)
        for (j = 0; j < 2; j++)
            slot->mujoco.data->mocap_pos[3 * task->discs[i] + j] = at[2 + i][j];
}

static const double *disc(const struct tabletop_slot *slot, int i)
{
    return slot->mujoco.data->mocap_pos + 3 * slot->task->discs[i];
}

static const double *block(const struct tabletop_slot *slot, int i)
{
    return tabletop_position(slot, i ? slot->task->base_block : slot->task->block);
}

static bool sorted(const struct tabletop_slot *slot, int i)
{
    return tabletop_distance_xy(block(slot, i), disc(slot, i)) < 0.03 && fabs(block(slot, i)[2] - BLOCK_HALF) < 0.006;
}

static bool success(const struct tabletop_slot *slot)
{
    return sorted(slot, 0) && sorted(slot, 1) && arm_opening(&slot->mujoco) > 0.035;
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    int i = slot->memory.turn;
    struct carry carry = { .thing = block(slot, i), .goal = disc(slot, i), .drop = block(slot, i)[2] - BLOCK_HALF,
                           .near = 0.012 };

    if (tabletop_carry(slot, &carry, action) && sorted(slot, i) && arm_hand(&slot->mujoco)[2] > 0.06) {
        slot->memory.turn = !i;
        tabletop_carry_begin(slot);
    }
}

const struct tabletop_rules tabletop_sort = {
    .info = { .name = "sort_objects", .level = 2, .max_steps = 112, .control_hz = 10 },
    .mjcf = { "sort_objects.xml", mjcf }, .wordings = wordings,
    .slow_speed = 0.35, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
