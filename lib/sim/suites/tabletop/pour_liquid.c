/* pour_liquid: bring the bowl under the jug's lip, then tip the jug by its lever; five of the six beads must end in the bowl. */
#include "sim/suites/tabletop/carry.h"

#include <math.h>

static const char mjcf[] =
#include "lib/sim/suites/tabletop/pour_liquid.xml.inc"
;

static const char *const wordings[] = { "pour the beads into the bowl", "empty the jug into the bowl",
                                        "fill the bowl from the jug", NULL };

enum { STAND, JUG, BOWL, BEAD };
static const char *const parts[] = {
    "stand", "jug", "bowl", "bead1", "bead2", "bead3", "bead4", "bead5", "bead6", NULL
};
enum { BEADS = 6, ENOUGH = 5 };

enum { FETCH_BOWL, TIP };               /* memory.turn */
enum { BEHIND, REACH, PUSH, BACK };     /* phases of TIP */

#define BOWL_REST 0.016         /* height of its middle on the table */
#define BOWL_INNER 0.034        /* half of its inside */
#define LIP 0.080               /* from the jug's hinge to where the beads fall, along x */
#define HINGE 0.09              /* its height */
#define LEVER_Y 0.068

static const double *part(const struct tabletop_slot *slot, int k)
{
    return tabletop_position(slot, slot->task->parts[k]);
}

static void place(struct tabletop_slot *slot, struct philox *draws)
{
    double jug[2] = { tabletop_uniform(draws, -0.165, -0.14), tabletop_uniform(draws, -0.10, 0.04) },
           under[2] = { jug[0] + LIP, jug[1] };
    double bowl[2];
    int i;

    do {
        bowl[0] = tabletop_uniform(draws, -0.02, 0.13);
        bowl[1] = tabletop_uniform(draws, -0.13, 0.13);
    } while (tabletop_distance_xy(bowl, under) < 0.07);
    for (i = 0; i < 2; i++)
        slot->mujoco.data->mocap_pos[3 * tabletop_part_mocap(slot, STAND) + i] = jug[i];
    tabletop_put(slot, tabletop_part_qpos(slot, BOWL), bowl[0], bowl[1], BOWL_REST, tabletop_uniform(draws, -0.2, 0.2));
    for (i = 0; i < BEADS; i++) {       /* two by two on the jug's floor, the third pair above */
        int row = i / 2 % 2, column = i % 2, layer = i / 4;

        tabletop_put(slot, tabletop_part_qpos(slot, BEAD + i), jug[0] - 0.035 + 0.018 * row, jug[1] - 0.009 + 0.018 * column,
                     HINGE + 0.013 + 0.017 * layer, 0);
    }
}

static int poured(const struct tabletop_slot *slot)
{
    const double *bowl = part(slot, BOWL), *bead;
    int i, n = 0;

    for (i = 0; i < BEADS; i++) {
        bead = part(slot, BEAD + i);
        n += fabs(bead[0] - bowl[0]) < BOWL_INNER && fabs(bead[1] - bowl[1]) < BOWL_INNER && bead[2] < 0.045;
    }
    return n;
}

static bool success(const struct tabletop_slot *slot)
{
    return poured(slot) >= ENOUGH && fabs(part(slot, BOWL)[2] - BOWL_REST) < 0.006;
}

static void tip(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco), *stand = part(slot, STAND);
    double at[2] = { stand[0] - 0.03, stand[1] + LEVER_Y }, low = HINGE + 0.025;
    struct tabletop_memory *m = &slot->memory;

    action[6] = GRIPPER_CLOSED;
    if (m->phase == BEHIND && tabletop_distance_xy(hand, at) < 0.012)
        m->phase = REACH;
    if (m->phase == REACH && hand[2] < low + 0.008)
        m->phase = PUSH;
    if (m->phase == PUSH && (hand[0] > stand[0] + 0.085 || fabs(hand[1] - at[1]) > 0.03))
        m->phase = BACK;        /* pushed through: once more, if it was not enough */
    if (m->phase == BACK && hand[2] > 0.21)
        m->phase = BEHIND;

    switch (m->phase) {
    case BEHIND:
        tabletop_go(slot, at[0], at[1], 0.22, action);
        break;
    case REACH:
        tabletop_go(slot, at[0], at[1], low, action);
        break;
    case PUSH:
        tabletop_go(slot, hand[0] + 0.013, at[1], low, action);
        break;
    case BACK:
        tabletop_go(slot, hand[0], hand[1], 0.24, action);
        break;
    }
}

static void expert(struct tabletop_slot *slot, float action[SIM_ACTION_DIMS])
{
    const double *stand = part(slot, STAND), *bowl = part(slot, BOWL);
    double under[2] = { stand[0] + LIP, stand[1] };
    struct carry carry = { .thing = bowl, .goal = under, .drop = bowl[2] - BOWL_REST, .near = 0.008 };

    if (slot->memory.turn == TIP) {
        tip(slot, action);
    } else if (tabletop_carry(slot, &carry, action) && arm_hand(&slot->mujoco)[2] > 0.07 &&
               tabletop_distance_xy(bowl, under) < 0.02) {
        slot->memory.turn = TIP;
        slot->memory.phase = BEHIND;
    }
}

const struct tabletop_rules tabletop_pour = {
    .info = { .name = "pour_liquid", .level = 2, .max_steps = 92, .control_hz = 10 },
    .mjcf = { "pour_liquid.xml", mjcf }, .wordings = wordings, .parts = parts,
    .slow_speed = 0.35, .slow_noise = 0.1,
    .place = place, .success = success, .expert = expert,
};
