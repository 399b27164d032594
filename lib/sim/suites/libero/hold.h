/* hold.h - where the hand gets at a part that moves (part.h), to push it with closed fingers or to pull it by its handle;
 * searched on the scene's boxes.
 *
 * A push wants a face that looks against the motion; the fingers come down, or slanted towards it, and touch it with their ends.
 * A pull wants something long and thin with room around it; the fingers come to it at any angle about its length. Neither may
 * touch anything else where it begins, nor furniture where the part has moved as far as it shall. Lengths in m; pure. */
#pragma once

#include "sim/suites/libero/hand.h"
#include "sim/suites/libero/part.h"

/* Of the grip site, in the part's frame: it holds while the part moves. */
struct hold {
    double x[3], R[9];
    double from[3]; /* where the hand comes from and goes to, relative to x */
};

/* attempt: 0, 1, 2...: each prefers other places than the one before. -ENOENT: no place is free. */
int hold_to_push(const struct shapes *shapes, const struct part *part, int attempt, struct hold *ret);
int hold_to_pull(const struct shapes *shapes, const struct part *part, int attempt, struct hold *ret);
/* In the world's frame, where the part is now. */
void hold_pose(const struct hold *hold, const struct part *part, double ret_x[3], double ret_R[9]);
/* And before it: away from the part. */
void hold_before(const struct hold *hold, const struct part *part, double ret_x[3]);
