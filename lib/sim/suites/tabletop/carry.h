/* carry.h - the scripted expert's pick and place, for every task that brings one thing to a place and lets go.
 *
 * The task says each step where its thing is and where it shall be; the phase and the count of steps in it are kept in the
 * slot's memory. From above, down, close, up, across, down, open, up: the gripper goes around a neighbour, never through it.
 * What slips from the fingers is fetched again. */
#pragma once

#include "sim/suites/tabletop/tabletop.h"

enum carry_phase { CARRY_ABOVE, CARRY_DOWN, CARRY_CLOSE, CARRY_RAISE, CARRY_TRAVEL, CARRY_LOWER, CARRY_OPEN, CARRY_LEAVE };

/* Metres. The fingers close along y. */
struct carry {
    const double *thing;        /* xyz of what is carried; pinched at its middle */
    const double *goal;         /* xy: where its middle shall come to rest */
    double drop;                /* how far it must still sink to rest there: its z minus its z at rest */
    double near;                /* distance from the goal in xy at which it is let down */
};

/* This step's action. Returns true in the phase that leaves a thing which was let go: the task may then begin with another one by
 * tabletop_carry_begin. */
bool tabletop_carry(struct tabletop_slot *slot, const struct carry *carry, float action[SIM_ACTION_DIMS]);
void tabletop_carry_begin(struct tabletop_slot *slot);
