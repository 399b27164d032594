/* openvla_session.c - one thread's memory for acting: a tape that is begun anew for every pass, and the layers' keys and values.
 *
 * Both grow to the largest batch seen (a dry run tells the size) and stay: a steady stream of requests allocates nothing. */
#include <errno.h>

#include "nn/device/device.h"
#include "nn/models/openvla_session.h"

int openvla_session_new(const struct openvla_config *config, int max_batch, struct openvla_session **ret)
{
    _cleanup_(openvla_session_freep) struct openvla_session *s = calloc(1, sizeof(*s));
    size_t n = (size_t)max_batch;

    if (!s)
        return -ENOMEM;
    if (max_batch < 1)
        return -EINVAL;
    s->config = *config;
    s->max_batch = max_batch;
    tape_init(&s->tape, false);
    s->cache = calloc((size_t)config->layers, sizeof(*s->cache));
    s->hidden = calloc(n * (size_t)config->hidden, sizeof(*s->hidden));
    s->length = calloc(n, sizeof(*s->length));
    s->items = calloc(n, sizeof(*s->items));
    s->slot = calloc(n, sizeof(*s->slot));
    s->token = calloc(n, sizeof(*s->token));
    s->position = calloc(n, sizeof(*s->position));
    if (!s->cache || !s->hidden || !s->length || !s->items || !s->slot || !s->token || !s->position)
        return -ENOMEM;
    *ret = TAKE_PTR(s);
    return 0;
}

static void forget_kv(struct openvla_session *s)
{
    if (s->kv_device) {
        if (s->tape.on)
            s->tape.on->k->wait(s->tape.on->stream);
        s->kv_device->k->release(s->kv);
    } else {
        free(s->kv);
    }
    s->kv = NULL;
    s->kv_device = device_unref(s->kv_device);
    s->capacity = 0;
}

int session_attach(struct openvla_session *s, const struct openvla *model)
{
    bool moved = s->kv && (s->kv_device != model->params.device || s->tape.half != model->params.device_half);

    if (moved)
        forget_kv(s);
    return tape_attach(&s->tape, &model->params);
}

struct openvla_session *openvla_session_free(struct openvla_session *s)
{
    if (!s)
        return NULL;
    forget_kv(s);
    tape_release(&s->tape);
    free(s->cache);
    free(s->hidden);
    free(s->length);
    free(s->items);
    free(s->slot);
    free(s->token);
    free(s->position);
    free(s);
    return NULL;
}

int session_reserve_kv(struct openvla_session *s, int capacity)
{
    size_t width = (size_t)s->config.hidden, one;
    size_t element = tape_element(&s->tape);
    char *kv;

    if (capacity <= s->capacity)
        return 0;
    capacity = (capacity + 15) / 16 * 16;
    one = (size_t)s->max_batch * (size_t)capacity * width * element;
    if (s->tape.on) {
        int r;

        forget_kv(s);                   /* first: both may not fit */
        r = s->tape.on->k->alloc(2 * (size_t)s->config.layers * one, (void **)&kv);
        if (r < 0)
            return r;
        s->kv_device = device_ref(s->tape.on->device);
    } else {
        if (posix_memalign((void **)&kv, 64, 2 * (size_t)s->config.layers * one))
            return -ENOMEM;
        forget_kv(s);
    }
    s->kv = kv;
    s->capacity = capacity;
    for (int i = 0; i < s->config.layers; i++)
        s->cache[i] = (struct kv_cache) {
            .k = (float *)(kv + 2 * (size_t)i * one), .v = (float *)(kv + (2 * (size_t)i + 1) * one), .slots = s->max_batch, .capacity = capacity,
            .width = s->config.hidden, .length = s->length,
        };
    return 0;
}

int session_run(struct openvla_session *s, int (*pass)(struct openvla_session *s, void *arg), void *arg)
{
    int r;

    tape_begin(&s->tape);
    r = pass(s, arg);
    if (r != -ENOBUFS)
        return r;
    tape_plan(&s->tape);
    r = pass(s, arg);
    if (r >= 0)
        r = tape_allocate(&s->tape);
    if (r < 0)
        return r;
    tape_begin(&s->tape);
    return pass(s, arg);
}
