#include "train/device_memory_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nn/device/dnn_key.h"
#include "nn/device/mirror.h"
#include "nn/adapters.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"
#include "train/device_sums.h"
#include "train/passes.h"
#include "train/trainer_device.h"

enum { PROMPT_GUESS = 35, PREFILL_CHUNK = 16, MOST_PASSES = 4, MEGA = 1 << 20 };

/* ---- a device that plans: a stream, and nothing to put on it -------------------------------------------------------- */

static int use(_unused_ int ordinal, struct device_facts *facts, _unused_ char *why, _unused_ size_t n)
{
    if (facts)
        *facts = (struct device_facts) {.name = "none"};
    return 0;
}

static int stream_new(void **ret)
{
    *ret = NULL;
    return 0;
}

static void stream_free(_unused_ void *stream) {}
static void release(_unused_ void *memory) {}
static int wait(_unused_ void *stream) { return 0; }

int plan_tape(struct tape *tape, bool training, bool half)
{
    static const struct device_kernels planner = {
        .name = "planner", .use = use, .stream_new = stream_new, .stream_free = stream_free, .release = release, .unpin = release,
        .wait = wait,
    };
    struct device *device = NULL;
    int r = device_wrap(&planner, 0, &device, NULL);

    tape_init(tape, training);
    tape->recycle = training;
    if (r >= 0)
        r = device_stream_new(device, &tape->on);
    tape->half = half;
    device_unref(device);       /* the stream has its own reference */
    tape_plan(tape);
    return r;
}

int64_t plan_tape_bytes(const struct tape *tape)
{
    return (int64_t)(MAX(tape->planned, tape->peak) + tape->block + tape->scratch);
}

/* ---- the passes --------------------------------------------------------------------------------------------------------- */

/* Sequences that go through one pass: prompts of those who act; a minibatch's, on the way to a gradient or, in chunks, only looked
 * at (train/passes.h). reward: shown to the reward head. */
struct planned {
    bool acts, learns, reward;
    int n, pictures;
};

struct pass_input {
    uint8_t *image;             /* one picture at every place where an item's would be, for a picture that several show is
                                 * encoded once */
    int32_t *ids;               /* [prompt] */
    float state[OPENVLA_MAX_PROPRIO];
    struct openvla_item *items;
};

static void input_release(struct pass_input *in)
{
    free(in->image);
    free(in->ids);
    free(in->items);
}

static int make_input(const struct openvla_config *c, const struct planned *p, int prompt, struct pass_input *in)
{
    in->image = calloc(1, (size_t)c->image_height * (size_t)c->image_width * 3 + (size_t)(p->n * OPENVLA_MAX_IMAGES));
    in->ids = calloc((size_t)MAX(prompt, c->action_dims), sizeof *in->ids);
    in->items = calloc((size_t)p->n, sizeof *in->items);
    if (!in->image || !in->ids || !in->items)
        return -ENOMEM;
    for (int i = 0; i < p->n; i++) {
        struct openvla_item *item = &in->items[i];

        *item = (struct openvla_item) {.n_images = p->pictures, .prompt = in->ids, .n_prompt = prompt};
        for (int k = 0; k < item->n_images; k++)
            item->images[k] = in->image + i * OPENVLA_MAX_IMAGES + k;
        if (p->reward)
            continue;
        if (c->oft.kind != OFT_NONE) {
            item->proprio = c->oft.proprio ? in->state : NULL;
            item->slots = oft_slots(c);
        } else if (!p->acts) {
            item->actions = in->ids;
            item->n_actions = c->action_dims;
        }
    }
    return 0;
}

/* As sft_shard goes: the action rows, their logits over all ids, cross-entropy. */
static int train_pass(const struct openvla *model, struct tape *tape, const struct pass_input *in, int n)
{
    const struct openvla_config *c = &model->config;
    int rows = c->action_dims + 1, r;
    int32_t *target = tape_alloc(tape, (size_t)(n * rows) * sizeof *target);
    struct openvla_pass pass;
    struct tensor *answers;

    r = !target ? -ENOMEM : c->oft.kind == OFT_NONE ? openvla_forward_tail(model, tape, in->items, n, &pass)
                                                    : openvla_forward(model, tape, in->items, n, &pass);
    if (r < 0)
        return r;
    if (c->oft.kind == OFT_NONE) {
        (void)op_token_stats(tape, openvla_logits(model, tape, gather_action_rows(tape, &pass, n, rows), false), target, 1, NULL);
        return tape->error;
    }
    answers = oft_answers(model, tape, &pass, n);
    if (c->oft.kind == OFT_TOKENS)
        (void)openvla_logits(model, tape, answers, false);
    else
        (void)oft_actions(model, tape, answers);
    return tape->error;
}

