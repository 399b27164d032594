/* grasp.h - where the Panda's two fingers can take hold of a thing, searched on the scene's boxes.
 *
 * Candidates: the hand upright at 12 angles, a grid of places, depths from the thing's top down. One is good if what is between
 * the pads fits the open hand, and fingers and hand touch nothing on the way down. The best is near the centre of mass, thin, and
 * needs little turning. */
#pragma once

#include "sim/suites/libero/hand.h"

struct grasp {
    double x[3];  /* of the grip site, m */
    double yaw;   /* rad; 0: fingers along the world's y, as at rest */
    double width; /* m between the pads once closed */
};

/* body: only what is on this body of the thing (a knob, a drawer); -1: anything. attempt: 0, 1, 2...: each prefers other places
 * than the one before. -ENOENT: no place is free; -ENOMEM. */
int grasp_search(const struct libero_task *task, const mjData *data, const struct shapes *shapes, int thing, int body,
                 int attempt, struct grasp *ret);
