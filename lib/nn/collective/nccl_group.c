#include "nn/collective/nccl_group.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"

/* A call that enqueues, and may be in progress until the last rank is there: a group connects with its first one, and a rank that
 * reads its model from afar comes minutes later. GRACE_MS: how much later than its caller the watchdog is. */
enum { CALL_MS = 300000, GRACE_MS = 1000 };

struct nccl_group {
    const struct nccl_calls *calls;
    void *comm;
    int ranks;
    pthread_t watchdog;
    pthread_mutex_t lock;               /* what follows */
    pthread_cond_t changed;
    uint64_t deadline;                  /* of the call in progress, monotone ms; 0: none is */
    bool broken, leaving;
    bool inside, abort_due;             /* the caller is inside a call on comm; broken meanwhile, comm not yet aborted */
    char why[200];
};

/* NCCL gives no way to wait for its progress: its own examples poll, too. Short at first, then a tenth of a millisecond. */
static void pause_briefly(unsigned *turns)
{
    if ((*turns)++ > 64)
        nanosleep(&(struct timespec) {.tv_nsec = 100000}, NULL);
}

/* Abort frees the communicator: once, and not while a call may be about to enter it. The lock is held. */
static void abort_comm(struct nccl_group *g)
{
    if (g->comm)
        (void)g->calls->comm_abort(g->comm);
    g->comm = NULL;
    g->abort_due = false;
}

static void break_group(struct nccl_group *g, const char *why)
{
    if (g->broken)
        return;
    g->broken = true;
    snprintf(g->why, sizeof g->why, "%s", why);
    if (g->inside)
        g->abort_due = true;            /* by the caller when it comes out, by the watchdog when it does not */
    else
        abort_comm(g);
    pthread_cond_signal(&g->changed);
}

void nccl_group_abort(struct nccl_group *g, const char *why)
{
    pthread_mutex_lock(&g->lock);
    break_group(g, why);
    pthread_mutex_unlock(&g->lock);
}

bool nccl_group_broken(struct nccl_group *g)
{
    bool broken;

    pthread_mutex_lock(&g->lock);
    broken = g->broken;
    pthread_mutex_unlock(&g->lock);
    return broken;
}

const char *nccl_group_why(struct nccl_group *g) { return nccl_group_broken(g) ? g->why : ""; }

/* For a caller that no longer polls: stuck in the driver, behind a kernel whose peer is gone. */
static void *watch(void *arg)
{
    struct nccl_group *g = arg;

    pthread_mutex_lock(&g->lock);
    while (!g->leaving && (!g->broken || g->abort_due)) {
        uint64_t now = clock_mono_ms(), until = g->deadline ? g->deadline + GRACE_MS : now + CALL_MS;
        struct timespec at = {.tv_sec = (time_t)(until / 1000), .tv_nsec = (long)(until % 1000) * 1000000};

        if (g->deadline && now >= until) {      /* stuck inside: NCCL lets another thread abort under it */
            break_group(g, "a call did not come back: the watchdog aborted the group");
            abort_comm(g);
        } else
            pthread_cond_timedwait(&g->changed, &g->lock, &at);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

/* Begin a call; -ECONNRESET: the group is broken. */
static int begin(struct nccl_group *g, unsigned timeout_ms)
{
    bool broken;

    pthread_mutex_lock(&g->lock);
    broken = g->broken;
    g->deadline = broken ? 0 : clock_mono_ms() + timeout_ms;
    g->inside = !broken;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->lock);
    return broken ? -ECONNRESET : 0;
}

/* The call on the communicator has come back; what follows only polls, under the lock. */
static void outside(struct nccl_group *g)
{
    pthread_mutex_lock(&g->lock);
    g->inside = false;
    if (g->abort_due)
        abort_comm(g);
    pthread_mutex_unlock(&g->lock);
}

/* End it: result >= 0 is passed on, anything else breaks the group. */
static int end(struct nccl_group *g, int result, const char *why)
{
    pthread_mutex_lock(&g->lock);
    g->deadline = 0;
    if (result < 0)
        break_group(g, why);
    if (g->broken)
        result = -ECONNRESET;
    pthread_mutex_unlock(&g->lock);
    return result;
}

/* Whether the call in progress may go on: 0, or -errno with its reason. */
static int look(struct nccl_group *g, char *ret_why, size_t n)
{
    int async = NCCL_SUCCESS, r;
    bool late;

    pthread_mutex_lock(&g->lock);
    r = g->broken ? -ECONNRESET : 0;
    late = g->deadline && clock_mono_ms() >= g->deadline;
    if (r == 0 && g->comm && g->calls->comm_get_async_error(g->comm, &async) != NCCL_SUCCESS)
        r = -EIO;
    pthread_mutex_unlock(&g->lock);
    if (r == 0 && async != NCCL_SUCCESS && async != NCCL_IN_PROGRESS) {
        snprintf(ret_why, n, "NCCL: %s", g->calls->get_error_string(async));
        return -EIO;
    }
    if (r == 0 && late) {
        snprintf(ret_why, n, "a peer did not take part in time");
        return -ETIMEDOUT;
    }
    return r == 0 && async == NCCL_IN_PROGRESS ? 1 : r;
}

/* Poll until what a call on the communicator began is done. */
static int settle(struct nccl_group *g, int result, char *ret_why, size_t n)
{
    unsigned turns = 0;
    int r;

    outside(g);
    if (result != NCCL_SUCCESS && result != NCCL_IN_PROGRESS) {
        snprintf(ret_why, n, "NCCL: %s", g->calls->get_error_string(result));
        return -EIO;
    }
    if (result == NCCL_SUCCESS)
        return 0;
    while ((r = look(g, ret_why, n)) > 0)
        pause_briefly(&turns);
    return r;
}

int nccl_group_make_id(const struct nccl_calls *calls, struct nccl_id *ret, struct error *error)
{
    struct nccl_id id;
    int r = calls->get_unique_id(&id);

    if (r != NCCL_SUCCESS)
        return error_set(error, EIO, "NCCL cannot make an id for a group: %s", calls->get_error_string(r));
    *ret = id;
    return 0;
}

static struct nccl_group *release(struct nccl_group *g)
{
    pthread_mutex_lock(&g->lock);
    g->leaving = true;
    pthread_cond_signal(&g->changed);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->watchdog, NULL);
    pthread_cond_destroy(&g->changed);
    pthread_mutex_destroy(&g->lock);
    free(g);
    return NULL;
}

