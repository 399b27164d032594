/* nccl_stand_in.h - NCCL played in one process: ranks are threads, memory is the host's, and peers can be
 * late, dead or broken. */
#pragma once

#include <pthread.h>

#include "nn/collective/nccl_group.h"

enum { NCCL_RANKS = 4, NCCL_NUMBERS = 1000, NCCL_TEXT = 16 };      /* all_reduce and all_gather take just so much */

struct nccl_world {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int ids;                            /* made so far */
    int joined, arrived;                /* ranks in the group of the last id; ranks that have enqueued the present operation */
    unsigned operations;                /* finished */
    float sum[NCCL_NUMBERS];
    char all[NCCL_RANKS][NCCL_TEXT];
    int aborts, destroys;
    int init_polls;                     /* "in progress" so often before a join is done */
    int error_at;                       /* rank whose asynchronous error appears; -1: none */
    bool stuck;                         /* enqueueing does not return until the communicator is aborted */

    /* A device that carries everything out at once (tests/emulate): operations of any size, "in progress" until all ranks are
     * there */
    bool at_once;
    struct { char *bytes[NCCL_RANKS]; size_t size; int here, taken; } desk[2];    /* of an operation and the next */
    int gathers, reductions;            /* begun by rank 0 */
    /* Operands are a device's: how the host gets at them, on the operation's stream. NULL: they are the host's. */
    int (*download)(void *stream, void *host, const void *device, size_t bytes);
    int (*upload)(void *stream, void *device, const void *host, size_t bytes);
};
extern struct nccl_world nccl_world;
extern const struct nccl_calls nccl_stand_in;

/* Before each test: no group, no faults. */
int nccl_world_reset(void **state);
/* The stream on which a group's operations are enqueued: they are done when every rank has enqueued them. */
struct nccl_stream nccl_stand_in_stream(struct nccl_group *group);
