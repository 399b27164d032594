/* openvla_session.c - one thread's memory for acting: a tape that is begun anew for every pass, and the layers' keys and values.
 *
 * Both grow to the largest batch seen (a dry run tells the size) and stay: a steady stream of requests allocates nothing. */
#include <errno.h>
#include <string.h>

#include "nn/device/mirror.h"
#include "nn/models/openvla_session.h"
#include "nn/rope_table.h"

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
        (void)s->kv_device->k->use(s->kv_device->ordinal, NULL, NULL, 0);
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

    if (moved) {
        s->graphs = device_graphs_free(s->graphs);
        forget_kv(s);
    }
    return tape_attach(&s->tape, &model->params);
}

struct openvla_session *openvla_session_free(struct openvla_session *s)
{
    if (!s)
        return NULL;
    if (s->tape.on)
        s->tape.on->k->wait(s->tape.on->stream);
    device_graphs_free(s->graphs);
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
            .k = (float *)(kv + 2 * (size_t)i * one), .v = (float *)(kv + (2 * (size_t)i + 1) * one), .slots = s->max_batch,
            .capacity = capacity, .width = s->config.hidden, .length = s->length,
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

/* ---- decoding steps as graphs ------------------------------------------------------------------------------------ */

/* All that a step depends on but its inputs. */
struct step_key {
    const void *model, *numbers, *kv, *rope, *workspace;
    uint64_t weights, room;
    int32_t rows, capacity, action_only, half;
};

static int step_key(struct openvla_session *s, const struct openvla *model, bool action_only, struct step_key *ret)
{
    const struct openvla_config *c = &model->config;
    const float *rope;
    int r = rope_table_cover(&s->tape.rope, c->rope_theta, c->hidden / c->heads, s->capacity - 1);      /* a replay looks no
                                                                                                         * further */

    rope = r < 0 ? NULL : rope_table_on(s->tape.rope, s->tape.on);
    if (!rope)
        return r < 0 ? r : -ENOMEM;
    memset(ret, 0, sizeof(*ret));
    ret->model = model;
    ret->numbers = s->tape.numbers.base;
    ret->kv = s->kv;
    ret->rope = rope;
    ret->workspace = s->tape.on->workspace;
    ret->weights = mirror_id(model->params.mirror);
    ret->room = s->tape.numbers.size;
    ret->rows = s->active;
    ret->capacity = s->capacity;
    ret->action_only = action_only;
    ret->half = s->tape.half;
    return 0;
}

static int capture(struct openvla_session *s, const struct graph_input *inputs, int n,
                   int (*pass)(struct openvla_session *s, void *arg), void *arg, struct tensor **logits)
{
    int64_t note[GRAPH_NOTE] = {0};
    int r = device_graphs_begin(s->graphs, s->tape.on, inputs, n);

    if (r < 0)
        return r;
    r = pass(s, arg);
    if (r >= 0) {
        note[0] = (int64_t)(intptr_t)(*logits)->x;
        note[1] = (*logits)->rows;
        note[2] = (*logits)->cols;
    }
    return device_graphs_end(s->graphs, s->tape.on, r, note);
}

static int replay(struct openvla_session *s, const struct graph_input *inputs, int n, struct tensor **logits)
{
    struct tensor *made = tape_alloc(&s->tape, sizeof(*made));
    int64_t note[GRAPH_NOTE];
    int r = made ? device_graphs_launch(s->graphs, s->tape.on, inputs, n, note) : s->tape.error;

    if (r < 0)
        return r;
    *made = (struct tensor) {.x = (float *)(intptr_t)note[0], .rows = note[1], .cols = note[2]};
    *logits = made;
    return 0;
}

int session_step(struct openvla_session *s, const struct openvla *model, bool action_only,
                 int (*pass)(struct openvla_session *s, void *arg), void *arg, struct tensor **logits)
{
    size_t bytes = (size_t)s->active * sizeof(int32_t);
    const struct graph_input inputs[] = {{s->token, bytes}, {s->slot, bytes}, {s->position, bytes}};
    enum graph_action action;
    struct step_key key;
    int r;

    if (!s->tape.on)
        return session_run(s, pass, arg);
    if (!s->graphs)
        s->graphs = device_graphs_new();
    r = s->graphs ? step_key(s, model, action_only, &key) : -ENOMEM;
    if (r < 0)
        return r;
    action = device_graphs_next(s->graphs, s->tape.on, &key, sizeof(key), inputs, ARRAY_SIZE(inputs));
    if (action == GRAPH_RUN)
        return session_run(s, pass, arg);
    tape_begin(&s->tape);
    if (s->tape.error)
        return s->tape.error;
    if (action == GRAPH_REPLAY)
        return replay(s, inputs, ARRAY_SIZE(inputs), logits);
    r = capture(s, inputs, ARRAY_SIZE(inputs), pass, arg, logits);
    return r < 0 ? session_run(s, pass, arg) : 0;
}