static int group_new(const struct nccl_calls *calls, int ranks, struct nccl_group **ret)
{
    struct nccl_group *g = calloc(1, sizeof *g);
    pthread_condattr_t monotone;

    if (!g)
        return -ENOMEM;
    g->calls = calls;
    g->ranks = ranks;
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&monotone);
    pthread_condattr_setclock(&monotone, CLOCK_MONOTONIC);
    pthread_cond_init(&g->changed, &monotone);
    pthread_condattr_destroy(&monotone);
    if (pthread_create(&g->watchdog, NULL, watch, g)) {
        pthread_cond_destroy(&g->changed);
        pthread_mutex_destroy(&g->lock);
        free(g);
        return -EAGAIN;
    }
    *ret = g;
    return 0;
}

int nccl_group_join(const struct nccl_calls *calls, const struct nccl_id *id, int rank, int ranks, unsigned timeout_ms,
                    struct nccl_group **ret, struct error *error)
{
    struct nccl_config config = {
        .size = sizeof config, .magic = NCCL_CONFIG_MAGIC, .version = NCCL_CONFIG_VERSION, .blocking = 0,
        .cga_cluster_size = INT_MIN, .min_ctas = INT_MIN, .max_ctas = INT_MIN, .split_share = INT_MIN,
    };
    struct nccl_group *g;
    char why[160] = "";
    void *comm = NULL;
    int result, r;

    if (ranks < 1 || rank < 0 || rank >= ranks)
        return error_set(error, EINVAL, "rank %d of %d", rank, ranks);
    r = group_new(calls, ranks, &g);
    if (r < 0)
        return error_set(error, -r, "a group of %d ranks: no memory or thread for it", ranks);
    (void)begin(g, timeout_ms);
    result = calls->comm_init_rank_config(&comm, ranks, *id, rank, &config);
    pthread_mutex_lock(&g->lock);
    g->comm = comm;
    g->abort_due |= g->broken;          /* the watchdog was faster, and had nothing to abort */
    pthread_mutex_unlock(&g->lock);
    r = settle(g, result, why, sizeof why);
    r = r < 0 ? r : 0;
    if (end(g, r, why) < 0) {
        result = r ? r : -ECONNRESET;
        error_set(error, -result, "rank %d of %d cannot join the others: %s", rank, ranks, g->why);
        release(g);
        return result;
    }
    *ret = g;
    return 0;
}

struct nccl_group *nccl_group_free(struct nccl_group *g)
{
    char why[160] = "";

    if (!g)
        return NULL;
    if (begin(g, CALL_MS) == 0) {
        int r = settle(g, g->calls->comm_finalize(g->comm), why, sizeof why);

        if (end(g, r < 0 ? r : 0, why) == 0)
            (void)g->calls->comm_destroy(TAKE_PTR(g->comm));
    }
    return release(g);
}

int nccl_group_all_reduce(struct nccl_group *g, void *data, size_t count, enum nccl_type type, void *stream)
{
    char why[160] = "";
    int r = begin(g, CALL_MS);

    if (r < 0)
        return r;
    r = settle(g, g->calls->all_reduce(data, data, count, type, NCCL_SUM, g->comm, stream), why, sizeof why);
    return end(g, r, why);
}

int nccl_group_all_gather(struct nccl_group *g, const void *mine, size_t bytes, void *ret_all, void *stream)
{
    char why[160] = "";
    int r = begin(g, CALL_MS);

    if (r < 0)
        return r;
    r = settle(g, g->calls->all_gather(mine, ret_all, bytes, NCCL_UINT8, g->comm, stream), why, sizeof why);
    return end(g, r, why);
}

int nccl_group_wait(struct nccl_group *g, const struct nccl_stream *stream, unsigned timeout_ms)
{
    unsigned turns = 0;
    char why[160] = "";
    int r = begin(g, timeout_ms), done = 0;

    if (r < 0)
        return r;
    outside(g);
    while ((done = stream->done(stream->handle)) == 0 && (r = look(g, why, sizeof why)) >= 0)
        pause_briefly(&turns);
    if (done < 0) {
        snprintf(why, sizeof why, "the device failed");
        r = done;
    }
    return end(g, r < 0 ? r : 0, why);
}
