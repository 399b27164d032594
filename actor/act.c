#include "actor/act.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>

#include "base/fault.h"
#include "actor/act_reply.h"
#include "proto/policy.pb-c.h"
#include "nn/device/device.h"
#include "serve/policy_version.h"
#include "train/device_memory.h"

enum { MAX_ROWS = 64 };
#define MASKED ""           /* the instruction of confidence's other side (MG-Select, docs/method.md) */

struct lane {
    struct openvla_session *session;
    struct openvla_config config;       /* it was made for */
    struct act_item items[MAX_ROWS];
    struct act_result results[MAX_ROWS];
    struct oft_result chunks[MAX_ROWS];
    float states[MAX_ROWS][OPENVLA_MAX_PROPRIO];
    struct serve_job *jobs[MAX_ROWS];
};

static atomic_bool held_before;         /* a version has been loaded: later ones find the caches made */

struct act_state {
    atomic_uint_fast64_t seed;          /* of the run */
    unsigned n;
    struct lane lanes[];
};

/* Each lane keeps keys and values for the largest batch: whether they fit is known now, not with the first request. */
static int check_device(const struct openvla *model, bool first, unsigned lanes, struct error *error)
{
    const struct device *device = model->params.device;
    struct device_job job = {.use = MEMORY_ACT, .batch = MAX_ROWS};
    struct device_facts facts;
    struct device_need need;
    int r;

    if (!device || !first)
        return 0;
    r = memory_look_at_device(model, &job, &need, &facts, error);
    if (r < 0)
        return r;
    need.total -= need.weights;         /* they are there */
    need.weights = 0;
    device_need_threads(&need, (int)lanes);
    return device_need_check(&need, &job, device->name, &facts, error);
}

static int act_load(const char *dir, const uint8_t digest[32], const struct serve_terms *terms, void **ret_model,
                    struct error *error)
{
    struct policy_version *version;
    int r = policy_version_load(dir, digest, terms->fast, false, &version, error);

    if (r < 0)
        return r;
    if (!openvla_stats(version->model, NULL)) {
        policy_version_free(version);
        return error_set(error, EINVAL,
                         "%s: dataset_statistics.json names several data sets; keep the one whose units the suite takes", dir);
    }
    r = check_device(version->model, !atomic_exchange(&held_before, true), terms->lanes, error);
    if (r < 0) {
        policy_version_free(version);
        atomic_store(&held_before, false);
        return error_prefix(error, r, "%s", dir);
    }
    *ret_model = version;
    return 0;
}

static void act_unload(void *model)
{
    policy_version_free(model);
}

/* Pictures of an observation that the policy looks at: the first ones. */
static int images_taken(const struct openvla_config *config)
{
    return config->oft.kind == OFT_NONE ? 1 : config->oft.images;
}

static int act_check(const struct message *message, void *model, struct error *error)
{
    const Gantry__ActRequest *request = (const Gantry__ActRequest *)message->body;
    const struct openvla_config *config = &((struct policy_version *)model)->model->config;
    int state = config->oft.kind == OFT_NONE ? 0 : config->oft.proprio;
    size_t size;

    if (request->images < 1 || request->images > OPENVLA_MAX_IMAGES || request->images != message->n_parts)
        return error_set(error, EINVAL, "images: %u named, %u sent; one to %d", request->images, message->n_parts,
                         OPENVLA_MAX_IMAGES);
    if (request->height != (uint32_t)config->image_height || request->width != (uint32_t)config->image_width)
        return error_set(error, EINVAL, "image %ux%u: the policy takes %dx%d; set suite.image to that", request->width,
                         request->height, config->image_width, config->image_height);
    if (config->image_chain[0] && strcmp(config->image_chain, request->image_chain[0] ? request->image_chain : "render") != 0)
        return error_set(error, EINVAL, "pictures of the chain %s: the policy was trained on %s; set suite.chain to that",
                         request->image_chain[0] ? request->image_chain : "render", config->image_chain);
    for (unsigned i = 0; i < message->n_parts; i++) {
        message_part(message, i, &size);
        if (size != (size_t)request->height * request->width * 3)
            return error_set(error, EINVAL, "image %u: %zu bytes, want %zu", i, size,
                             (size_t)request->height * request->width * 3);
    }
    if (request->images < (uint32_t)images_taken(config) || (state && request->n_state != (size_t)state))
        return error_set(error, EINVAL, "%u pictures and %zu numbers of the robot's state: the policy takes %d and %d; let the "
                         "suite send them", request->images, request->n_state, images_taken(config), state);
    for (size_t i = 0; i < request->n_state; i++)
        if (!isfinite(request->state[i]))
            return error_set(error, EINVAL, "number %zu of the robot's state is not finite", i);
    if (request->want_confidence && config->oft.kind != OFT_NONE)
        return error_set(error, EINVAL,
                         "confidence: this policy answers a whole chunk at once; ask a policy that answers token by token");
    if (request->end_token && (config->oft.kind != OFT_NONE || !request->full))
        return error_set(error, EINVAL, "end_token: %s",
                         config->oft.kind != OFT_NONE ? "this policy answers a whole chunk at once and says none" :
                                                        "it is none of the 256 action ids; ask for the full support");
    if (!(request->temperature >= 0 && request->temperature <= 100))
        return error_set(error, EINVAL, "temperature %g: 0 to 100", (double)request->temperature);
    return 1;
}

