/* gather_desk.h - the host's gather (train/shards.h) among threads of one process that play ranks.
 *
 * A fast rank is at most one round ahead of a slow one. Thread rule: gather from any thread, one a rank; the rest when none
 * gathers. */
#pragma once

#include <pthread.h>
#include <stddef.h>

struct gather_desk {
    pthread_mutex_t lock;
    pthread_cond_t changed;             /* with every round */
    int ranks, here;
    unsigned round;                     /* gathers that all have come to, since the last reset */
    int fail_at;                        /* this one (from 1) fails on all ranks with -ECONNRESET; 0: none */
    char *bytes[2];                     /* of this round and the last */
    size_t size[2];
};
#define GATHER_DESK {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}

void gather_desk_reset(struct gather_desk *desk, int ranks);
void gather_desk_release(struct gather_desk *desk);
int gather_desk(struct gather_desk *desk, int rank, const void *mine, size_t bytes, void *ret_all);
