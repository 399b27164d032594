/* assemble_parts: put a ring over a peg and let go. */
#include "sim/suites/tabletop/carry.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/assemble_parts.xml.inc"
;

static const char *const wordings[] = {
    "put the ring on the peg", "slide the ring over the peg", "assemble the ring and the peg", NULL
};

enum { RING, PEG };
static const char *const parts[] = { "ring", "peg", NULL };

#define RING_HALF 0.014
#define SEATED (RING_HALF + 0.006)      /* height of its middle: the plate is 6 mm thick */

static const double *peg(const struct tabletop_slot *slot)
{
    return tabletop_position(slot, slot->task->parts[PEG]);
}

static const double *ring(const struct tabletop_slot *slot)
{
    return tabletop_position(slot, slot->task->parts[RING]);
}

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double at[2][2];
    int i, j;

    do
        for (i = 0; i < 2; i++) {
            at[i][0] = tabletop_uniform(draws, -0.12, 0.12);
            at[i][1] = tabletop_uniform(draws, -0.13, 0.13);
        }
    while (tabletop_in_the_way(at[RING], at[PEG]));
    tabletop_put(slot, tabletop_part_qpos(slot, RING), at[RING][0], at[RING][1], RING_HALF, tabletop_uniform(draws, -0.2, 0.2));
    for (j = 0; j < 2; j++)
        slot->mujoco.data->mocap_pos[3 * tabletop_part_mocap(slot, PEG) + j] = at[PEG][j];
}

static bool success(const struct tabletop_slot *slot)
{
    return tabletop_distance_xy(ring(slot), peg(slot)) < 0.012 && fabs(ring(slot)[2] - SEATED) < 0.005 &&
           arm_opening(&slot->mujoco) > 0.038;
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    struct carry carry = { .thing = ring(slot), .goal = peg(slot), .drop = ring(slot)[2] - SEATED, .near = 0.005 };

    tabletop_carry(slot, &carry, action);
}

const struct tabletop_rules tabletop_assemble = {
    .info = { .name = "assemble_parts", .level = 3, .max_steps = 52, .control_hz = 10 },
    .mjcf = { "assemble_parts.xml", mjcf }, .wordings = wordings, .parts = parts,
    .slow_speed = 0.35, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
