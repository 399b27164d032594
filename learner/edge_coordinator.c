/* The coordinator's pushes as events, and what intake wants it to know as calls. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "learner/edge_internal.h"
#include "learner/record.h"
#include "run/manifest.h"

enum { CALL_MS = 10000 };

/* ---- what it says -------------------------------------------------------------------------------- */

static void on_open(struct edge *edge, const struct message *message)
{
    const Gantry__OpenIteration *open = (const Gantry__OpenIteration *)message->body;

    edge_step(edge, &(struct intake_event) {
        .kind = INTAKE_OPEN, .epoch = message->envelope.epoch,
        .open = {.stage = (uint32_t)open->stage, .iteration = (uint32_t)open->iteration, .episodes = open->episodes,
                 .n_episodes = open->n_episodes, .failed = open->failed, .n_failed = open->n_failed,
                 .policy_version = open->policy_version, .prm_version = open->prm_version, .keep = open->keep,
                 .purpose = (uint32_t)open->purpose, .trained_on = open->purpose == GANTRY__PURPOSE__PURPOSE_TRAIN},
    });
}

/* Intake knows a plan by its digest; the train thread needs all of it. */
static int keep_plan(struct edge *edge, const struct message *message, const Gantry__Plan *plan)
{
    uint8_t *bytes = malloc(message->body_size);

    if (!bytes)
        return -ENOMEM;
    memcpy(bytes, message->body_bytes, message->body_size);
    free(edge->plan.bytes);
    edge->plan.bytes = bytes;
    edge->plan.n = message->body_size;
    memcpy(edge->plan.digest, plan->digest.data, SHA256_SIZE);
    return 0;
}

static void on_plan(struct edge *edge, const struct message *message)
{
    const Gantry__Plan *plan = (const Gantry__Plan *)message->body;
    struct intake_event event = {.kind = INTAKE_PLAN, .epoch = message->envelope.epoch};
    long done, total;

    if (plan->digest.len != SHA256_SIZE || plan->kind > GANTRY__VERSION_KIND__VERSION_PRM) {
        log_error("a plan without a digest", "stage=%" PRIu64 " iteration=%" PRIu64, plan->stage, plan->iteration);
        return;
    }
    if (edge->draining || train_thread_busy(edge->train_thread, &done, &total) || clock_mono_ms() < edge->retry_ms)
        return;                 /* it is said again */
    if (edge->rank > 0 && plan->version <= edge->newest[plan->kind])
        return;                 /* trained along, and rank 0 has committed it */
    if (keep_plan(edge, message, plan) < 0)
        return;
    if (edge->rank > 0) {
        if (train_thread_run(edge->train_thread, edge->plan.bytes, edge->plan.n) < 0)
            log_error("a plan cannot be started", "version=%" PRIu64, plan->version);
        return;
    }
    event.plan = (struct intake_plan) {
        .stage = (uint32_t)plan->stage, .iteration = (uint32_t)plan->iteration, .kind = (int)plan->kind, .parent = plan->parent,
        .version = plan->version, .episodes = plan->episodes, .n_episodes = plan->n_episodes, .group_epoch = plan->group_epoch,
    };
    memcpy(event.plan.digest, plan->digest.data, SHA256_SIZE);
    edge_step(edge, &event);
}

void edge_push(const struct message *message, void *arg)
{
    struct edge *edge = arg;

    if (!edge->opened)
        return;
    if (message->envelope.kind == GANTRY__KIND__KIND_OPEN_ITERATION && edge->intake)
        on_open(edge, message);
    else if (message->envelope.kind == GANTRY__KIND__KIND_PLAN)
        on_plan(edge, message);
}

/* ---- what it is told ------------------------------------------------------------------------------- */

/* Journaled and Committed are acknowledged; intake says them again until they are. */
struct told { struct edge *edge; struct intake_event event; };

static void on_told(int result, const struct message *reply, void *arg)
{
    struct told *told = arg;

    if (result == 0 && told->edge->intake)
        edge_step(told->edge, &told->event);
    else if (result < 0 && result != -ECANCELED && reply)
        log_warn("the coordinator refuses what it was told", "kind=%s reason=%s",
                 told->event.kind == INTAKE_COMMITTED_ACK ? "committed" : "journaled", LOG_Q(reply->envelope.error));
    free(told);
}

static void tell(struct edge *edge, Gantry__Kind kind, const ProtobufCMessage *body, const struct intake_event *ack)
{
    struct told *told = malloc(sizeof *told);

    if (!told)
        return;
    *told = (struct told) {edge, *ack};
    if (wire_call(member_client(edge->member), &(struct wire_call) {
            .kind = kind, .body = body, .deadline_ms = CALL_MS, .on_reply = on_told, .arg = told }, NULL) < 0)
        free(told);
}

struct episode_list { Gantry__JournaledEpisode *items, **pointers; };

static void episode_list_release(struct episode_list *list)
{
    free(list->items);
    free(list->pointers);
}

/* A record that is damaged is found here or by its plan; this life cannot go on without it. */
static int find_outcome(struct edge *edge, struct journaled_episode *episode)
{
    struct error error = {0};
    int r = episode->steps ? 0 : edge_read_outcome(edge, episode, &error);

    if (r < 0) {
        log_error("a journaled episode cannot be read", "episode=%" PRIu64 " reason=%s", episode->episode,
                  LOG_Q(error_text(&error, r)));
        lifecycle_stop(edge->lifecycle, 1);
    }
    return r;
}