static const Gantry__ActRequest *request_of(const struct serve_job *job)
{
    return (const Gantry__ActRequest *)job->request->message->body;
}

/* instruction: the request's own, or MASKED. */
static int fill_item(struct act_state *state, struct policy_version *version, const struct serve_job *job,
                     const char *instruction, struct act_item *ret)
{
    const struct message *message = job->request->message;
    const Gantry__ActRequest *request = request_of(job);
    struct act_item item = {
        .n_images = images_taken(&version->model->config), .temperature = request->temperature, .seed = atomic_load(&state->seed),
        .episode = request->sample_key ? request->sample_key : request->episode, .step = request->step, .sample = request->sample,
        .value_only = request->value_only, .full = request->full, .ended = request->end_token,
    };
    size_t size;
    int r = policy_version_prompt(version, instruction, &item.prompt, &item.n_prompt);

    if (r < 0)
        return r;
    for (int i = 0; i < item.n_images; i++)
        item.images[i] = message_part(message, (unsigned)i, &size);
    *ret = item;
    return 0;
}

static bool wants_hidden(const struct serve_job *job)
{
    return request_of(job)->want_hidden;
}

static void refuse(struct serve_job *job, const char *what, int r)
{
    job->status = r == -ENOSPC || r == -EINVAL ? GANTRY__STATUS__STATUS_BAD_REQUEST : GANTRY__STATUS__STATUS_INTERNAL;
    snprintf(job->text, sizeof job->text, "%s: %s", what,
             r == -E2BIG ? "the instruction is too long for the model's context" : strerror(-r));
}

/* One action per request, token after token. */
static int act_one(struct lane *lane, const struct openvla *model, int rows)
{
    const struct openvla_config *config = &model->config;
    int r = openvla_act(model, lane->session, lane->items, rows, lane->results);

    for (int i = 0; i < rows && r >= 0; i++) {
        const struct act_result *result = &lane->results[i];
        double normalised[OPENVLA_MAX_ACTION_DIMS];

        if (lane->items[i].shadow_of)
            continue;
        for (int k = 0; k < config->action_dims; k++)
            normalised[k] = openvla_decode(config, result->tokens[k]);
        lane->jobs[i]->reply = act_reply(model, lane->jobs[i]->version, &(struct act_answer) {
            .actions = lane->items[i].value_only ? 0 : 1, .ended = lane->items[i].ended, .tokens = result->tokens,
            .logp = result->logp, .normalised = normalised,
            .value = result->value, .entropy = result->entropy, .confidence = result->confidence,
            .hidden = wants_hidden(lane->jobs[i]) ? openvla_act_hidden(lane->session, i) : NULL,
        });
    }
    return r;
}

