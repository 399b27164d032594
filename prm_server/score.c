#include "prm_server/score.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>

#include "base/fault.h"
#include "nn/device/device.h"
#include "nn/reward_config.h"
#include "proto/prm.pb-c.h"
#include "prm_server/score_backbone.h"
#include "rl/stats.h"
#include "train/device_memory.h"

enum { MAX_ROWS = 64 };         /* frames in one pass */

struct lane {
    struct openvla_session *session;
    struct openvla_config config;       /* it was made for */
    struct qwen_session *backbone;      /* NULL until one is served */
    struct score_item items[MAX_ROWS];
    float progress[MAX_ROWS];
};

struct score_state { unsigned n; struct lane lanes[]; };

static atomic_bool held_before;         /* a version has been loaded: later ones find the lanes' memory taken */

/* Whether the longest prompts of a full batch fit beside the weights, in each lane: known now, not with a long episode. */
static int check_device(const struct reward_version *version, const struct serve_terms *terms, struct error *error)
{
    const struct device *device = version->backbone ? version->backbone->params.device : version->trunk->model->params.device;
    struct device_job job = {.use = MEMORY_ACT, .batch = MAX_ROWS};
    struct device_facts facts;
    struct device_need need;
    int r;

    if (!device)
        return 0;
    job.judges = version->trunk != NULL;
    job.height = job.width = version->backbone ? terms->image : 0;
    r = version->backbone ? memory_look_at_device_prm(version->backbone, &job, &need, &facts, error)
                          : memory_look_at_device(version->trunk->model, &job, &need, &facts, error);
    if (r < 0)
        return r;
    need.total -= need.weights;         /* they are there */
    need.weights = 0;
    device_need_threads(&need, (int)terms->lanes);
    return device_need_check(&need, &job, device->name, &facts, error);
}

static int score_load(const char *dir, const uint8_t digest[32], const struct serve_terms *terms, void **ret_model,
                      struct error *error)
{
    struct reward_version *version;
    int r = reward_version_load(dir, digest, terms->fast, &version, error);

    if (r < 0)
        return r;
    r = atomic_load(&held_before) ? 0 : check_device(version, terms, error);
    if (r < 0) {
        reward_version_free(version);
        return error_prefix(error, r, "%s", dir);
    }
    atomic_store(&held_before, true);
    *ret_model = version;
    return 0;
}

static void score_unload(void *model)
{
    reward_version_free(model);
}

static int score_check(const struct message *message, void *model, struct error *error)
{
    const Gantry__ScoreRequest *request = (const Gantry__ScoreRequest *)message->body;
    const struct reward_version *version = model;
    const struct openvla_config *config = version->trunk ? &version->trunk->model->config : NULL;
    size_t size, want = (size_t)request->height * request->width * 3 * MAX(request->cameras, 1u);

    if (request->height < 1 || request->width < 1 || request->height > 1 << 14 || request->width > 1 << 14)
        return error_set(error, EINVAL, "image %ux%u", request->width, request->height);
    if (config && (request->height != (uint32_t)config->image_height || request->width != (uint32_t)config->image_width))
        return error_set(error, EINVAL, "image %ux%u: the reward model takes %dx%d", request->width, request->height,
                         config->image_width, config->image_height);
    if (message->n_parts != 1)
        return error_set(error, EINVAL, "%u frames: all images travel in one", message->n_parts);
    message_part(message, 0, &size);
    if (request->cameras > OPENVLA_MAX_IMAGES)
        return error_set(error, EINVAL, "%u cameras: at most %d", request->cameras, OPENVLA_MAX_IMAGES);
    if (request->images < 1 || size != want * request->images)
        return error_set(error, EINVAL, "%u images in %zu bytes, want %zu", request->images, size, want * request->images);
    if (request->n_at < 1)
        return error_set(error, EINVAL, "no image is asked for");
    for (size_t i = 0; i < request->n_at; i++)
        if (request->at[i] >= request->images)
            return error_set(error, EINVAL, "image %u is asked for, of %u", request->at[i], request->images);
    if (version->backbone && backbone_check(version->backbone, message, error) < 0)
        return -EINVAL;
    return (int)request->n_at;
}

/* Scores of one request, MAX_ROWS frames at a time: each frame beside the episode's first and those just before it. */
static int score_request(struct lane *lane, struct policy_version *version, const struct message *message, float *ret_progress,
                         struct error *error)
{
    const Gantry__ScoreRequest *request = (const Gantry__ScoreRequest *)message->body;
    size_t size, picture = (size_t)request->height * request->width * 3 * MAX(request->cameras, 1u);    /* the first camera's */
    const uint8_t *frames = message_part(message, 0, &size);
    const int32_t *prompt;
    int history = version->model->config.reward_history;
    int n_prompt, r = policy_version_prompt(version, request->instruction, &prompt, &n_prompt);

