/* part.h - a drawer, a door: the part of a thing that moves about one joint, and where it shall go.
 *
 * Made anew from every state that is looked at. Lengths in m, rad, world frame. Pure but for the mjData read. */
#pragma once

#include <mujoco/mujoco.h>
#include <stdbool.h>

struct part {
    int joint, body;
    bool slides; /* else it turns */
    double axis[3], anchor[3];
    double q, to;        /* where the joint is, and where it shall be */
    const double *x, *R; /* of the body */
};

/* to: the joint's value that the goal wants. */
void part_init(const mjModel *model, const mjData *data, int joint, double to, struct part *ret);
/* 1 or -1: which way the joint shall go. */
double part_sign(const struct part *part);
/* Where a point of it goes, m for a rad or m of the joint, in the direction wanted. */
void part_velocity(const struct part *part, const double point[3], double ret[3]);
/* What moves with it, after dq more of the joint. */
void part_carry(const struct part *part, double dq, double x[3], double R[9]);
