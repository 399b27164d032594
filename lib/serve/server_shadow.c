/* server_shadow.c - finished episodes scored a second time, by a version on trial, and how well the two agree told to the
 * coordinator.
 *
 * The episode's own answer has gone out by then: nobody waits for the second one. At most SERVE_SHADOWS wait and one computes; it
 * starts when nothing else is to do, or when BETWEEN requests have been answered since the last. What finds no place is not
 * scored twice: a trial is a sample. */
#include <errno.h>
#include <string.h>

#include "serve/server_internal.h"

enum { BETWEEN = 4, REPORT_DEADLINE_MS = 5000 };

static void drop(struct serve_job *job)
{
    if (job->first)
        protobuf_c_message_free_unpacked(job->first, NULL);
    if (job->reply)
        protobuf_c_message_free_unpacked(job->reply, NULL);
    request_drop(job->request);
    free(job);
}

void serve_shadow_clear(struct serve *s)
{
    while (s->n_shadows)
        drop(s->shadows[--s->n_shadows]);
}

bool serve_shadow_wants(const struct serve *s, const struct serve_job *job)
{
    return s->shadow && job->reply && job->version != s->shadow && s->n_shadows < SERVE_SHADOWS && !s->draining &&
           s->kind->compare && s->kind->compare(job->request->message, job->reply, NULL, NULL) == 0;
}

void serve_shadow_take(struct serve *s, struct serve_job *job)
{
    job->shadow_of = job->version;
    job->first = TAKE_PTR(job->reply);
    s->shadows[s->n_shadows++] = job;
}

void serve_shadow_turn(struct serve *s)
{
    bool ready = s->shadow && holder_peek(&s->holder, s->shadow) == HOLDER_SERVE;
    struct held_model *held = ready ? serve_find_model(s, s->shadow) : NULL;
    struct serve_job *job;
    struct error error;

    if (s->draining || !s->shadow)
        serve_shadow_clear(s);
    if (!s->n_shadows || s->shadow_out || !held || (batcher_in_flight(s->batcher) && s->shadow_since < BETWEEN))
        return;
    job = s->shadows[0];
    s->n_shadows--;
    memmove(s->shadows, s->shadows + 1, s->n_shadows * sizeof(s->shadows[0]));
    if (s->kind->check(job->request->message, held->model, &error) < 0 ||
        holder_take(&s->holder, held->version) != HOLDER_SERVE) {
        drop(job);                      /* the version on trial takes other pictures */
        return;
    }
    s->shadow_out = true;
    s->shadow_since = 0;
    job->version = held->version;
    job->model = held->model;
    job->deadline_ms = 0;               /* the episode's worker has its answer */
    batcher_add(s->batcher, job);
}

static void ignore_reply(int result, const struct message *reply, void *arg)
{
    (void)result, (void)reply, (void)arg;       /* a lost report is an episode less in the sample */
}

void serve_shadow_done(struct serve *s, struct serve_job *job)
{
    Gantry__ShadowScored report = GANTRY__SHADOW_SCORED__INIT;

    s->shadow_out = false;
    report.version = job->shadow_of;
    report.shadow = job->version;
    if (job->reply && s->member && s->kind->compare(job->request->message, job->first, job->reply, &report) == 0) {
        report.member = member_id(s->member);
        (void)wire_call(member_client(s->member),
                        &(struct wire_call) {.kind = GANTRY__KIND__KIND_SHADOW_SCORED, .version = job->version,
                                             .body = &report.base, .deadline_ms = REPORT_DEADLINE_MS,
                                             .on_reply = ignore_reply}, NULL);
    }
    drop(job);
}