static int act_pass(const struct openvla *model, struct tape *tape, const struct pass_input *in, int n, int capacity)
{
    const struct openvla_config *c = &model->config;
    _cleanup_free_ struct kv_cache *cache = calloc((size_t)c->layers, sizeof *cache);
    _cleanup_free_ int32_t *length = calloc((size_t)n, sizeof *length);
    struct openvla_pass pass;
    int r;

    if (!cache || !length)
        return -ENOMEM;
    for (int i = 0; i < c->layers; i++)
        cache[i] = (struct kv_cache) {.slots = n, .capacity = capacity, .width = c->hidden, .length = length};
    r = c->oft.kind == OFT_NONE ? openvla_forward_cached(model, tape, in->items, n, cache, &pass)
                                : openvla_forward_tail(model, tape, in->items, n, &pass);
    return r < 0 ? r : tape->error;
}

/* As prm_shard goes. */
static int reward_pass(const struct openvla *model, struct tape *tape, const struct pass_input *in, int n)
{
    struct openvla_pass pass;
    int r = openvla_forward_tail(model, tape, in->items, n, &pass);

    if (r >= 0 && model->config.reward_width)
        (void)openvla_reward(model, tape, gather_action_rows(tape, &pass, n, 1));
    return r < 0 ? r : tape->error;
}

/* The passes that there will be; returns how many. */
static int passes_of(const struct openvla_config *c, const struct device_job *job, int together, struct planned ret[MOST_PASSES])
{
    int pictures = c->oft.kind == OFT_NONE ? 1 : c->oft.images, shard = (job->batch * together + SHARDS - 1) / SHARDS, n = 0;
    int shown = (c->reward_width ? c->reward_history : job->history) + 2;

    if (job->use == MEMORY_ACT) {
        ret[0] = (struct planned) {.acts = !job->judges, .reward = job->judges, .n = MIN(job->batch, PREFILL_CHUNK),
                                   .pictures = job->judges ? shown : pictures};
        return 1;
    }
    for (int reward = 0; reward <= (job->judges || c->reward_width > 0); reward++)
        for (int learns = 0; learns < 2; learns++)
            ret[n++] = (struct planned) {.learns = learns, .reward = reward, .n = learns ? shard : PASS_CHUNK,
                                         .pictures = reward ? shown : pictures};
    return n;
}

/* Bytes of the arena that the pass will ask tape_allocate for. */
static int plan_arena(const struct openvla *model, const struct planned *p, bool half, int prompt, int capacity, bool recompute,
                      int64_t *ret)
{
    _cleanup_(input_release) struct pass_input in = {0};
    struct tape tape;
    int r = make_input(&model->config, p, prompt, &in);

    if (r < 0)
        return r;
    r = plan_tape(&tape, p->learns, half);
    tape.recompute = recompute && p->learns;
    if (r >= 0)
        r = p->acts ? act_pass(model, &tape, &in, p->n, capacity)
                    : p->reward ? reward_pass(model, &tape, &in, p->n) : train_pass(model, &tape, &in, p->n);
    if (r >= 0)
        *ret = plan_tape_bytes(&tape);
    tape_release(&tape);
    return r;
}

/* ---- what cuDNN works in: the largest of the pieces that attention is handed over in ------------------------------------ */

int64_t plan_attention(int64_t n, int64_t heads, int64_t group, int64_t dim, int64_t rows, bool backward)
{
    struct dnn_key key = {.n = MIN(n, (int64_t)DNN_PIECE), .heads = heads, .group = group, .dim = dim, .keys = rows,
                          .asking = rows, .backward = backward, .dq_stride = heads * dim, .dkv_stride = heads / group * dim};

    return dim % 8 || dim > DEVICE_MAX_HEAD ? 0 : (int64_t)dnn_lay_out(&key, dnn_plan_most(&key)).bytes;
}

static int64_t attention_scratch(const struct openvla_config *c, const struct planned *p, int prompt)
{
    int asked = p->reward ? 0 : c->oft.kind != OFT_NONE ? oft_slots(c) + 2 : p->acts ? 0 : c->action_dims;
    int64_t most = plan_attention(p->n, c->heads, 1, c->hidden / c->heads, p->pictures * c->patches + prompt + asked, p->learns);

    for (int i = 0; i < 2; i++) {
        const struct openvla_tower *t = &c->tower[i];

        most = MAX(most, plan_attention((int64_t)p->n * p->pictures, t->heads, 1, t->dim / t->heads, c->patches + t->prefix,
                                        p->learns));
    }
    return most;
}

