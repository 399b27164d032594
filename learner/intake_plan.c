/* intake_plan.c - what the coordinator is told of the journal, and what is trained from it. */
#include <string.h>

#include "learner/intake_internal.h"

static const struct intake_version *newest(const struct intake *intake, int kind)
{
    const struct intake_version *found = NULL;

    for (size_t i = 0; i < intake->n_versions; i++)
        if (intake->versions[i].kind == kind && (!found || intake->versions[i].number > found->number))
            found = &intake->versions[i];
    return found;
}

static bool in_open_iteration(const struct intake *intake, const struct intake_record *it)
{
    for (size_t i = 0; i < intake->n_open; i++)
        if (intake->open[i].stage == it->stage && intake->open[i].iteration == it->iteration)
            return true;
    return false;
}

void intake_send_inventory(struct intake *intake, const struct open_set *about)
{
    size_t n = 0, total = HASH_COUNT(intake->records);
    struct journaled_episode *episodes = intake_take(intake, MAX(total, (size_t)1) * sizeof(*episodes));
    const struct intake_version *policy = newest(intake, 0), *prm = newest(intake, 1);
    struct intake_effect *effect;
    struct record *record, *next;

    if (!about && intake->n_open)
        about = &intake->open[intake->n_open - 1];
    HASH_ITER(hh, intake->records, record, next)
        if (episodes && in_open_iteration(intake, &record->it))
            episodes[n++] = record->it.episode;
    effect = intake_emit(intake, INTAKE_SEND_INVENTORY);
    effect->inventory.stage = about ? about->stage : UINT32_MAX;
    effect->inventory.iteration = about ? about->iteration : UINT32_MAX;
    effect->inventory.rows = about ? (uint32_t)about->n : 0;
    effect->inventory.episodes = episodes;
    effect->inventory.n = n;
    if (policy) {
        effect->inventory.policy_version = policy->number;
        memcpy(effect->inventory.policy_digest, policy->digest, SHA256_SIZE);
    }
    if (prm) {
        effect->inventory.prm_version = prm->number;
        memcpy(effect->inventory.prm_digest, prm->digest, SHA256_SIZE);
    }
    if (intake->training)
        memcpy(effect->inventory.plan_digest, intake->plan.digest, SHA256_SIZE);
}

static const struct intake_version *committed_by(const struct intake *intake, const uint8_t digest[SHA256_SIZE])
{
    for (size_t i = 0; i < intake->n_versions; i++)
        if (!memcmp(intake->versions[i].plan_digest, digest, SHA256_SIZE))
            return &intake->versions[i];
    return NULL;
}

static void send_committed(struct intake *intake, const struct intake_version *version, uint64_t now_ms)
{
    intake->committed = *version;
    intake->committed_untold = true;
    intake->said_ms = now_ms;
    intake_emit(intake, INTAKE_SEND_COMMITTED)->committed = *version;
}

static bool has_all(const struct intake *intake, const struct intake_plan *plan)
{
    for (size_t i = 0; i < plan->n_episodes; i++)
        if (!intake_find_record(intake, plan->episodes[i]))
            return false;
    return true;
}

static void close_planned(struct intake *intake, const struct intake_plan *plan)
{
    for (size_t i = 0; i < intake->n_open; i++)
        if (intake->open[i].stage == plan->stage && intake->open[i].iteration == plan->iteration)
            intake_close(intake, &intake->open[i]);
}

static void start_training(struct intake *intake, const struct intake_plan *plan)
{
    uint64_t *episodes = calloc(MAX(plan->n_episodes, (size_t)1), sizeof(*episodes));

    if (!episodes) {
        intake->out_of_memory = true;
        return;
    }
    if (plan->n_episodes)
        memcpy(episodes, plan->episodes, plan->n_episodes * sizeof(*episodes));
    free((void *)intake->plan.episodes);
    intake->plan = *plan;
    intake->plan.episodes = episodes;
    intake->training = true;
    close_planned(intake, plan);
    intake_emit(intake, INTAKE_TRAIN)->plan = intake->plan;
}

void intake_on_plan(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    const struct intake_version *done = committed_by(intake, event->plan.digest);
    struct intake_plan plan = event->plan;

    if ((event->epoch < intake->epoch && intake->bug != INTAKE_BUG_OLD_PLAN) || intake->training)
        return;
    if (done && plan.n_episodes && intake->bug == INTAKE_BUG_TRAIN_AGAIN) {
        plan.version = newest(intake, plan.kind)->number + 1;
        done = NULL;
    }
    if (done) {
        close_planned(intake, &plan);
        send_committed(intake, done, now_ms);
    } else if (!has_all(intake, &plan)) {
        intake_send_inventory(intake, NULL);       /* the coordinator will see what is missing and lease it again */
    } else {
        start_training(intake, &plan);
    }
}

void intake_on_trained(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    if (!intake->training)
        return;
    intake->training = false;
    if (event->trained.result < 0)
        return;                             /* the plan comes again and is tried again */
    if (intake_add_version(intake, &event->trained.version) < 0)
        intake->out_of_memory = true;
    send_committed(intake, &event->trained.version, now_ms);
}

void intake_on_welcome(struct intake *intake, const struct intake_event *event, uint64_t now_ms)
{
    if (event->epoch < intake->epoch)
        return;
    intake->epoch = event->epoch;
    if (intake->bug == INTAKE_BUG_NO_INVENTORY)
        return;
    intake_send_inventory(intake, NULL);
    intake_send_journaled(intake, now_ms);
    if (intake->committed_untold)
        intake_emit(intake, INTAKE_SEND_COMMITTED)->committed = intake->committed;
}

void intake_on_tick(struct intake *intake, uint64_t now_ms)
{
    if (now_ms - intake->said_ms < RESEND_MS)
        return;
    intake_send_journaled(intake, now_ms);
    if (intake->committed_untold) {
        intake->said_ms = now_ms;
        intake_emit(intake, INTAKE_SEND_COMMITTED)->committed = intake->committed;
    }
}
