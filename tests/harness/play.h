/* play.h - episodes played in this process, without daemons: demonstrators or a policy, many at once, into a data set.
 *
 * For experiments (tests/bench/lab.c) and tests of training: what the cluster does with leases and sockets, here is a loop over
 * slots. One thread. */
#pragma once

#include "sim/sim.h"
#include "train/sample.h"

enum { PLAY_MAX_TASKS = 8, PLAY_SLOTS = 16 };       /* slots per task: the policy's batch is up to tasks * slots */

struct play_world {
    struct sim_suite *suite;
    struct sim_renderer *renderer;
    struct sim_task *task[PLAY_MAX_TASKS]; int tasks;
    struct sim_slot *slot[PLAY_MAX_TASKS][PLAY_SLOTS];
    int size;                                       /* pictures are size x size */
};

int play_world_open(const char *suite, const char *const *tasks, int n, int size, struct play_world **ret, struct error *error);
struct play_world *play_world_close(struct play_world *world);
DEFINE_FREEP(struct play_world, play_world_close)

struct play_row {
    uint64_t id, state_seed;
    int task;
    bool success;               /* out */
    int steps;                  /* out */
};

struct play {
    struct play_row *rows; int n;
    enum sim_split split;
    int max_steps[PLAY_MAX_TASKS];                  /* 0: the task's own */
    const char *style;                              /* a demonstrator's style; NULL: `policy` plays */
    const struct openvla *policy; double temperature; uint64_t seed, version;
    const struct openvla *prm;                      /* NULL: not scored */
    struct dataset *out;                            /* NULL: only outcomes */
};
int play_all(struct play_world *world, struct play *play, struct error *error);