/* ---- the sum -------------------------------------------------------------------------------------------------------------- */

/* Numbers that learn, and of adapters that are not there yet the arena they will take. */
static int64_t trained_of(const struct openvla *model, const struct device_job *job, int64_t *ret_more)
{
    int64_t trained = 0;

    *ret_more = 0;
    for (int i = 0; i < model->params.count; i++) {
        const struct param *p = model->params.list[i];
        int64_t out = p->dim[0], in = out ? p->numel / out : 0;

        if (job->use == MEMORY_LORA && !model->lora && !adapters_leave_whole(p))
            *ret_more += p->linear && !p->frozen && p != model->w->lm_head ? job->lora_r * (in + out) : 0;
        else
            trained += p->frozen ? 0 : p->numel;
    }
    return trained + *ret_more;
}

/* All but the weights, the moments and the cache, when passes are of so many shards. */
static int need_of_passes(const struct openvla *model, const struct device_job *job, int64_t gradient, int prompt, int capacity,
                          bool recompute, int together, struct device_need *need)
{
    const struct openvla_config *c = &model->config;
    struct planned pass[MOST_PASSES];
    int ranks = MAX(job->ranks, 1), passes = passes_of(c, job, together, pass);
    bool training = job->use != MEMORY_ACT;

    need->activations = 0;
    need->workspace = job->blas ? DEVICE_WORKSPACE : 0;
    for (int i = 0; i < passes; i++) {
        int64_t arena;
        int r = plan_arena(model, &pass[i], job->half, prompt, capacity, recompute, &arena);

        if (r < 0)
            return r;
        need->activations = MAX(need->activations, arena);
        if (job->dnn && job->half && !job->strict)
            need->workspace = MAX(need->workspace, attention_scratch(c, &pass[i], prompt));
    }
    need->gradients = training ? (int64_t)device_sums_bytes(gradient, SHARDS / ranks / together, ranks, job->strict) : 0;
    need->workspace += DEVICE_STAGING + capacity * (c->hidden / c->heads) * (int64_t)sizeof(float);
    need->recompute = recompute;
    need->together = together;
    need->total = need->weights + need->reference + need->gradients + need->optimiser + need->cache + need->workspace +
        need->activations;
    return 0;
}

/* The quickest way that fits: nothing computed twice, then many shards at once. The last one tried, which needs least, where none
 * does; of a job that says nothing of room, this alone. */
static int choose_passes(const struct openvla *model, const struct device_job *job, bool large, int64_t gradient, int prompt,
                         int capacity, struct device_need *need)
{
    int most = job->use == MEMORY_ACT || job->strict || !job->fits ? 1 : SHARDS / MAX(job->ranks, 1);

    for (int twice = large && !job->fits; twice <= large; twice++)
        for (int together = most; together; together /= 2) {
            int r = need_of_passes(model, job, gradient, prompt, capacity, twice, together, need);

            if (r < 0 || need->total <= job->fits)
                return r;
        }
    return 0;
}

int64_t memory_on_device(struct openvla *model, bool fast)
{
    memory_keep_halves(model, true);
    return (int64_t)mirror_bytes(&model->params, fast || params_are_half(&model->params));
}

int memory_need_device(const struct openvla *model, const struct device_job *job, struct device_need *ret)
{
    const struct openvla_config *c = &model->config;
    int prompt = job->prompt ? job->prompt : PROMPT_GUESS, pictures = c->oft.kind == OFT_NONE ? 1 : c->oft.images;
    int positions = pictures * c->patches + prompt + c->action_dims, capacity = (positions + 15) / 16 * 16, r;
    struct device_need need = {.reference = job->reference};
    int64_t numel = 0, more = 0, trained;
    bool large;

    if (job->batch < 1 || SHARDS % MAX(job->ranks, 1))
        return -EINVAL;
    for (int i = 0; i < model->params.count; i++)
        numel += model->params.list[i]->numel;
    trained = trained_of(model, job, &more);
    need.weights = (int64_t)mirror_bytes(&model->params, job->half) + more * (job->half ? 6 : 4);
    need.shared = (int64_t)mirror_shared_bytes(&model->params);
    if (job->use != MEMORY_ACT)
        need.optimiser = (int64_t)trainer_device_bytes(trained, job->masters);
    else
        need.weights += (int64_t)mirror_joined_bytes(&model->params, job->half, job->strict);
    if (job->use == MEMORY_ACT && !job->judges && c->oft.kind == OFT_NONE)
        need.cache = 2LL * c->layers * job->batch * capacity * c->hidden * (job->half ? 2 : 4);
    large = job->use != MEMORY_ACT && numel >= OPENVLA_LARGE;
    r = choose_passes(model, job, large, model->params.numel + more, prompt, capacity, &need);
    if (r < 0)
        return r;
    *ret = need;
    return 0;
}

