#include "train/trainer_device.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/device/mirror.h"
#include "train/device_sums.h"

struct trainer_device {
    struct device *device;
    struct {
        float *m, *v; /* [end - begin] like the host's */
        struct adamw_range *spans;
        int n; /* of the arena */
    } part[TRAIN_PARTS];
    float *masters;    /* of the trunk; NULL: the values are their own */
    uint16_t *rounded; /* of as many of them as are rounded at once */
    double *sums;      /* [TRAIN_PARTS] squares, [DEVICE_NORM_PARTS] scratch */
    bool moments_due, masters_due; /* the host's are newer */
    bool newer;                    /* values, and what is not due, are newer here */
};

enum { ROUNDED_AT_ONCE = 1 << 26 };

static size_t length(const struct part *part) { return (size_t)(part->end - part->begin); }

int trainer_device_new(const struct trainer *t, struct trainer_device **ret)
{
    struct trainer_device *d = calloc(1, sizeof(*d));
    const struct device_kernels *k = t->params->device->k;
    int r = 0;

    if (!d)
        return -ENOMEM;
    d->device = device_ref(t->params->device);
    d->moments_due = true;
    for (int i = 0; i < TRAIN_PARTS && r >= 0; i++) {
        const struct part *part = &t->parts[i];

        if (!part->n)
            continue;
        d->part[i].spans = calloc((size_t)part->n, sizeof(*d->part[i].spans));
        if (!d->part[i].spans) {
            r = -ENOMEM;
            break;
        }
        d->part[i].n = device_spans(part->ranges, part->n, d->part[i].spans);
        r = k->alloc(length(part) * sizeof(float), (void **)&d->part[i].m);
        if (r >= 0)
            r = k->alloc(length(part) * sizeof(float), (void **)&d->part[i].v);
    }
    if (r >= 0)
        r = k->alloc((TRAIN_PARTS + DEVICE_NORM_PARTS) * sizeof(double), (void **)&d->sums);
    if (r < 0) {
        trainer_device_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

struct trainer_device *trainer_device_free(struct trainer_device *d)
{
    if (!d)
        return NULL;
    d->device->k->use(d->device->ordinal, NULL, NULL, 0);
    for (int i = 0; i < TRAIN_PARTS; i++) {
        d->device->k->release(d->part[i].m);
        d->device->k->release(d->part[i].v);
        free(d->part[i].spans);
    }
    d->device->k->release(d->masters);
    d->device->k->release(d->rounded);
    d->device->k->release(d->sums);
    device_unref(d->device);
    free(d);
    return NULL;
}

size_t trainer_device_bytes(int64_t trained, bool masters)
{
    size_t rounded = MIN((size_t)trained, (size_t)ROUNDED_AT_ONCE) * sizeof(uint16_t);

    return (size_t)trained * (2 + masters) * sizeof(float) + (masters ? rounded : 0) + (TRAIN_PARTS + DEVICE_NORM_PARTS) * sizeof(double);
}

void trainer_device_renew(struct trainer_device *d, bool moments, bool masters)
{
    if (!d)
        return;
    d->moments_due = d->moments_due || moments;
    d->masters_due = d->masters_due || masters;
}

/* ---- host and device ------------------------------------------------------------------------------------------ */

static int send_due(struct trainer_device *d, const struct trainer *t, struct device_stream *s)
{
    const struct part *trunk = &t->parts[TRAIN_TRUNK];
    int r = 0;

    if (t->masters && !d->masters) {
        r = s->k->alloc(length(trunk) * sizeof(float), (void **)&d->masters);
        if (r >= 0)
            r = s->k->alloc(MIN(length(trunk), (size_t)ROUNDED_AT_ONCE) * sizeof(uint16_t), (void **)&d->rounded);
        d->masters_due = true;
    }
    if (d->masters && d->masters_due && r >= 0)
        r = s->k->upload(s->stream, d->masters, t->masters, length(trunk) * sizeof(float));
    for (int i = 0; i < TRAIN_PARTS && d->moments_due && r >= 0; i++) {
        const struct part *part = &t->parts[i];

        if (part->n)
            r = s->k->upload(s->stream, d->part[i].m, part->adamw.m, length(part) * sizeof(float));
        if (part->n && r >= 0)
            r = s->k->upload(s->stream, d->part[i].v, part->adamw.v, length(part) * sizeof(float));
    }
    if (r >= 0)
        d->moments_due = d->masters_due = false;
    return r;
}

int trainer_device_fetch(struct trainer_device *d, struct trainer *t)
{
    const struct device_kernels *k = d->device->k;
    const struct part *trunk = &t->parts[TRAIN_TRUNK];
    struct device_stream *s = NULL;
    int r;

    if (!d->newer)
        return 0;
    r = device_stream_new(d->device, &s);
    for (int i = 0; i < TRAIN_PARTS && r >= 0; i++) {
        struct part *part = &t->parts[i];

        if (!part->n)
            continue;
        r = mirror_changed(t->params, part->begin, part->end, true);
        if (r >= 0 && !d->moments_due)
            r = k->download(s->stream, part->adamw.m, d->part[i].m, length(part) * sizeof(float));
        if (r >= 0 && !d->moments_due)
            r = k->download(s->stream, part->adamw.v, d->part[i].v, length(part) * sizeof(float));
    }
    if (r >= 0 && d->masters && !d->masters_due)
        r = k->download(s->stream, t->masters, d->masters, length(trunk) * sizeof(float));
    device_stream_free(s);
    if (r >= 0)
        d->newer = false;
    return r;
}

/* ---- an update -------------------------------------------------------------------------------------------------- */

static int norms(struct trainer_device *d, struct device_stream *s, const float *grad, const enum trainer_part *parts, int n,
                 double *ret)
{
    double sums[TRAIN_PARTS];
    int r = s->k->zero(s->stream, d->sums, TRAIN_PARTS * sizeof(double));

    for (int i = 0; i < n; i++)
        for (int j = 0; j < d->part[parts[i]].n && r >= 0; j++) {
            const struct adamw_range *span = &d->part[parts[i]].spans[j];

            r = s->k->sum_squares(s->stream, d->sums + i, d->sums + TRAIN_PARTS, grad + span->begin, span->end - span->begin);
        }
    if (r >= 0)
        r = s->k->download(s->stream, sums, d->sums, (size_t)n * sizeof(double));
    for (int i = 0; i < n && r >= 0; i++)
        ret[i] = sqrt(sums[i]);
    return r;
}

static struct device_adamw constants(const struct adamw *adamw, double decay, float scale)
{
    float c[9];

    adamw_constants(adamw, &(struct adamw_range) {.lr_scale = 1, .weight_decay = decay}, scale, c);
    return (struct device_adamw) {.beta1 = c[0], .rest1 = c[1], .beta2 = c[2], .rest2 = c[3], .rate = c[4], .root2 = c[5],
                                  .eps = c[6], .decay = c[7], .grad_scale = c[8]};
}

/* The values that passes see: the masters, rounded. As many at once as there is room for beside a large model. */
static int round_masters(struct trainer_device *d, struct device_stream *s, float *values, const struct part *trunk)
{
    const struct adamw_range *span = d->part[TRAIN_TRUNK].spans;
    int r = 0;

    for (int j = 0; j < d->part[TRAIN_TRUNK].n; j++, span++)
        for (int64_t at = span->begin; at < span->end && r >= 0; at += ROUNDED_AT_ONCE) {
            int64_t n = MIN(span->end - at, (int64_t)ROUNDED_AT_ONCE);

            r = s->k->convert(s->stream, DEVICE_BF16, d->rounded, DEVICE_F32, d->masters + at - trunk->begin, n);
            if (r >= 0)
                r = s->k->convert(s->stream, DEVICE_F32, values + at, DEVICE_BF16, d->rounded, n);
        }
    return r;
}

static int apply(struct trainer_device *d, struct trainer *t, struct device_stream *s, enum trainer_part which,
                 const struct update *update, const float *grad, double norm)
{
    struct part *part = &t->parts[which];
    float *values = mirror_values(t->params->mirror);
    bool masters = which == TRAIN_TRUNK && d->masters;
    struct device_adamw c;
    double decay;
    float scale = trainer_set_update(t, part, update, norm, &decay);
    int r = 0;

    part->adamw.step++;
    c = constants(&part->adamw, decay, scale);
    for (int j = 0; j < d->part[which].n && r >= 0; j++) {
        const struct adamw_range *span = &d->part[which].spans[j];
        int64_t at = span->begin - part->begin;

        r = s->k->adamw(s->stream, masters ? d->masters + at : values + span->begin, d->part[which].m + at, d->part[which].v + at,
                        grad + span->begin, span->end - span->begin, &c);
    }
    if (r >= 0 && masters)
        r = round_masters(d, s, values, part);
    return r;
}

int trainer_device_update(struct trainer_device *d, struct trainer *t, const struct adamw_range *ranges, int n,
                          const enum trainer_part *parts, const struct update *update, int n_parts, int samples, shard_fn *fn,
                          void *arg, double *ret_norm)
{
    struct device_stream *s;
    float *grad;
    int r = shards_gradient_there(t->shards, ranges, n, samples, fn, arg, &grad, &s);

    if (r >= 0)
        r = send_due(d, t, s);
    if (r >= 0)
        r = norms(d, s, grad, parts, n_parts, ret_norm);
    if (r < 0)
        return r;
    for (int i = 0; i < n_parts; i++)
        if (!isfinite(ret_norm[i])) {
            t->skipped++;
            return 0;
        }
    d->newer = true;
    for (int i = 0; i < n_parts && r >= 0; i++)
        r = apply(d, t, s, parts[i], &update[i], grad, ret_norm[i]);
    if (r >= 0)
        r = s->k->wait(s->stream);      /* what follows is on the mirror's stream */
    for (int i = 0; i < n_parts && r >= 0; i++)
        r = mirror_changed(t->params, t->parts[parts[i]].begin, t->parts[parts[i]].end, false);
    return r;
}
