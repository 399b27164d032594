#include "nn/device/dnn_cache.h"

#include <string.h>

static void empty(struct dnn_plan *p, dnn_drop_fn *drop, void *arg)
{
    if (p->plan)
        drop(arg, p);
    *p = (struct dnn_plan){0};
}

static uint64_t hash_of(const struct dnn_key *key)
{
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < sizeof(*key); i++)
        hash = (hash ^ ((const uint8_t *)key)[i]) * 1099511628211u;
    return hash;
}

const struct dnn_plan *dnn_cache_plan(struct dnn_cache *c, const struct dnn_key *key, dnn_make_fn *make, dnn_drop_fn *drop,
                                      void *arg)
{
    struct dnn_plan *p = NULL, *oldest = &c->plan[0];
    uint64_t hash = hash_of(key);

    for (int i = 0; i < DNN_PLANS && !p; i++) {
        if (c->hash[i] == hash && c->plan[i].used && !memcmp(&c->plan[i].key, key, sizeof(*key)))
            p = &c->plan[i];
        if (c->plan[i].turn < oldest->turn)
            oldest = &c->plan[i];
    }
    if (!p) {
        p = oldest;
        c->evicted += p->used;
        empty(p, drop, arg);
        p->key = *key;
        c->hash[p - c->plan] = hash;
        p->used = true;
        p->refused = make(arg, p) < 0;
        c->refused += p->refused;
        c->made += !p->refused;
    }
    p->turn = ++c->turn;
    return p->refused ? NULL : p;
}

void dnn_cache_refuse(struct dnn_cache *c, const struct dnn_plan *plan, dnn_drop_fn *drop, void *arg)
{
    struct dnn_plan *p = &c->plan[plan - c->plan];

    if (p->plan)
        drop(arg, p);
    p->plan = NULL;
    p->refused = true;
    c->refused++;
}

void dnn_cache_clear(struct dnn_cache *c, dnn_drop_fn *drop, void *arg)
{
    for (int i = 0; i < DNN_PLANS; i++)
        empty(&c->plan[i], drop, arg);
}