void device_need_threads(struct device_need *need, int threads)
{
    need->total += (threads - 1) * (need->activations + need->cache + need->workspace);
    need->activations *= threads;
    need->cache *= threads;
    need->workspace *= threads;
}

static int look(const struct params *params, struct device_job *job, struct device_facts *ret, struct error *error)
{
    const struct device *device = params->device;
    char why[256] = "";
    int r = device->k->use(device->ordinal, ret, why, sizeof why);

    if (r < 0)
        return error_set(error, -r, "--device %s: %s", device->name, why);
    job->half = params->device_half;
    job->strict = device->strict;
    job->blas = device->blas != NULL;
    job->dnn = device->dnn != NULL;
    job->fits = (int64_t)(ret->memory_free / 2);        /* others of the run may have their share still to come */
    return 0;
}

int device_need_failed(int r, struct error *error)
{
    return error_set(error, -r, "what it takes of a device cannot be worked out: %s",
                     r == -E2BIG ? "its prompts are longer than its context; lower prm.history" : strerror(-r));
}

int memory_look_at_device(const struct openvla *model, struct device_job *job, struct device_need *ret_need,
                          struct device_facts *ret_facts, struct error *error)
{
    int r = look(&model->params, job, ret_facts, error);

    if (r < 0)
        return r;
    r = memory_need_device(model, job, ret_need);
    return r < 0 ? device_need_failed(r, error) : 0;
}

int memory_look_at_device_prm(const struct qwen_vl *model, struct device_job *job, struct device_need *ret_need,
                              struct device_facts *ret_facts, struct error *error)
{
    int r = look(&model->params, job, ret_facts, error);

    if (r < 0)
        return r;
    r = memory_need_device_prm(model, job, ret_need);
    return r < 0 ? device_need_failed(r, error) : 0;
}

int device_need_check(const struct device_need *need, const struct device_job *job, const char *name,
                      const struct device_facts *facts, struct error *error)
{
    const bool training = job->use != MEMORY_ACT, prm = job->judges || job->height > 0;
    const char *fewer = prm ? "fewer threads, or a smaller prm.history" : "fewer threads, or a device with more memory";
    const struct { const char *what; int64_t bytes; const char *knob; } parts[] = {
        {"weights", need->weights,
         prm ? "prm.init: a smaller reward model"
             : training ? "take a device with more memory"
                        : "numerics: fast keeps activations small, weights need a larger device"},
        {"reference", need->reference,
         job->use == MEMORY_FULL ? "policy.train: lora (the base is its own reference)" : "rl.kl: none"},
        {"gradients", need->gradients,
         prm ? "prm.init: a smaller reward model" : job->use == MEMORY_FULL ? "policy.train: lora" : "a smaller lora_r"},
        {"moments and masters", need->optimiser,
         prm                            ? "prm.train: head"
             : job->use != MEMORY_FULL  ? "a smaller lora_r"
             : job->masters             ? "policy.weights: fp32 (values are their own masters), or policy.train: lora"
                                        : "policy.train: lora"},
        {"activations", need->activations,
         !training ? fewer : prm ? "a smaller batch (prm.batch) or prm.history" : "a smaller batch (sft.batch, rl.minibatch)"},
        {"keys and values", need->cache, fewer},
        {"workspace", need->workspace, training ? "take a device with more memory" : fewer},
    };
    size_t first = 0, second = 1;

    if (need->total <= (int64_t)facts->memory_free)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        first = parts[i].bytes > parts[first].bytes ? i : first;
    second = first == 0 ? 1 : 0;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        second = i != first && parts[i].bytes > parts[second].bytes ? i : second;
    return error_set(error, ENOMEM,
                     "%s: %.0f MiB are needed at a batch of %d, %.0f of %.0f MiB are free; %s take %.0f, %s %.0f; try: %s",
                     name, (double)need->total / MEGA, job->batch, (double)facts->memory_free / MEGA,
                     (double)facts->memory / MEGA,
                     parts[first].what, (double)parts[first].bytes / MEGA, parts[second].what, (double)parts[second].bytes / MEGA,
                     parts[first].knob);
}
