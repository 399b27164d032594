/* Intake's step, and its effects as jobs, replies and messages. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "learner/edge_internal.h"

/* An event that arises while effects are carried out waits for its turn of the loop. */
struct later { struct edge *edge; struct intake_event event; };

static void step_later(void *arg)
{
    struct later *later = arg;

    if (later->edge->intake)
        edge_step(later->edge, &later->event);
    free(later);
}

static void post_event(struct edge *edge, const struct intake_event *event)
{
    struct later *later = malloc(sizeof *later);

    if (later)
        *later = (struct later) {edge, *event};
    if (!later || loop_post(edge->loop, step_later, later) < 0) {
        free(later);
        log_error("out of memory", "where=edge");
        lifecycle_stop(edge->lifecycle, 1);
    }
}

static void append(struct edge *edge, const struct intake_effect *effect)
{
    const void *meta, *frames;
    size_t n_meta, n_frames;
    int r = delivery_bytes(&edge->deliveries, effect->append.token, &meta, &n_meta, &frames, &n_frames);

    if (r >= 0)
        r = journal_thread_append(edge->journal_thread, effect->append.stage, effect->append.iteration, effect->append.episode,
                                  effect->append.token, meta, n_meta, frames, n_frames);
    if (r >= 0)
        return;
    log_error("an episode cannot be handed to the journal", "episode=%" PRIu64 " reason=%s", effect->append.episode,
              LOG_Q(strerror(-r)));
    post_event(edge, &(struct intake_event) {
        .kind = INTAKE_APPENDED, .appended = {effect->append.episode, effect->append.token, r} });
}

static void train(struct edge *edge, const struct intake_effect *effect)
{
    int r = -ESTALE;

    if (!memcmp(edge->plan.digest, effect->plan.digest, SHA256_SIZE))
        r = train_thread_run(edge->train_thread, edge->plan.bytes, edge->plan.n);
    if (r >= 0)
        return;
    log_error("a plan cannot be started", "version=%" PRIu64 " reason=%s", effect->plan.version, LOG_Q(strerror(-r)));
    post_event(edge, &(struct intake_event) {.kind = INTAKE_TRAINED, .trained = {.result = r, .text = "not started"}});
}

static void segment(struct edge *edge, const struct intake_effect *effect,
                    int (*ask)(struct journal_thread *, uint32_t, uint32_t))
{
    int r = ask(edge->journal_thread, effect->segment.stage, effect->segment.iteration);

    if (r < 0)
        log_error("the journal's queue does not take a segment", "stage=%u iteration=%u reason=%s", effect->segment.stage,
                  effect->segment.iteration, LOG_Q(strerror(-r)));
}

static void carry_out(struct edge *edge, const struct intake_effect *effect)
{
    switch (effect->kind) {
    case INTAKE_SEGMENT: segment(edge, effect, journal_thread_segment); break;
    case INTAKE_SEAL: segment(edge, effect, journal_thread_seal); break;
    case INTAKE_APPEND: append(edge, effect); break;
    case INTAKE_RELEASE: break;         /* the answer has freed it, or will */
    case INTAKE_REPLY: delivery_answer(&edge->deliveries, effect->request, effect); break;
    case INTAKE_BUSY: delivery_answer(&edge->deliveries, effect->request, NULL); break;
    case INTAKE_SEND_JOURNALED: edge_send_journaled(edge, effect); break;
    case INTAKE_SEND_INVENTORY: edge_send_inventory(edge, effect); break;
    case INTAKE_SEND_COMMITTED: edge_send_committed(edge, effect); break;
    case INTAKE_TRAIN: train(edge, effect); break;
    }
}

void edge_step(struct edge *edge, const struct intake_event *event)
{
    int r = intake_step(edge->intake, event, clock_mono_ms(), &edge->effects);

    if (r < 0) {
        log_error("out of memory", "where=intake");
        lifecycle_stop(edge->lifecycle, 1);
        return;
    }
    for (size_t i = 0; i < edge->effects.n; i++)
        carry_out(edge, &edge->effects.items[i]);
}
