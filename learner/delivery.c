#include "learner/delivery.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/array.h"
#include "learner/episode_return.h"
#include "run/trajectory.h"
#include "train/sample.h"

enum { MAX_STEPS = 100000, MAX_SIDE = 4096, MAX_DIMS = 1024, MAX_CAMERAS = 8 };

void deliveries_free(struct deliveries *d)
{
    for (size_t i = 0; i < d->n; i++)
        request_drop(d->list[i].request);
    free(d->list);
    *d = (struct deliveries) {0};
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Its numbers: as many as its steps ask for, and numbers. */
static const char *check_numbers(const Gantry__Trajectory *t)
{
    size_t steps = t->steps, actions = steps * t->action_dims;
    bool trained_on = t->purpose == GANTRY__PURPOSE__PURPOSE_TRAIN || t->purpose == GANTRY__PURPOSE__PURPOSE_ROLLOUT;

    if (t->n_progress && t->n_progress != steps + 1)
        return "progress must have steps + 1 entries, or none";
    if (t->n_env_reward && t->n_env_reward != steps)
        return "env_reward must have one entry for each step, or none";
    if (t->n_value && t->n_value != steps)
        return "value must have one entry for each step, or none";
    if (t->action_dims < 1 || t->action_dims > MAX_DIMS || t->n_action != actions || (t->n_label && t->n_label != actions))
        return "actions or labels are not steps x action_dims";
    if (t->n_state % (steps + 1) || t->n_state > (steps + 1) * MAX_DIMS)
        return "the robot's state is not equally many numbers for each of steps + 1 observations, or too many";
    if (!all_finite(t->state, t->n_state))
        return "a number of the robot's state is not finite";
    if (t->n_tokens != t->n_logp)
        return "tokens and log-probabilities differ in number";
    if (t->n_tokens % steps || (trained_on && !t->n_tokens))        /* a demonstrator has none, also when it is evaluated */
        return "tokens are missing, or not the same number in each step";
    if (t->n_hidden % steps || t->n_turn_hidden % MAX(t->n_turns, (size_t)1))
        return "hidden states are not equally many numbers for each answer";
    if (!all_finite(t->hidden, t->n_hidden) || !all_finite(t->turn_hidden, t->n_turn_hidden))
        return "a hidden state is not finite";
    if (!all_finite(t->progress, t->n_progress) || !all_finite(t->env_reward, t->n_env_reward))
        return "a progress score or reward is not finite";
    if (!all_finite(t->logp, t->n_logp) || !all_finite(t->value, t->n_value))
        return "a log-probability or value is not finite";
    if (!all_finite(t->action, t->n_action) || !all_finite(t->label, t->n_label))
        return "an action or label is not finite";
    return NULL;
}

/* Pictures as the run has them: of a worker that is configured otherwise they would be found out only when the iteration is
 * trained on, which could then not end, however often the run is begun again. */
static const char *check_run(const struct run_config *run, const Gantry__Trajectory *t)
{
    const char *chain = t->image_chain && t->image_chain[0] ? t->image_chain : IMAGE_CHAIN_RENDER;

    if (t->height != (uint32_t)run->image || t->width != (uint32_t)run->image)
        return "its pictures are of another size than the run's (suite.image)";
    if (MAX(t->images, 1u) != (uint32_t)run->cameras)
        return "its observations have another number of pictures than the run's (suite.cameras)";
    return strcmp(chain, run->chain) ? "its pictures are made otherwise than the run's (suite.chain)" : NULL;
}

/* NULL: it can be journaled. What the model must judge (is a token an action?) is checked when it is trained on. */
static const char *check(const struct request *request, const Gantry__Trajectory *t, const struct run_config *run)
{
    const char *problem;
    size_t n_frames;

    if (request->message->n_parts != 1)
        return "a trajectory has one raw frame: all its pictures";
    if (t->steps < 1 || t->steps > MAX_STEPS || t->height < 1 || t->height > MAX_SIDE || t->width < 1 || t->width > MAX_SIDE ||
        t->images > MAX_CAMERAS)
        return "steps, height, width or images are out of range";
    problem = episode_check_observed(t->observed, t->n_observed, t->turns, t->n_turns, t->steps);
    if (problem)
        return problem;
    (void)message_part(request->message, 0, &n_frames);
    if (n_frames != trajectory_observed(t) * MAX(t->images, 1u) * t->height * t->width * 3)
        return "the pictures are not (steps + 1, or as many as were drawn) x images x height x width x 3 bytes";
    problem = check_numbers(t);
    return problem || !run ? problem : check_run(run, t);
}

static void digest(const struct request *request, uint8_t ret[SHA256_SIZE])
{
    struct sha256 sha;
    size_t n = 0;
    const uint8_t *frames = request->message->n_parts ? message_part(request->message, 0, &n) : NULL;

    sha256_init(&sha);
    sha256_add(&sha, request->message->body_bytes, request->message->body_size);
    if (frames)
        sha256_add(&sha, frames, n);
    sha256_end(&sha, ret);
}

int delivery_take(struct deliveries *d, struct request *request, const struct run_config *run, const struct rl_config *rl,
                  struct intake_event *ret_event)
{
    const Gantry__Trajectory *t = (const Gantry__Trajectory *)request->message->body;
    struct intake_event event = {.kind = INTAKE_DELIVER, .epoch = request->message->envelope.epoch, .from = request->peer};

    if (array_room(&d->list, d->n, &d->capacity, sizeof *d->list) < 0)
        return -ENOMEM;
    event.request = event.deliver.token = ++d->last;
    event.deliver.policy_version = t->policy_version;
    event.deliver.text = check(request, t, run);
    event.deliver.valid = !event.deliver.text;
    event.deliver.episode = (struct journaled_episode) {
        .episode = t->episode, .success = t->success, .timeout = t->timeout, .steps = t->steps, .member = t->member,
        .progress_end = t->n_progress ? t->progress[t->n_progress - 1] : 0,
    };
    if (event.deliver.valid)
        event.deliver.episode.reward = (float)episode_return(t, rl);
    digest(request, event.deliver.episode.digest);
    d->list[d->n++] = (struct delivery) {d->last, request_take(request)};
    *ret_event = event;
    return 0;
}

static struct delivery *find(const struct deliveries *d, uint64_t number)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->list[i].number == number)
            return &d->list[i];
    return NULL;
}

int delivery_bytes(const struct deliveries *d, uint64_t number, const void **ret_meta, size_t *ret_n_meta,
                   const void **ret_frames, size_t *ret_n_frames)
{
    const struct delivery *delivery = find(d, number);

    if (!delivery)
        return -ENOENT;
    *ret_meta = delivery->request->message->body_bytes;
    *ret_n_meta = delivery->request->message->body_size;
    *ret_frames = message_part(delivery->request->message, 0, ret_n_frames);
    return 0;
}

void delivery_answer(struct deliveries *d, uint64_t number, const struct intake_effect *effect)
{
    struct delivery *delivery = find(d, number);
    Gantry__DeliverReply reply = GANTRY__DELIVER_REPLY__INIT;
    struct request *request;

    if (!delivery)
        return;
    request = delivery->request;
    *delivery = d->list[--d->n];
    if (!effect) {
        wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "the episode cannot be taken just now; deliver it again");
        return;
    }
    reply.episode = effect->reply.episode;
    reply.verdict = (Gantry__DeliverReply__Verdict)effect->reply.verdict;
    reply.digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)effect->reply.digest};
    reply.text = (char *)effect->reply.text;
    wire_reply(request, &reply.base, NULL, 0);
}
