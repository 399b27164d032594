/* nccl_library.c - NCCL played between processes of one host, as a libnccl.so.2 that learners open: memory is the host's (the
 * emulated device), ranks meet in a file below /dev/shm that the id names. What is asked for is "in progress" until all ranks
 * have asked for it, as on a communicator with blocking = 0; a rank whose process is gone shows as a remote error. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nn/collective/nccl_calls.h"

enum { RANKS = 8, MOST = 24 << 20, UNHANDLED = 1 };

struct meeting {
    atomic_int process[RANKS];          /* 0: has not joined */
    atomic_uint given[RANKS];           /* operations */
    char desk[2][RANKS][MOST];          /* of an operation and the next; sparse */
};

struct comm {
    int rank, ranks;
    struct meeting *meeting;
    unsigned given;
    size_t bytes;
    float *sum;                         /* of the operation in progress */
    char *all;
};

int ncclGetVersion(int *ret);
int ncclGetUniqueId(struct nccl_id *ret);
int ncclCommInitRankConfig(void **ret, int ranks, struct nccl_id id, int rank, struct nccl_config *config);
int ncclCommGetAsyncError(void *comm, int *ret);
int ncclCommAbort(void *comm);
int ncclCommFinalize(void *comm);
int ncclCommDestroy(void *comm);
int ncclAllReduce(const void *send, void *ret, size_t count, int type, int op, void *comm, void *stream);
int ncclAllGather(const void *send, void *ret, size_t count, int type, void *comm, void *stream);
const char *ncclGetErrorString(int result);

int ncclGetVersion(int *ret)
{
    *ret = NCCL_CONFIG_VERSION;
    return NCCL_SUCCESS;
}

int ncclGetUniqueId(struct nccl_id *ret)
{
    static int made;

    memset(ret, 0, sizeof *ret);
    snprintf(ret->bytes, sizeof ret->bytes, "/dev/shm/gantry-nccl-%d-%d", (int)getpid(), made++);
    return NCCL_SUCCESS;
}

int ncclCommInitRankConfig(void **ret, int ranks, struct nccl_id id, int rank, struct nccl_config *config)
{
    struct comm *c = calloc(1, sizeof *c);
    int fd = open(id.bytes, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (!c || fd < 0 || config->blocking || ranks > RANKS || ftruncate(fd, sizeof(struct meeting)) < 0)
        return UNHANDLED;
    c->meeting = mmap(NULL, sizeof *c->meeting, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (c->meeting == MAP_FAILED)
        return UNHANDLED;
    c->rank = rank;
    c->ranks = ranks;
    atomic_store(&c->meeting->process[rank], (int)getpid());
    if (rank == 0)
        setenv("GANTRY_NCCL_FILE", id.bytes, 1);        /* whoever is first unlinks it once all are in */
    *ret = c;
    return NCCL_IN_PROGRESS;
}

static void take(struct comm *c)
{
    char (*desk)[MOST] = c->meeting->desk[c->given % 2];

    for (int i = 0; i < c->ranks && c->all; i++)
        memcpy(c->all + (size_t)i * c->bytes, desk[i], c->bytes);
    for (size_t k = 0; c->sum && k < c->bytes / sizeof(float); k++) {
        float x = ((float *)desk[0])[k];

        for (int i = 1; i < c->ranks; i++)
            x += ((float *)desk[i])[k];
        c->sum[k] = x;
    }
    c->sum = NULL;
    c->all = NULL;
}

int ncclCommGetAsyncError(void *comm, int *ret)
{
    struct comm *c = comm;
    bool all = true;

    for (int i = 0; i < c->ranks; i++) {
        int process = atomic_load(&c->meeting->process[i]);

        all = all && process && atomic_load(&c->meeting->given[i]) >= c->given;
        if (process && kill(process, 0) < 0 && errno == ESRCH) {
            *ret = NCCL_REMOTE_ERROR;
            return NCCL_SUCCESS;
        }
    }
    if (all && c->rank == 0 && getenv("GANTRY_NCCL_FILE")) {
        unlink(getenv("GANTRY_NCCL_FILE"));
        unsetenv("GANTRY_NCCL_FILE");
    }
    if (all)
        take(c);
    *ret = all ? NCCL_SUCCESS : NCCL_IN_PROGRESS;
    return NCCL_SUCCESS;
}

int ncclCommDestroy(void *comm)
{
    struct comm *c = comm;

    munmap(c->meeting, sizeof *c->meeting);
    free(c);
    return NCCL_SUCCESS;
}

int ncclCommAbort(void *comm) { return ncclCommDestroy(comm); }

int ncclCommFinalize(void *comm)
{
    (void)comm;
    return NCCL_SUCCESS;
}

static int give(struct comm *c, const void *mine, size_t bytes, float *sum, void *all)
{
    if (bytes > MOST)
        return UNHANDLED;
    c->given++;
    memcpy(c->meeting->desk[c->given % 2][c->rank], mine, bytes);
    c->bytes = bytes;
    c->sum = sum;
    c->all = all;
    atomic_store(&c->meeting->given[c->rank], c->given);
    return NCCL_IN_PROGRESS;
}

int ncclAllReduce(const void *send, void *ret, size_t count, int type, int op, void *comm, void *stream)
{
    (void)stream;
    return type != NCCL_FLOAT32 || op != NCCL_SUM ? UNHANDLED : give(comm, send, count * sizeof(float), ret, NULL);
}

int ncclAllGather(const void *send, void *ret, size_t count, int type, void *comm, void *stream)
{
    (void)stream;
    return type != NCCL_UINT8 ? UNHANDLED : give(comm, send, count, NULL, ret);
}

const char *ncclGetErrorString(int result) { return result == NCCL_REMOTE_ERROR ? "remote process exited" : "unhandled error"; }
