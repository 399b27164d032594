#include "train/device_group.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct device_group {
    const struct nccl_calls *calls;
    struct group host;
    uint32_t epoch;                     /* of `nccl`, or of the last one */
    pthread_mutex_t lock;               /* abort comes from another thread */
    struct nccl_group *nccl;
};

/* What a rank tells the others; all three exchanges have this shape. */
struct word {
    uint32_t holds;                     /* epoch of the whole group it holds; 0: none */
    uint32_t last;                      /* the highest epoch it knows */
    int32_t result;                     /* of what it just did: 0 or -errno */
    struct nccl_id id;                  /* rank 0's */
};

int device_group_new(const struct nccl_calls *calls, const struct group *host, struct device_group **ret)
{
    struct device_group *g = calloc(1, sizeof *g);

    if (!g)
        return -ENOMEM;
    g->calls = calls;
    g->host = *host;
    pthread_mutex_init(&g->lock, NULL);
    *ret = g;
    return 0;
}

static void replace(struct device_group *g, struct nccl_group *with)
{
    struct nccl_group *old;

    pthread_mutex_lock(&g->lock);
    old = g->nccl;
    g->nccl = with;
    pthread_mutex_unlock(&g->lock);
    nccl_group_free(old);
}

struct device_group *device_group_free(struct device_group *g)
{
    if (!g)
        return NULL;
    replace(g, NULL);
    pthread_mutex_destroy(&g->lock);
    free(g);
    return NULL;
}

struct nccl_group *device_group_nccl(struct device_group *g) { return g->nccl; }
uint32_t device_group_epoch(const struct device_group *g) { return g->epoch; }

void device_group_abort(struct device_group *g, const char *why)
{
    pthread_mutex_lock(&g->lock);
    if (g->nccl)
        nccl_group_abort(g->nccl, why);
    pthread_mutex_unlock(&g->lock);
}

static int exchange(struct device_group *g, const struct word *mine, struct word *ret_all, struct error *error)
{
    int r = g->host.gather(g->host.arg, mine, sizeof *mine, ret_all);

    return r < 0 ? error_set(error, -r, "the learner's ranks cannot talk to one another") : 0;
}

/* The first rank whose word is a failure; -1: none. */
static int who_failed(const struct word *all, int ranks)
{
    for (int i = 0; i < ranks; i++)
        if (all[i].result < 0)
            return i;
    return -1;
}

static int join_anew(struct device_group *g, struct word *all, unsigned timeout_ms, struct error *error)
{
    struct nccl_group *nccl = NULL;
    struct error why = {0};
    struct word mine = {.last = g->epoch};
    int r, bad;

    replace(g, NULL);
    if (g->host.rank == 0)
        mine.result = nccl_group_make_id(g->calls, &mine.id, &why);
    r = exchange(g, &mine, all, error);
    if (r < 0)
        return r;
    if (all[0].result < 0)
        return error_set(error, -all[0].result, "rank 0 could not make a group: %s", why.text[0] ? why.text : "its log says why");

    mine.result = nccl_group_join(g->calls, &all[0].id, g->host.rank, g->host.ranks, timeout_ms, &nccl, &why);
    r = exchange(g, &mine, all, error);
    bad = r < 0 ? -1 : who_failed(all, g->host.ranks);
    if (r < 0 || bad >= 0) {
        if (nccl)                       /* the others do not hold it: in order, it would wait for them */
            nccl_group_abort(nccl, "another rank did not join");
        nccl_group_free(nccl);
    }
    if (r < 0)
        return r;
    if (bad >= 0)
        return error_set(error, -all[bad].result, "rank %d did not join the others' group: %s", bad,
                         mine.result < 0 ? why.text : "its log says why");
    replace(g, nccl);
    return 0;
}

int device_group_agree(struct device_group *g, unsigned timeout_ms, struct error *error)
{
    _cleanup_free_ struct word *all = calloc((size_t)g->host.ranks, sizeof *all);
    struct word mine = {.holds = g->nccl && !nccl_group_broken(g->nccl) ? g->epoch : 0, .last = g->epoch};
    bool same = mine.holds != 0;
    int r;

    if (!all)
        return error_set(error, ENOMEM, "no memory for the words of %d ranks", g->host.ranks);
    r = exchange(g, &mine, all, error);
    if (r < 0)
        return r;
    for (int i = 0; i < g->host.ranks; i++) {
        same &= all[i].holds == mine.holds;
        g->epoch = all[i].last > g->epoch ? all[i].last : g->epoch;
    }
    if (same)
        return 0;
    if (g->nccl)                        /* to leave in order would wait for ranks that are gone */
        device_group_abort(g, "the group is made anew");
    g->epoch++;
    return join_anew(g, all, timeout_ms, error);
}
