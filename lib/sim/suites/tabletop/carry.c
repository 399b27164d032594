#include "sim/suites/tabletop/carry.h"

#define OVER 0.10               /* hand height above things that lie on the table */
#define ACROSS 0.13             /* ... while something hangs in the fingers */
#define PINCH 0.012             /* ... to pinch */
#define LOST 0.04               /* fingers this much higher than their thing have lost it */

static void go_on_to(struct tabletop_memory *m, uint32_t phase)
{
    m->phase = phase;
    m->held = 0;
}

void tabletop_carry_begin(struct tabletop_slot *slot)
{
    go_on_to(&slot->memory, CARRY_ABOVE);
}

static void advance(struct tabletop_memory *m, const double *hand, const struct carry *c)
{
    double off = tabletop_distance_xy(hand, c->thing), to_goal = tabletop_distance_xy(c->thing, c->goal);

    if (m->phase >= CARRY_RAISE && m->phase <= CARRY_LOWER && hand[2] > c->thing[2] + LOST)
        go_on_to(m, CARRY_ABOVE);
    if (m->phase == CARRY_LEAVE && hand[2] > OVER - 0.03 && (to_goal > c->near + 0.01 || c->drop > 0.01))
        go_on_to(m, CARRY_ABOVE);               /* let go, yet not where it should be */
    if (m->phase == CARRY_ABOVE && off < 0.01)
        go_on_to(m, CARRY_DOWN);
    if (m->phase == CARRY_DOWN && off > 0.03)
        go_on_to(m, CARRY_ABOVE);
    if (m->phase == CARRY_DOWN && hand[2] < PINCH + 0.008)
        go_on_to(m, CARRY_CLOSE);
    if (m->phase == CARRY_CLOSE && m->held >= 3)
        go_on_to(m, CARRY_RAISE);
    if (m->phase == CARRY_RAISE && hand[2] > ACROSS - 0.04)
        go_on_to(m, CARRY_TRAVEL);
    if (m->phase == CARRY_TRAVEL && to_goal < c->near)
        go_on_to(m, CARRY_LOWER);
    if (m->phase == CARRY_LOWER && c->drop < 0.003)
        go_on_to(m, CARRY_OPEN);
    if (m->phase == CARRY_OPEN && m->held >= 3)
        go_on_to(m, CARRY_LEAVE);
}

bool tabletop_carry(struct tabletop_slot *slot, const struct carry *c, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco);
    /* where the hand puts the thing over the goal */
    const double over[2] = { hand[0] + c->goal[0] - c->thing[0], hand[1] + c->goal[1] - c->thing[1] };
    struct tabletop_memory *m = &slot->memory;

    advance(m, hand, c);
    if (m->phase >= CARRY_CLOSE && m->phase <= CARRY_LOWER)
        action[6] = GRIPPER_CLOSED;

    switch (m->phase) {
    case CARRY_ABOVE:
        tabletop_go(slot, c->thing[0], c->thing[1], OVER, action);
        break;
    case CARRY_DOWN:
        tabletop_go(slot, c->thing[0], c->thing[1], PINCH, action);
        break;
    case CARRY_RAISE:
        tabletop_go(slot, hand[0], hand[1], ACROSS, action);
        break;
    case CARRY_TRAVEL:
        tabletop_go(slot, over[0], over[1], ACROSS, action);
        break;
    case CARRY_LOWER:       /* to contact and 1 mm further */
        tabletop_go(slot, over[0], over[1], hand[2] - c->drop - 0.001, action);
        break;
    case CARRY_LEAVE:
        tabletop_go(slot, hand[0], hand[1], OVER, action);
        break;
    case CARRY_CLOSE:
    case CARRY_OPEN:
        m->held++;
        break;
    }
    return m->phase == CARRY_LEAVE;
}
