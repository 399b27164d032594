#include "nn/device/mirror.h"

#include <errno.h>
#include <string.h>

#include "nn/lora_join.h"

struct mirror {
    struct device_stream *s;
    int64_t numel, halves;
    float *values;     /* device: [numel] */
    uint16_t *rounded; /* device: [numel] the same as bf16; NULL: not wanted */
    uint16_t *half;    /* device: [halves] matrices that are bf16 on the host too */
    char *joined;      /* device: the A matrices of groups of adapters, fp32 or bf16 as activations are; NULL: not wanted so
                        * far */
    bool joining;      /* they are used */
    int count;         /* parameters it was made for */
    uint64_t id;
};

static int64_t padded(int64_t n) { return (n + 127) / 128 * 128; }

struct mirror *mirror_free(struct mirror *m)
{
    if (!m)
        return NULL;
    if (m->s) {
        m->s->k->use(m->s->device->ordinal, NULL, NULL, 0);
        m->s->k->wait(m->s->stream);
        m->s->k->release(m->values);
        m->s->k->release(m->rounded);
        m->s->k->release(m->half);
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

size_t mirror_joined_bytes(const struct params *params, bool half, bool strict)
{
    size_t bytes = 0;

    for (int i = 0; i < params->n_joins && !(half && strict); i++)
        bytes += (size_t)padded(params->joins[i]->a.numel) * (half ? sizeof(uint16_t) : sizeof(float));
    return bytes;
}

static int send_halves(struct params *params, struct mirror *m)
{
    int64_t at = 0;
    int r = 0;

    for (int i = 0; i < params->count && r >= 0; i++) {
        struct param *p = params->list[i];

        if (!p->half)
            continue;
        r = m->s->k->upload(m->s->stream, m->half + at, p->bf16, (size_t)p->numel * sizeof(uint16_t));
        p->on_bf16 = m->half + at;
        p->on_f32 = NULL;
        at += padded(p->numel);
    }
    return r;
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
    for (int i = 0; i < params->count; i++)
        m->halves += params->list[i]->half ? padded(params->list[i]->numel) : 0;
    m->numel = params->numel;
    m->count = params->count;
    r = device_stream_new(params->device, &m->s);
    if (r >= 0)
        r = m->s->k->alloc((size_t)m->numel * sizeof(float), (void **)&m->values);
    if (r >= 0 && params->device_half)
        r = m->s->k->alloc((size_t)m->numel * sizeof(uint16_t), (void **)&m->rounded);
    if (r >= 0 && m->halves)
        r = m->s->k->alloc((size_t)m->halves * sizeof(uint16_t), (void **)&m->half);
    if (r >= 0)
        r = send_halves(params, m);
    if (r < 0) {
        mirror_free(m);
        return r;
    }
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
