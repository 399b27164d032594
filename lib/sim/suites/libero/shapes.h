/* shapes.h - what can be touched in a LIBERO scene, as oriented boxes: the expert's view of the world.
 *
 * LIBERO's objects collide by boxes nearly everywhere; other geoms count as the box around them. The robot's own are left out.
 * Lengths in m, world frame. Pure but for the mjData read; memory is the caller's. */
#pragma once

#include "sim/suites/libero/task.h"

enum { SHAPES_MAX = 512 };

struct shape {
    double c[3], R[9], half[3]; /* centre, axes as columns (row-major matrix), half sizes */
    double r;                   /* radius of the ball around it */
    int thing;                  /* whose; -1: arena */
    int body;
    bool movable; /* is neither furniture nor part of it */
};

struct shapes {
    struct shape at[SHAPES_MAX];
    int n;
};

/* Every colliding geom that is not the robot's, where data's last forward pass put it. More than SHAPES_MAX: the rest is left out
 * (the 130 tasks have at most 300). */
void shapes_collect(const struct libero_task *task, const mjData *data, struct shapes *ret);
bool shape_overlaps(const struct shape *a, const struct shape *b);
/* Bounds along the world's axes. */
void shape_bounds(const struct shape *shape, double ret_lo[3], double ret_hi[3]);
/* Of everything that belongs to a thing. False: it has nothing that collides. */
bool shapes_bounds(const struct shapes *shapes, int thing, double ret_lo[3], double ret_hi[3]);
/* The highest point of what lies (partly) below the rectangle, leaving out one thing; -1: nothing, 0. */
double shapes_top(const struct shapes *shapes, const double lo[2], const double hi[2], int without);
