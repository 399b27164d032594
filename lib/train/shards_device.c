/* shards_device.c - shards on a device: one after the other, since one fills it, added up there. */
#include "train/shards_internal.h"

#include <errno.h>
#include <stdlib.h>

static void clear_there(struct tape *tape, float *grad, const struct adamw_range *spans, int n)
{
    for (int i = 0; i < n; i++)
        tape_zero(tape, grad + spans[i].begin, (size_t)(spans[i].end - spans[i].begin) * sizeof(float));
}

int shards_run_planned(struct shards *s, struct tape *tape, float *grad, int shard, int first, int last)
{
    bool dirty = false;
    int r = -ENOBUFS;

    for (int planned = tape->watch != NULL; planned < 2 && r == -ENOBUFS; planned++) {   /* watched: what was told cannot be
                                                                                          * taken back */
        if (planned || !tape_room(tape)) {
            tape_plan(tape);
            r = s->fn(tape, shard, first, last, s->arg);
            r = r < 0 ? r : tape_allocate(tape);
            if (r < 0)
                return r;
        }
        tape_begin(tape);
        if (grad && dirty && s->adding)
            return -ERESTART;
        if (grad && dirty)
            clear_there(tape, grad, s->spans, s->n_spans);
        r = s->fn(tape, shard, first, last, s->arg);
        r = r < 0 ? r : tape->error;
        dirty = true;
    }
    return r;
}

static int bucket_there(void *arg, int bucket)
{
    const struct own_watch *watch = arg;
    struct shards *s = watch->shards;

    return device_sums_bucket(s->sums, s->train[0].on, &s->buckets.list[bucket], &s->group);
}

/* Strict numerics add up shard by shard. */
static int of_a_pass(const struct shards *s) { return s->params->device->strict ? 1 : s->together; }

/* With several ranks the last pass's gradient goes to the others while it is made; the last shard's watch sees to it. */
static int pass_there(void *arg, int pass, float *grad)
{
    struct shards *s = arg;
    struct tape *tape = &s->train[0];
    int shard = s->first + pass * of_a_pass(s), end = shard + of_a_pass(s), r = 0;
    int first = shard_begin(s->samples, shard), last = shard_begin(s->samples, end);
    bool exchanged = s->group.ranks > 1 && end == s->first + s->own;
    struct bucket_watch *watch = &s->watch[s->first + s->own - 1].buckets;

    if (first < last) {
        tape->watch = exchanged && !s->late ? watch->tape : NULL;
        tape->param_grad = grad;
        s->adding = !s->params->device->strict && pass > 0;
        r = shards_run_piece(s, tape, grad, shard, first, last);
        tape->watch = NULL;
    }
    return r < 0 || !exchanged ? r : bucket_watch_rest(watch);
}

static int gradients_there(struct shards *s, struct device_stream *stream, float **ret)
{
    int passes = s->own / of_a_pass(s), r;

    if (s->group.ranks == 1)
        return device_sums_shards(s->sums, stream, s->spans, s->n_spans, passes, false, pass_there, s, ret);
    r = buckets_make(s->ranges, s->n_ranges, s->bucket ? MIN(s->bucket, (int64_t)DEVICE_BUCKET) : DEVICE_BUCKET, &s->buckets);
    if (r >= 0)
        r = shards_watch(s, s->first + s->own - 1, bucket_there);
    if (r >= 0)
        r = device_sums_shards(s->sums, stream, s->spans, s->n_spans, passes, true, pass_there, s, ret);
    r = device_sums_wait(s->sums, &s->group, r);
    shards_forget_watches(s);
    return r;
}

static int make_spans(struct shards *s)
{
    if (s->n_ranges > s->most_spans) {
        free(s->spans);
        s->most_spans = 0;
        s->spans = calloc((size_t)s->n_ranges, sizeof *s->spans);
        if (!s->spans)
            return -ENOMEM;
        s->most_spans = s->n_ranges;
    }
    s->n_spans = device_spans(s->ranges, s->n_ranges, s->spans);
    return 0;
}

int shards_gradient_there(struct shards *s, const struct adamw_range *ranges, int n_ranges, int samples, shard_fn *fn, void *arg,
                          float **ret, struct device_stream **ret_stream)
{
    struct tape *tape = &s->train[0];
    float *grad;
    int r;

    if (!shards_device(s))
        return -ENODEV;
    shards_set_call(s, ranges, n_ranges, samples, fn, arg);
    r = make_spans(s);
    if (r >= 0)
        r = tape_attach(tape, s->params);
    if (r >= 0)
        r = device_stream_begin(tape->on);
    if (r >= 0 && !s->sums)
        r = device_sums_new(s->params->device, s->numel, &s->sums);
    if (r >= 0)
        r = gradients_there(s, tape->on, &grad);
    if (r < 0)
        return r;
    *ret = grad;
    *ret_stream = tape->on;
    return 0;
}

/* On the tape that learns, and in its memory: a tape for each thread would take of the device's what nobody has foretold, and one
 * pass fills it anyway. */
int shards_infer_there(struct shards *s)
{
    struct tape *tape = &s->train[0];
    bool recompute = tape->recompute;
    int r = tape_attach(tape, s->params);

    tape->training = tape->recompute = false;
    for (int first = 0, piece = 0; first < s->samples && r >= 0; first += s->chunk, piece++)
        r = shards_run_piece(s, tape, NULL, piece, first, MIN(first + s->chunk, s->samples));
    tape->training = true;
    tape->recompute = recompute;
    return r;
}
