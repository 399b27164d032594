/* expert.h - a scripted expert for LIBERO: reads the goal, looks into the simulator's state, and does one statement after the
 * other.
 *
 *   on, in          take the thing (grasp.h), carry it over what stands there, put it down; a plate is slid over the table
 *   open            take the drawer's or the door's handle and pull; first, where something shall go in
 *   close           push with closed fingers; last, where something shall go in
 *   turnon, turnoff take the knob and twist
 *
 * It knows no task by name. What it cannot do it tries again in another place until the episode ends; which tasks it solves, and
 * how often: docs/libero.md. Its memory is plain bytes in the slot's. One thread at a time. */
#pragma once

#include <stdint.h>

#include "sim/suites/libero/hold.h"

struct libero_slot;

enum expert_first { NOTHING_FIRST, ASIDE_FIRST, OPEN_FIRST };

struct expert_memory {
    uint32_t statement;    /* of the goal, in hand */
    uint32_t phase, steps; /* steps: in this phase */
    uint32_t attempts;     /* to take something */
    double grip[3], yaw;   /* where to take it */
    double thing[3];       /* where the thing was then */
    double target[3];      /* of the phase */
    uint32_t first;        /* enum expert_first: what must be done before the statement can be */
    uint32_t zero;
    double aside[2];  /* where the thing is put until the drawer is open */
    struct hold hold; /* of a drawer or a door */
};

/* The action for the present state. 0, -ENOMEM, or -EIO: the simulation broke. */
int libero_expert(struct libero_slot *slot, float ret_action[7]);
/* sim_demonstrate. clean: executed = expert + N(0, .15) on dx dy dz, label = expert; slow: executed = label = half the expert's
 * pace + N(0, .05). -EINVAL: no such style. */
int libero_demonstrate(struct libero_slot *slot, const char *style, uint64_t seed, int step, float ret_action[7],
                       float ret_label[7]);
