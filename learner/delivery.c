#include "learner/delivery.h"

#include <errno.h>
#include <string.h>

#include "base/array.h"
#include "learner/episode_return.h"

void deliveries_free(struct deliveries *d)
{
    for (size_t i = 0; i < d->n; i++)
        request_drop(d->list[i].request);
    free(d->list);
    *d = (struct deliveries) {0};
}

static int check(const struct request *request, const Gantry__Trajectory *t, const struct admission *terms, struct error *error)
{
    size_t n_frames;

    if (request->message->n_parts != 1)
        return error_set(error, EINVAL, "a trajectory has one raw frame: all its pictures");
    (void)message_part(request->message, 0, &n_frames);
    return admission_check(terms, t, n_frames, error);
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

int delivery_take(struct deliveries *d, struct request *request, const struct admission *terms, struct intake_event *ret_event)
{
    const Gantry__Trajectory *t = (const Gantry__Trajectory *)request->message->body;
    int fit = check(request, t, terms, &d->why);
    struct intake_event event = {.kind = INTAKE_DELIVER, .epoch = request->message->envelope.epoch, .from = request->peer};

    if (array_room(&d->list, d->n, &d->capacity, sizeof *d->list) < 0)
        return -ENOMEM;
    event.request = event.deliver.token = ++d->last;
    event.deliver.policy_version = t->policy_version;
    event.deliver.purpose = (uint32_t)t->purpose;
    event.deliver.valid = fit == 0;
    event.deliver.text = fit < 0 ? d->why.text : NULL;
    event.deliver.episode = (struct journaled_episode) {
        .episode = t->episode, .success = t->success, .timeout = t->timeout, .steps = t->steps, .member = t->member,
        .progress_end = t->n_progress ? t->progress[t->n_progress - 1] : 0,
    };
    if (event.deliver.valid)
        event.deliver.episode.reward = (float)episode_return(t, terms->rl);
    digest(request, event.deliver.episode.digest);
    d->list[d->n++] = (struct delivery) {d->last, request_take(request), fit == -EBADMSG};
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
    reply.answers = delivery->answers;
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
