#include "nn/device/mirror.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "nn/lora_join.h"

/* Matrices that are bf16 on the host too, on a device: they never change, so models that have the very same ones (versions on one
 * base, nn/base_files.h) share them there. */
struct halves {
    struct halves *next;
    const struct device *device;
    int references, n;         /* by lock, as what follows */
    bool sent;                 /* or the try has failed: */
    int error;
    uint16_t *memory;          /* device */
    const uint16_t *from[];    /* [n] where each is on the host, which holds it for as long as this is there */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;
static struct halves *all_halves;

struct mirror {
    struct device_stream *s;
    int64_t numel;
    float *values;     /* device: [numel] */
    uint16_t *rounded; /* device: [numel] the same as bf16; NULL: not wanted */
    struct halves *half;
    char *joined;      /* device: the A matrices of groups of adapters, fp32 or bf16 as activations are; NULL: not wanted so
                        * far */
    bool joining;      /* they are used */
    int count;         /* parameters it was made for */
    uint64_t id;
};

static int64_t padded(int64_t n) { return (n + 127) / 128 * 128; }

static void halves_unref(struct halves *h, const struct device_kernels *k)
{
    if (!h)
        return;
    pthread_mutex_lock(&lock);
    if (--h->references == 0) {
        for (struct halves **at = &all_halves; *at; at = &(*at)->next)
            if (*at == h) {
                *at = h->next;
                break;
            }
        k->release(h->memory);
        free(h);
    }
    pthread_mutex_unlock(&lock);
}

struct mirror *mirror_free(struct mirror *m)
{
    if (!m)
        return NULL;
    if (m->s) {
        m->s->k->use(m->s->device->ordinal, NULL, NULL, 0);
        m->s->k->wait(m->s->stream);
        m->s->k->release(m->values);
        m->s->k->release(m->rounded);
        halves_unref(m->half, m->s->k);
        m->s->k->release(m->joined);
    }
    device_stream_free(m->s);
    free(m);
    return NULL;
}

size_t mirror_bytes(const struct params *params, bool half)
{
    size_t bytes = 0;

    for (int i = 0; i < params->count; i++) {
        const struct param *p = params->list[i];

        /* as mirror_new and the arena have them */
        bytes += p->half ? (size_t)padded(p->numel) * 2 : (size_t)((p->numel + 15) / 16 * 16) * (half ? 6 : 4);
    }
    return bytes;
}

size_t mirror_shared_bytes(const struct params *params)
{
    size_t bytes = 0;

    for (int i = 0; i < params->count; i++)
        bytes += params->list[i]->half ? (size_t)padded(params->list[i]->numel) * 2 : 0;
    return bytes;
}

size_t mirror_joined_bytes(const struct params *params, bool half, bool strict)
{
    size_t bytes = 0;

    for (int i = 0; i < params->n_joins && !(half && strict); i++)
        bytes += (size_t)padded(params->joins[i]->a.numel) * (half ? sizeof(uint16_t) : sizeof(float));
    return bytes;
}

/* Do all of params' lie where these were sent from? */
static bool are_the_same(const struct params *params, const struct device *device, const struct halves *h)
{
    int n = 0;

    if (h->device != device)
        return false;
    for (int i = 0; i < params->count; i++)
        if (params->list[i]->half && (n == h->n || h->from[n++] != params->list[i]->bf16))
            return false;
    return n == h->n;
}

/* In the list from here on, so that who comes meanwhile waits for these and sends none of his own. Under the lock. */
static struct halves *halves_new(const struct params *params, int n, const struct device *device)
{
    struct halves *h = calloc(1, sizeof(*h) + (size_t)n * sizeof(*h->from));

