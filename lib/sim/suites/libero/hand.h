/* hand.h - the Panda's hand as boxes: which way it is turned, and whether it touches anything there.
 *
 * A rotation's columns are the pads' closing axis, the axis across, and along the fingers towards their ends (row-major matrix).
 * Lengths in m, positions those of the grip site. Pure. */
#pragma once

#include "sim/suites/libero/shapes.h"

enum hand_fingers { HAND_OPEN, HAND_CLOSED };

#define HAND_WIDEST 0.073 /* what fits between the open pads */
#define HAND_TIP 0.0095   /* fingers' ends beyond the grip site */
#define HAND_THIN 0.009   /* half a finger, across */

/* Upright at that angle about the vertical; 0: fingers along the world's y, as at rest. */
void hand_upright(double yaw, double ret_R[9]);
/* The angle of the upright hand that takes the least turning from R. */
double hand_yaw(const double R[9]);
/* Radians from the hand at rest. */
double hand_turned(const double R[9]);
/* Touches nothing. */
bool hand_is_free(const struct shapes *shapes, const double x[3], const double R[9], enum hand_fingers fingers);
/* Touches no furniture but that body: what can be moved makes way, or moves along. */
bool hand_is_free_but(int body, const struct shapes *shapes, const double x[3], const double R[9], enum hand_fingers fingers);
/* How far it reaches below the grip site. */
double hand_hangs(const double R[9]);
