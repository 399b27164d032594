#include "nn/device/dnn.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nn/device/dnn_cache.h"

struct dnn {
    struct dnn_calls calls;
    void *library, *handle;
    pthread_mutex_t lock;       /* what follows, and calls with the handle */
    struct dnn_cache cache;
    char refusal[240];
};

struct dnn *dnn_wrap(const struct dnn_calls *calls)
{
    struct dnn *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->calls = *calls;
    pthread_mutex_init(&d->lock, NULL);
    return d;
}

struct dnn *dnn_open(char *why, size_t why_size)
{
    struct dnn_calls calls;
    struct dnn *d;
    void *library;

    if (dnn_calls_open(NULL, &calls, &library, why, why_size) < 0)
        return NULL;
    d = dnn_wrap(&calls);
    if (!d) {
        snprintf(why, why_size, "out of memory");
        dlclose(library);
        return NULL;
    }
    d->library = library;
    return d;
}

static void drop_plan(void *arg, struct dnn_plan *p)
{
    const struct dnn *d = arg;

    d->calls.descriptor_free(p->plan);
}

void dnn_close(struct dnn *d)
{
    if (!d)
        return;
    dnn_cache_clear(&d->cache, drop_plan, d);
    if (d->handle)
        d->calls.destroy(d->handle);
    if (d->library)
        dlclose(d->library);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

size_t dnn_version(const struct dnn *d) { return d->calls.version(); }

const char *dnn_refusal(const struct dnn *d) { return d->refusal; }

static void start(struct dnn *d)
{
    int status = d->calls.create(&d->handle);

    if (!status)
        return;
    d->handle = NULL;
    if (!d->refusal[0])
        snprintf(d->refusal, sizeof(d->refusal), "cuDNN does not start: %s", d->calls.error_string(status));
}

static int make_plan(void *arg, struct dnn_plan *p)
{
    struct dnn *d = arg;
    struct dnn_graph graph;
    char why[sizeof(graph.why)] = "";
    size_t version = d->calls.version();
    int r;

    if (!dnn_is_sound(version, &p->key)) {
        if (!d->refusal[0])
            snprintf(d->refusal, sizeof(d->refusal), "cuDNN %zu computes wrong %s; a later one does not", version,
                     p->key.backward ? "gradients where the keys are no multiple of 128" : "numbers for one query under a mask");
        return -ENOTSUP;
    }
    r = dnn_graph_build(&d->calls, d->handle, &p->key, &graph);
    if (r >= 0)
        r = dnn_plan_build(&d->calls, d->handle, NULL, &graph, dnn_plan_most(&p->key), &p->plan, &p->workspace, why, sizeof(why));
    if (r < 0 && !d->refusal[0])
        snprintf(d->refusal, sizeof(d->refusal), "%s", graph.why[0] ? graph.why : why);
    memcpy(p->uses, graph.uses, sizeof(p->uses));
    dnn_graph_release(&d->calls, &graph);
    return r;
}

/* Under the lock: the handle's stream is the caller's until its kernels are enqueued. */
static int run(struct dnn *d, struct device_stream *s, const struct device_attention *a, const struct dnn_plan *p,
               struct dnn_scratch *at, char **ret_scratch)
{
    float scale = a->scale, masked = dnn_masked(d->calls.version()), one = 1.0f;      /* read while the plan is handed over */
    char *memory;
    void *pointer[DNN_TENSORS] = {
        [DNN_Q] = (void *)(uintptr_t)a->q, [DNN_K] = (void *)(uintptr_t)a->k, [DNN_V] = (void *)(uintptr_t)a->v,
        [DNN_OUT] = a->out,
        [DNN_LSE] = a->lse, [DNN_SCALE] = &scale, [DNN_MASKED] = &masked,
        [DNN_DOUT] = (void *)(uintptr_t)a->dout, [DNN_ONE] = &one,
    };

    *at = dnn_lay_out(&p->key, p->workspace);
    memory = device_workspace(s, at->bytes ? at->bytes : 1);
    if (!memory)
        return -ENOMEM;
    pointer[DNN_DQ] = p->key.fresh ? a->dq : memory + at->dq;
    pointer[DNN_DK] = p->key.fresh ? a->dk : memory + at->dk;
    pointer[DNN_DV] = p->key.fresh ? a->dv : memory + at->dv;
    pointer[DNN_SUM] = memory + at->sum;
    *ret_scratch = memory;
    if (d->calls.set_stream(d->handle, s->stream))
        return -EIO;
    return dnn_plan_run(&d->calls, d->handle, p->plan, pointer, p->uses, memory + at->plan);
}

/* dq, dk and dv are added to what is there. */
static int add(struct device_stream *s, const struct dnn_key *k, const struct device_attention *a, const struct dnn_scratch *at,
               const char *memory)
{
    int64_t q_rows = k->n * k->asking, rows = k->n * k->keys;
    int r = s->k->copy_rows(s->stream, DEVICE_BF16, a->dq, k->q_stride, memory + at->dq, k->dq_stride, q_rows, k->dq_stride,
                            true);

    if (r >= 0)
        r = s->k->copy_rows(s->stream, DEVICE_BF16, a->dk, k->kv_stride, memory + at->dk, k->dkv_stride, rows, k->dkv_stride,
                            true);
    if (r >= 0)
        r = s->k->copy_rows(s->stream, DEVICE_BF16, a->dv, k->kv_stride, memory + at->dv, k->dkv_stride, rows, k->dkv_stride,
                            true);
    return r;
}

/* A plan that cannot be carried out: on a device that is whole the own kernel can; on one that is not, that says so, too. */
static int refuse(struct dnn *d, const struct dnn_plan *p, int r)
{
    char words[160] = "";

    d->calls.last_error(words, sizeof(words));
    if (!d->refusal[0] && r == -ENOMEM)
        snprintf(d->refusal, sizeof(d->refusal), "the %zu MiB that a plan works in are not free",
                 dnn_lay_out(&p->key, p->workspace).bytes >> 20);
    else if (!d->refusal[0])
        snprintf(d->refusal, sizeof(d->refusal), "cuDNN does not carry out its own plan: %s", words);
    dnn_cache_refuse(&d->cache, p, drop_plan, d);
    return -ENOTSUP;
}

int dnn_attention(struct device_stream *s, enum device_type type, const struct device_attention *a, bool backward)
{
    struct dnn *d = s->device->dnn;
    const struct dnn_plan *p;
    struct dnn_key key;
    struct dnn_scratch at;
    char *memory = NULL;
    int r;

    if (s->capturing || !dnn_key_of(type, a, backward, &key))
        return -ENOTSUP;
    pthread_mutex_lock(&d->lock);
    if (!d->handle)
        start(d);
    p = d->handle ? dnn_cache_plan(&d->cache, &key, make_plan, drop_plan, d) : NULL;
    r = p ? run(d, s, a, p, &at, &memory) : -ENOTSUP;
    if (p && r < 0)
        r = refuse(d, p, r);
    pthread_mutex_unlock(&d->lock);
    if (r == -ENOTSUP)
        atomic_fetch_add(&s->device->attention_fallbacks, 1);
    return r < 0 || !backward || key.fresh ? r : add(s, &key, a, &at, memory);
}
