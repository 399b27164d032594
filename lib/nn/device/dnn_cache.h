/* dnn_cache.h - the plans that were made, by key: a plan takes tens to hundreds of milliseconds to find, and a refusal as long.
 *
 * Of DNN_PLANS the least used makes room. Refusals are kept like plans: what cuDNN does not take is asked for once. Thread rule:
 * the caller's lock. */
#pragma once

#include "nn/device/dnn_graph.h"

enum { DNN_PLANS = 256 };

struct dnn_plan {
    struct dnn_key key;
    bool used, refused;
    uint64_t turn;              /* of its last use */
    void *plan;                 /* the library's; NULL when refused */
    size_t workspace;
    bool uses[DNN_TENSORS];
};

struct dnn_cache {
    struct dnn_plan plan[DNN_PLANS];
    uint64_t hash[DNN_PLANS];   /* of the keys: what is looked at first */
    uint64_t turn;
    unsigned long long made, refused, evicted;
};

/* Fill in plan, workspace and uses for ret->key; a failure is a refusal. */
typedef int dnn_make_fn(void *arg, struct dnn_plan *ret);
/* Give the plan back (plan->plan is not NULL). */
typedef void dnn_drop_fn(void *arg, struct dnn_plan *plan);

/* The key's plan, made when it is not there; NULL: refused, now or before. */
const struct dnn_plan *dnn_cache_plan(struct dnn_cache *cache, const struct dnn_key *key, dnn_make_fn *make, dnn_drop_fn *drop,
                                      void *arg);
/* A plan that turned out to be none: as if it had been refused. It must be in the cache. */
void dnn_cache_refuse(struct dnn_cache *cache, const struct dnn_plan *plan, dnn_drop_fn *drop, void *arg);
void dnn_cache_clear(struct dnn_cache *cache, dnn_drop_fn *drop, void *arg);