    if (r == -E2BIG)
        return openvla_reward_prompt_failed(version->model, r, error);
    for (size_t first = 0; first < request->n_at && r >= 0; first += MAX_ROWS) {
        int n = (int)MIN((size_t)MAX_ROWS, request->n_at - first);

        for (int i = 0; i < n; i++) {
            lane->items[i] = (struct score_item) {.n_images = history + 2, .prompt = prompt, .n_prompt = n_prompt};
            for (int k = 0; k < history + 2; k++)
                lane->items[i].images[k] = frames + (size_t)reward_frame(history, (int)request->at[first + (size_t)i],
                                                                         k) * picture;
        }
        r = openvla_score(version->model, lane->session, lane->items, n, ret_progress + first);
    }
    return r;
}

static ProtobufCMessage *answer(struct lane *lane, struct serve_job *job)
{
    const struct message *message = job->request->message;
    const struct reward_version *version = job->model;
    struct error error = {0};
    size_t n = ((const Gantry__ScoreRequest *)message->body)->n_at;
    Gantry__ScoreReply *reply = malloc(sizeof *reply);
    bool asked;         /* for what cannot be */
    int r = -ENOMEM;

    if (reply) {
        gantry__score_reply__init(reply);
        reply->prm_version = job->version;
        reply->progress = malloc(n * sizeof *reply->progress);
        reply->n_progress = reply->progress ? n : 0;
        if (reply->progress)
            r = version->backbone ? backbone_score(version->backbone, &lane->backbone, message, reply->progress, &error)
                                  : score_request(lane, version->trunk, message, reply->progress, &error);
        if (r >= 0 && fault_point("score.reply") == FAULT_NAN)
            reply->progress[0] = NAN;
    }
    if (r >= 0)
        return &reply->base;
    if (reply)
        protobuf_c_message_free_unpacked(&reply->base, NULL);
    (void)device_ask(device_process());
    asked = r == -EINVAL || r == -ENOSPC || r == -E2BIG;
    job->status = asked ? GANTRY__STATUS__STATUS_BAD_REQUEST : GANTRY__STATUS__STATUS_INTERNAL;
    snprintf(job->text, sizeof job->text, "the reward model failed: %s", error_text(&error, r));
    return NULL;
}

static void score_compute(void *arg, unsigned number, struct serve_job **jobs, unsigned n)
{
    struct score_state *state = arg;
    struct lane *lane = &state->lanes[number];
    const struct reward_version *version = jobs[0]->model;
    int r = version->backbone ? 0 : session_fit(&lane->session, &lane->config, &version->trunk->model->config, MAX_ROWS);

    for (unsigned i = 0; i < n; i++) {
        if (r >= 0)
            jobs[i]->reply = answer(lane, jobs[i]);
        else
            snprintf(jobs[i]->text, sizeof jobs[i]->text, "no memory for a session");
    }
}

static int score_compare(const struct message *message, const ProtobufCMessage *first, const ProtobufCMessage *second,
                         Gantry__ShadowScored *ret)
{
    const Gantry__ScoreRequest *request = (const Gantry__ScoreRequest *)message->body;
    const Gantry__ScoreReply *a = (const Gantry__ScoreReply *)first, *b = (const Gantry__ScoreReply *)second;
    size_t n = a->n_progress;
    _cleanup_free_ double *x = NULL, *y = NULL;
    double difference = 0, rank;
    int r;

    if (!request->whole || !n)
        return -EINVAL;
    if (!b)
        return 0;
    if (b->n_progress != n)
        return -EINVAL;
    x = calloc(n, sizeof *x);
    y = calloc(n, sizeof *y);
    if (!x || !y)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)a->progress[i];
        y[i] = (double)b->progress[i];
        difference += fabs(y[i] - x[i]);
    }
    r = rank_correlation(x, y, (int)n, &rank);
    if (r < 0)
        return r;
    ret->episode = request->episode;
    ret->frames = (uint32_t)n;
    ret->difference = (float)(difference / (double)n);
    ret->rank = (float)rank;
    ret->last = a->progress[n - 1];
    ret->shadow_last = b->progress[n - 1];
    return 0;
}

static void *score_state_new(unsigned lanes)
{
    struct score_state *state = calloc(1, sizeof *state + lanes * sizeof state->lanes[0]);

    if (state)
        state->n = lanes;
    return state;
}

static void score_state_free(void *arg)
{
    struct score_state *state = arg;

    for (unsigned i = 0; i < state->n; i++) {
        openvla_session_free(state->lanes[i].session);
        qwen_session_free(state->lanes[i].backbone);
    }
    free(state);
}

const struct serve_kind score_kind = {
    .role = GANTRY__ROLE__ROLE_PRM_SERVER, .version_kind = GANTRY__VERSION_KIND__VERSION_PRM,
    .request_kind = GANTRY__KIND__KIND_SCORE,
    .name = "prm-server", .max_rows = MAX_ROWS, .load = score_load, .unload = score_unload, .check = score_check,
    .compute = score_compute, .compare = score_compare, .state_new = score_state_new, .state_free = score_state_free,
};