static int episode_list(struct edge *edge, const struct journaled_episode *episodes, size_t n, struct episode_list *ret)
{
    ret->items = calloc(MAX(n, (size_t)1), sizeof *ret->items);
    ret->pointers = calloc(MAX(n, (size_t)1), sizeof *ret->pointers);
    if (!ret->items || !ret->pointers)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        Gantry__JournaledEpisode *item = &ret->items[i];
        struct journaled_episode episode = episodes[i];
        int r = find_outcome(edge, &episode);

        if (r < 0)
            return r;
        gantry__journaled_episode__init(item);
        item->episode = episode.episode;
        item->digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)episodes[i].digest};
        item->success = episode.success;
        item->timeout = episode.timeout;
        item->steps = episode.steps;
        item->member = episode.member;
        item->reward = episode.reward;
        item->progress_end = episode.progress_end;
        ret->pointers[i] = item;
    }
    return 0;
}

void edge_send_journaled(struct edge *edge, const struct intake_effect *effect)
{
    _cleanup_(episode_list_release) struct episode_list list = {0};
    Gantry__Journaled body = GANTRY__JOURNALED__INIT;

    if (episode_list(edge, effect->journaled.episodes, effect->journaled.n, &list) < 0)
        return;
    body.stage = effect->journaled.stage;
    body.iteration = effect->journaled.iteration;
    body.episodes = list.pointers;
    body.n_episodes = effect->journaled.n;
    tell(edge, GANTRY__KIND__KIND_JOURNALED, &body.base,
         &(struct intake_event) {.kind = INTAKE_JOURNALED_ACK, .journaled_ack = {effect->journaled.sequence}});
}

static void on_inventory_reply(_unused_ int result, _unused_ const struct message *reply, _unused_ void *arg)
{
}   /* lost: the coordinator opens or plans again, and hears it again */

void edge_send_inventory(struct edge *edge, const struct intake_effect *effect)
{
    _cleanup_(episode_list_release) struct episode_list list = {0};
    Gantry__Inventory body = GANTRY__INVENTORY__INIT;

    if (episode_list(edge, effect->inventory.episodes, effect->inventory.n, &list) < 0)
        return;
    body.stage = effect->inventory.stage;
    body.iteration = effect->inventory.iteration;
    body.rows = effect->inventory.rows;
    body.episodes = list.pointers;
    body.n_episodes = effect->inventory.n;
    body.policy_version = effect->inventory.policy_version;
    body.prm_version = effect->inventory.prm_version;
    body.policy_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)effect->inventory.policy_digest};
    body.prm_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)effect->inventory.prm_digest};
    body.plan_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)effect->inventory.plan_digest};
    (void)wire_call(member_client(edge->member), &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_INVENTORY, .body = &body.base, .deadline_ms = CALL_MS, .on_reply = on_inventory_reply }, NULL);
}

/* What the update did is read from the version's directory: it is true also when another process wrote it. */
void edge_send_committed(struct edge *edge, const struct intake_effect *effect)
{
    const struct intake_version *version = &effect->committed;
    _cleanup_(record_release) struct record record = {0};
    Gantry__Committed body = GANTRY__COMMITTED__INIT;
    char path[VERSION_PATH], dir[64];
    struct error error = {0};
    int r = version_path(edge->run_dir, version->kind, version->number, path);

    if (r >= 0)
        r = record_read(path, &record, &error);
    if (r < 0) {
        log_error("a committed version does not say what it was made from", "kind=%d version=%" PRIu64 " reason=%s",
                  version->kind, version->number, LOG_Q(error_text(&error, r)));
        edge_send_plan_failed(edge, &(Gantry__Plan) {.digest = {SHA256_SIZE, (uint8_t *)version->plan_digest},
                                                     .stage = version->stage, .iteration = version->iteration},
                              r == -ENOMEM ? r : -EBADMSG, error_text(&error, r));
        return;
    }
    snprintf(dir, sizeof dir, "%s/v%06" PRIu64, version->kind ? "prms" : "policies", version->number);
    body.kind = (Gantry__VersionKind)version->kind;
    body.version = version->number;
    body.parent = version->parent;
    body.dir = dir;
    body.manifest_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)version->digest};
    body.plan_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)version->plan_digest};
    body.stage = version->stage;
    body.iteration = version->iteration;
    body.trained = record.trained;
    body.n_trained = record.n_trained;
    body.filtered = record.filtered;
    body.n_filtered = record.n_filtered;
    body.stale = record.stale;
    body.n_stale = record.n_stale;
    body.metrics = record.metrics ? record.metrics : (char *)"{}";
    body.gate_passed = record.gate_passed;
    body.gate_text = record.gate_text;
    tell(edge, GANTRY__KIND__KIND_COMMITTED, &body.base,
         &(struct intake_event) {.kind = INTAKE_COMMITTED_ACK, .committed_ack = {version->kind, version->number}});
}

static void on_plan_failed_reply(int result, const struct message *reply, void *arg)
{
    (void)result, (void)reply, (void)arg;       /* lost: the plan fails again, and that is said again */
}

/* What is wrong with the data or the settings stays wrong; a full disk or memory may not. */
void edge_send_plan_failed(struct edge *edge, const Gantry__Plan *plan, int result, const char *text)
{
    Gantry__PlanFailed body = GANTRY__PLAN_FAILED__INIT;
    char named[sizeof ((struct error *)0)->text + 32];

    if (edge->rank)
        snprintf(named, sizeof named, "rank %u: %s", edge->rank, text);
    else
        snprintf(named, sizeof named, "%s", text);
    body.plan_digest = plan->digest;
    body.stage = plan->stage;
    body.iteration = plan->iteration;
    body.final = result == -EINVAL || result == -EBADMSG;       /* a file that is damaged stays so */
    body.text = named;
    (void)wire_call(member_client(edge->member), &(struct wire_call) {
        .kind = GANTRY__KIND__KIND_PLAN_FAILED, .body = &body.base, .deadline_ms = CALL_MS, .on_reply = on_plan_failed_reply,
    }, NULL);
}
