/* tool_use: a block lies where the hand cannot go; fetch it with a hook. */
#include "sim/suites/tabletop/tabletop.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/tool_use.xml.inc"
;

static const char *const wordings[] = {
    "pull the %1 block closer with the hook", "use the hook to fetch the %1 block", "hook the %1 block and pull it in", NULL
};

enum { HOOK };
static const char *const parts[] = { "hook", NULL };

enum { ABOVE, DOWN, CLOSE, RAISE, TRAVEL, LOWER, PULL };

#define HEAD 0.17               /* from the grip to the head along the handle, */
#define ASIDE 0.045             /* and to the part of it that shall be behind the block, across it */
#define HEAD_HALF 0.007
#define HOOK_REST 0.012         /* height of the handle's middle on the table */
#define FETCHED (-0.12)         /* the block's x when it is near enough */

static const double *hook(const struct tabletop_slot *slot)     /* the grip */
{
    return tabletop_position(slot, slot->task->parts[HOOK]);
}

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double x = tabletop_uniform(draws, -0.28, -0.25), y = tabletop_uniform(draws, -0.10, 0.10);

    tabletop_put_block(slot, slot->task->block_qpos, x, y, tabletop_uniform(draws, -0.3, 0.3));
    x = tabletop_uniform(draws, 0.04, 0.10);
    y = tabletop_uniform(draws, -0.12, 0.12);
    tabletop_put(slot, tabletop_part_qpos(slot, HOOK), x, y, HOOK_REST, tabletop_uniform(draws, -0.15, 0.15));
}

static bool success(const struct tabletop_slot *slot)
{
    const double *block = tabletop_position(slot, slot->task->block);

    return block[0] > FETCHED && fabs(block[2] - BLOCK_HALF) < 0.006;
}

static void go_on_to(struct tabletop_memory *m, uint32_t phase)
{
    m->phase = phase;
    m->held = 0;
}

static void advance(struct tabletop_memory *m, const double *hand, const double *grip, const double *head, const double *block)
{
    double off = tabletop_distance_xy(hand, grip), behind = block[0] - BLOCK_HALF - head[0];

    if (m->phase > CLOSE && (off > 0.04 || hand[2] > grip[2] + 0.05))
        go_on_to(m, ABOVE);     /* it slipped */
    if (m->phase == PULL && behind < -0.01)
        go_on_to(m, RAISE);     /* the head rode up on the block, or past it */
    if (m->phase == ABOVE && off < 0.01)
        go_on_to(m, DOWN);
    if (m->phase == DOWN && off > 0.03)
        go_on_to(m, ABOVE);
    if (m->phase == DOWN && hand[2] < 0.020)
        go_on_to(m, CLOSE);
    if (m->phase == CLOSE && m->held >= 3)
        go_on_to(m, RAISE);
    if (m->phase == RAISE && head[2] > 0.075)
        go_on_to(m, TRAVEL);
    if (m->phase == TRAVEL && behind > HEAD_HALF + 0.006 && fabs(head[1] - block[1]) < 0.012)
        go_on_to(m, LOWER);
    if (m->phase == LOWER && hand[2] < 0.020)
        go_on_to(m, PULL);
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco), *grip = hook(slot), *block = tabletop_position(slot, slot->task->block);
    /* columns: along the handle, across it, up */
    const double *turned = slot->mujoco.data->xmat + 9 * slot->task->parts[HOOK];
    double head[3];
    double to_x = block[0] - BLOCK_HALF - HEAD_HALF - 0.012;
    struct tabletop_memory *m = &slot->memory;
    int i;

    for (i = 0; i < 3; i++)
        head[i] = grip[i] - HEAD * turned[3 * i] + ASIDE * turned[3 * i + 1];
    advance(m, hand, grip, head, block);
    if (m->phase >= CLOSE)
        action[6] = GRIPPER_CLOSED;

    switch (m->phase) {
    case ABOVE:
        tabletop_go(slot, grip[0], grip[1], 0.10, action);
        break;
    case DOWN:
        tabletop_go(slot, grip[0], grip[1], 0.012, action);
        break;
    case CLOSE:
        m->held++;
        break;
    case RAISE:
        tabletop_go(slot, hand[0], hand[1], 0.16, action);
        break;
    case TRAVEL:
        tabletop_go(slot, hand[0] + to_x - head[0], hand[1] + block[1] - head[1], 0.13, action);
        break;
    case LOWER:
        tabletop_go(slot, hand[0] + to_x - head[0], hand[1] + block[1] - head[1], 0.012, action);
        break;
    case PULL:
        tabletop_go(slot, hand[0] + 0.04, hand[1] + block[1] - head[1], 0.012, action);
        break;
    }
}

const struct tabletop_rules tabletop_tool = {
    .info = { .name = "tool_use", .level = 3, .max_steps = 64, .control_hz = 10 },
    .mjcf = { "tool_use.xml", mjcf }, .wordings = wordings, .parts = parts,
    .slow_speed = 0.52, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