    if (!h)
        return NULL;
    h->device = device;
    h->references = 1;
    h->next = all_halves;
    for (int i = 0; i < params->count; i++)
        if (params->list[i]->half)
            h->from[h->n++] = params->list[i]->bf16;
    all_halves = h;
    return h;
}

/* Sent, and there: others read them on streams of their own. It takes seconds, without the lock. */
static int halves_send(const struct params *params, struct device_stream *s, struct halves *h)
{
    uint16_t *memory = NULL;
    int64_t at = 0;
    int r;

    for (int i = 0; i < params->count; i++)
        at += params->list[i]->half ? padded(params->list[i]->numel) : 0;
    r = s->k->alloc((size_t)at * sizeof(uint16_t), (void **)&memory);
    at = 0;
    for (int i = 0; i < params->count && r >= 0; i++) {
        const struct param *p = params->list[i];

        if (!p->half)
            continue;
        r = s->k->upload(s->stream, memory + at, p->bf16, (size_t)p->numel * sizeof(uint16_t));
        at += padded(p->numel);
    }
    if (r >= 0)
        r = s->k->wait(s->stream);
    pthread_mutex_lock(&lock);
    h->memory = memory;         /* also of a try that failed: the last who has it gives it back */
    h->error = r;
    h->sent = true;
    pthread_cond_broadcast(&news);
    pthread_mutex_unlock(&lock);
    return r;
}

/* Those that are there already, or sent now; NULL: params has none. */
static int halves_get(const struct params *params, struct device_stream *s, struct halves **ret)
{
    struct halves *h;
    bool mine;
    int n = 0, r;

    for (int i = 0; i < params->count; i++)
        n += params->list[i]->half;
    if (!n)
        return 0;
    pthread_mutex_lock(&lock);
    for (h = all_halves; h && !(are_the_same(params, s->device, h) && h->error >= 0); h = h->next)
        ;
    mine = !h;
    if (mine)
        h = halves_new(params, n, s->device);
    else
        h->references++;
    while (h && !mine && !h->sent)
        pthread_cond_wait(&news, &lock);
    r = h ? h->error : -ENOMEM;
    pthread_mutex_unlock(&lock);
    if (h && mine)
        r = halves_send(params, s, h);
    *ret = h;                   /* mirror_free gives it back, whatever became of it */
    return r;
}

static void point_to_halves(const struct params *params, const struct mirror *m)
{
    int64_t at = 0;

    for (int i = 0; i < params->count; i++) {
        struct param *p = params->list[i];

        if (!p->half)
            continue;
        p->on_bf16 = m->half->memory + at;
        p->on_f32 = NULL;
        at += padded(p->numel);
    }
}

static uint64_t new_id(void)
{
    static atomic_ullong made;

    return atomic_fetch_add(&made, 1) + 1;
}

static int mirror_new(struct params *params, struct mirror **ret)
{
    struct mirror *m = calloc(1, sizeof(*m));
    int r;

    if (!m)
        return -ENOMEM;
    m->id = new_id();
    m->numel = params->numel;
    m->count = params->count;
    r = device_stream_new(params->device, &m->s);
    if (r >= 0)
        r = m->s->k->alloc((size_t)m->numel * sizeof(float), (void **)&m->values);
    if (r >= 0 && params->device_half)
        r = m->s->k->alloc((size_t)m->numel * sizeof(uint16_t), (void **)&m->rounded);
    if (r >= 0)
        r = halves_get(params, m->s, &m->half);
    if (r < 0) {
        mirror_free(m);
        return r;
    }
    point_to_halves(params, m);
    for (int i = 0; i < params->count; i++) {
        struct param *p = params->list[i];

        if (p->half)
            continue;
        p->on_f32 = m->values + p->offset;
        p->on_bf16 = m->rounded ? m->rounded + p->offset : NULL;
    }
    *ret = m;
    return 0;
}

static int round_values(struct mirror *m, int64_t begin, int64_t end)
{
    return m->rounded
               ? m->s->k->convert(m->s->stream, DEVICE_BF16, m->rounded + begin, DEVICE_F32, m->values + begin, end - begin)
               : 0;
}

/* Rows lie one below the other: each A as it lies in the arena, in the form that products take. */
static int fill_joined(const struct params *params, struct mirror *m)
{
    size_t element = params->device_half ? sizeof(uint16_t) : sizeof(float);
    char *to = m->joined;
    int r = 0;

    for (int i = 0; i < params->n_joins; i++) {
        struct param *a = &params->joins[i]->a;
        char *at = to;

        for (int k = 0; k < params->joins[i]->n && r >= 0; k++) {
            const struct param *part = params->joins[i]->weight[k]->lora.a;
            const void *from = params->device_half ? (const void *)(m->rounded + part->offset) : m->values + part->offset;

            r = m->s->k->copy(m->s->stream, at, from, (size_t)part->numel * element);
            at += (size_t)part->numel * element;
        }
        a->on_bf16 = params->device_half ? to : NULL;
        a->on_f32 = params->device_half ? NULL : (const float *)to;
        to += (size_t)padded(a->numel) * element;
    }
    return r;
}

static int update_joined(const struct params *params, struct mirror *m, bool serving)
{
    size_t bytes = serving ? mirror_joined_bytes(params, params->device_half, params->device->strict) : 0;

    if (m->joining != (bytes > 0))
        m->id = new_id(); /* a step that was captured multiplies as it did then */
    m->joining = bytes > 0;
    for (int i = 0; i < params->n_joins; i++)
        params->joins[i]->a.on_f32 = params->joins[i]->a.on_bf16 = NULL;
    if (bytes && !m->joined) {
        int r = m->s->k->alloc(bytes, (void **)&m->joined);

        if (r < 0)
            return r;
    }
    return bytes ? fill_joined(params, m) : 0;
}

int mirror_update(struct params *params, int64_t begin, int64_t end, bool serving)
{
    struct mirror *m = params->mirror;
    int r;

    if (m && (m->numel != params->numel || m->count != params->count)) { /* heads or adapters came or went */
        m = params->mirror = mirror_free(m);
    }
    if (!m) {
        r = mirror_new(params, &m);
        if (r < 0)
            return r;
        params->mirror = m;
        begin = 0;
        end = params->numel;
    }
    r = m->s->k->use(params->device->ordinal, NULL, NULL, 0);
    if (r >= 0 && end > begin)
        r = m->s->k->upload(m->s->stream, m->values + begin, params->values + begin, (size_t)(end - begin) * sizeof(float));
    if (r >= 0)
        r = round_values(m, begin, end);
    if (r >= 0)
        r = update_joined(params, m, serving);
    return r < 0 ? r : m->s->k->wait(m->s->stream);
}

int mirror_changed(struct params *params, int64_t begin, int64_t end, bool download)
{
    struct mirror *m = params->mirror;
    int r = m ? round_values(m, begin, end) : -EINVAL;

    if (r >= 0 && download)
        r = m->s->k->download(m->s->stream, params->values + begin, m->values + begin, (size_t)(end - begin) * sizeof(float));
    return r < 0 ? r : m->s->k->wait(m->s->stream);
}

uint64_t mirror_id(const struct mirror *m) { return m->id; }
float *mirror_values(struct mirror *m) { return m->values; }