/* A chunk of actions per request, in one pass. */
static int act_chunks(struct lane *lane, const struct openvla *model, int rows)
{
    struct oft_item items[MAX_ROWS] = {0};
    int r;

    for (int i = 0; i < rows; i++) {
        const struct act_item *from = &lane->items[i];
        const Gantry__ActRequest *request = (const Gantry__ActRequest *)lane->jobs[i]->request->message->body;
        double state[OPENVLA_MAX_PROPRIO], normalised[OPENVLA_MAX_PROPRIO];

        for (size_t k = 0; k < request->n_state && k < OPENVLA_MAX_PROPRIO; k++)
            state[k] = (double)request->state[k];
        if (model->config.oft.proprio)
            oft_normalise_state(openvla_stats(model, NULL), state, normalised);
        for (int k = 0; k < model->config.oft.proprio; k++)
            lane->states[i][k] = (float)normalised[k];
        items[i] = (struct oft_item) {
            .n_images = from->n_images, .prompt = from->prompt, .n_prompt = from->n_prompt, .temperature = from->temperature,
            .proprio = model->config.oft.proprio ? lane->states[i] : NULL, .full = from->full, .seed = from->seed,
            .episode = from->episode, .step = from->step, .sample = from->sample,
        };
        memcpy(items[i].images, from->images, sizeof items[i].images);
    }
    r = oft_act(model, lane->session, items, rows, lane->chunks);
    for (int i = 0; i < rows && r >= 0; i++)
        lane->jobs[i]->reply = act_reply(model, lane->jobs[i]->version, &(struct act_answer) {
            .actions = lane->items[i].value_only ? 0 : model->config.oft.chunk, .tokens = lane->chunks[i].tokens,
            .logp = lane->chunks[i].logp, .normalised = lane->chunks[i].action, .value = lane->chunks[i].value,
            .entropy = lane->chunks[i].entropy,
            .hidden = wants_hidden(lane->jobs[i]) ? openvla_act_hidden(lane->session, i) : NULL,
        });
    return r;
}

/* Requests from `from` on until the lane is full, each with its shadow behind it if it wants one. Returns how many requests. */
static unsigned fill_pass(struct act_state *state, struct lane *lane, struct serve_job **jobs, unsigned from, unsigned n,
                          int *ret_rows)
{
    struct policy_version *version = jobs[0]->model;
    unsigned i = from;
    int rows = 0;

    for (; i < n; i++) {
        bool shadow = request_of(jobs[i])->want_confidence;
        int r;

        if (rows + 1 + shadow > MAX_ROWS)
            break;
        r = fill_item(state, version, jobs[i], request_of(jobs[i])->instruction, &lane->items[rows]);
        if (r == 0 && shadow && (r = fill_item(state, version, jobs[i], MASKED, &lane->items[rows + 1])) == 0)
            lane->items[rows + 1].shadow_of = rows + 1;
        if (r < 0) {
            refuse(jobs[i], "the request cannot be prepared", r);
            continue;
        }
        for (int k = 0; k < 1 + shadow; k++)
            lane->jobs[rows++] = jobs[i];
    }
    *ret_rows = rows;
    return i - from;
}

static void act_compute(void *arg, unsigned number, struct serve_job **jobs, unsigned n)
{
    struct act_state *state = arg;
    struct lane *lane = &state->lanes[number];
    const struct openvla *model = ((struct policy_version *)jobs[0]->model)->model;
    int rows, fit = session_fit(&lane->session, &lane->config, &model->config, MAX_ROWS), r;

    for (unsigned from = 0; from < n;) {
        from += fill_pass(state, lane, jobs, from, n, &rows);
        r = fit;
        if (rows > 0 && fit >= 0)
            r = model->config.oft.kind == OFT_NONE ? act_one(lane, model, rows) : act_chunks(lane, model, rows);
        if (r < 0)
            (void)device_ask(model->params.device);
        for (int i = 0; i < rows; i++)
            if (r < 0)
                refuse(lane->jobs[i], "the policy failed", r);
            else if (!lane->jobs[i]->reply)
                refuse(lane->jobs[i], "the reply", -ENOMEM);
    }
}

static void *act_state_new(unsigned lanes)
{
    struct act_state *state = calloc(1, sizeof *state + lanes * sizeof state->lanes[0]);

    if (state)
        state->n = lanes;
    return state;
}

static void act_state_free(void *arg)
{
    struct act_state *state = arg;

    for (unsigned i = 0; i < state->n; i++)
        openvla_session_free(state->lanes[i].session);
    free(state);
}

static void act_on_seed(void *arg, uint64_t seed)
{
    struct act_state *state = arg;

    atomic_store(&state->seed, seed);
}

const struct serve_kind act_kind = {
    .role = GANTRY__ROLE__ROLE_ACTOR, .version_kind = GANTRY__VERSION_KIND__VERSION_POLICY,
    .request_kind = GANTRY__KIND__KIND_ACT,
    .name = "actor", .max_rows = MAX_ROWS, .load = act_load, .unload = act_unload, .check = act_check, .compute = act_compute,
    .state_new = act_state_new, .state_free = act_state_free, .on_seed = act_on_seed,
};
