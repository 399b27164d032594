/* reply.h - what a simulator that is not ours answers: JSON heads from outside, checked and copied (docs/remote.md).
 *
 * Pure functions on bytes. Failure: -EBADMSG for what makes no sense, with the line that names the field; -EREMOTEIO when the
 * reply is an error that the simulator reports itself, whose text is the line. */
#pragma once

#include "sim/sim.h"

enum {
    REMOTE_TASKS_MAX = 96, REMOTE_NAME_MAX = 112, REMOTE_INSTRUCTION_MAX = 128, REMOTE_PROPRIO_MAX = 64, REMOTE_CAMERAS_MAX = 8,
    REMOTE_SIDE_MAX = 4096, REMOTE_STATE_MAX = 64 << 20,
};

struct remote_description {
    int height, width, cameras, proprio;        /* of what comes with an observation */
    int action_dims;            /* of what a step takes */
    size_t state_bytes;         /* the most that save returns; 0: it cannot */
    bool expert;
    int n_tasks;
    struct sim_task_info infos[REMOTE_TASKS_MAX];       /* their texts are below: never copied, only filled in place */
    char names[REMOTE_TASKS_MAX][REMOTE_NAME_MAX], instructions[REMOTE_TASKS_MAX][REMOTE_INSTRUCTION_MAX];
};

struct remote_observation {
    bool success;
    float reward;               /* step's; NaN: it says none */
    char instruction[REMOTE_INSTRUCTION_MAX];   /* reset's; "": it says none */
    float proprio[REMOTE_PROPRIO_MAX];
};

/* Bytes of the pictures of one observation. */
size_t remote_picture_bytes(const struct remote_description *what);

/* *ret is undefined after a failure. */
int remote_read_description(const char *head, size_t n, struct remote_description *ret, struct error *error);
int remote_read_observation(const char *head, size_t n, int proprio, struct remote_observation *ret, struct error *error);
int remote_read_expert(const char *head, size_t n, int action_dims, float *ret_action, float *ret_label, struct error *error);
/* Of save: an object that reports no error. */
int remote_read_nothing(const char *head, size_t n, struct error *error);
