/* conductor_restore.c - from the ledger's rows to the conductor's state, as if the process had never ended. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/conductor_internal.h"

static int restore_rows(struct conductor *c, struct open_iteration *it, const struct conductor_restored *restored,
                        struct error *error)
{
    for (size_t i = 0; i < restored->n_episodes; i++) {
        const struct ledger_episode *row = &restored->episodes[i];

        if (row->stage != it->work.stage || row->iteration != it->work.iteration)
            continue;
        if (it->n && it->rows[it->n - 1].episode >= row->episode)
            return error_set(error, EBADMSG, "ledger: episodes of %s are not in id order", it->work.name);
        if (open_iteration_add(it, row) < 0)
            return error_set(error, ENOMEM, "ledger: out of memory");
        it->opened_with += row->replaces == 0;
        if (row->episode >= c->memory.next_episode)
            return error_set(error, EBADMSG, "ledger: episode %llu is not below the next id %llu",
                             (unsigned long long)row->episode, (unsigned long long)c->memory.next_episode);
    }
    return 0;
}

static int restore_iteration(struct conductor *c, const struct ledger_iteration *row, const struct conductor_restored *restored,
                             struct error *error)
{
    struct open_iteration *it = &c->open[c->n_open];
    struct work work;
    int r;

    if (c->n_open == OPEN_MAX)
        return error_set(error, EBADMSG, "ledger: more than %d iterations are open", OPEN_MAX);
    if (stage_plan_work(c->config, &c->memory, row->stage, row->iteration, &work) < 0)
        return error_set(error, EBADMSG, "ledger: iteration %u of stage %u is open, but the configuration has no such work",
                         row->iteration, row->stage);
    *it = (struct open_iteration) { .work = work, .row = *row };
    c->n_open++;
    r = restore_rows(c, it, restored, error);
    if (r < 0)
        return r;
    if (work.purpose && !it->n && row->first_episode)
        return error_set(error, EBADMSG, "ledger: %s has lost its rows", work.name);
    if (row->state != PROGRESS_PLANNED)
        return 0;
    r = conductor_make_plan(c, it);
    if (r < 0)
        return error_set(error, -r, "ledger: %s: its plan cannot be made again", work.name);
    if (memcmp(it->plan.digest, row->plan_digest, SHA256_SIZE))
        return error_set(error, EBADMSG,
                         "ledger: %s: its plan made again differs from the one that was sent; was the configuration changed?",
                         work.name);
    return 0;
}

static int restore_versions(struct conductor *c, const struct conductor_restored *restored, struct error *error)
{
    for (size_t i = 0; i < restored->n_versions; i++) {
        int r = versions_add(&c->versions, &restored->versions[i], NULL);

        if (r < 0)
            return error_set(error, r == -EEXIST ? EBADMSG : -r, "ledger: version %llu is there twice",
                             (unsigned long long)restored->versions[i].number);
    }
    return 0;
}

/* Seeded bug: the plan that was sent is not believed to be ours any more, and is numbered anew. */
static void forget_plans(struct conductor *c)
{
    for (size_t i = 0; i < c->n_open; i++)
        if (c->open[i].row.state == PROGRESS_PLANNED && c->open[i].n) {
            c->open[i].plan.version++;
            c->open[i].plan.digest[0] ^= 1;
        }
}

int conductor_restore(struct conductor *c, const struct conductor_restored *restored, uint64_t now_ms, struct error *error)
{
    bool unplayed = false;
    int r;

    if (restored->memory) {
        r = plan_memory_parse(restored->memory, restored->memory_size, &c->memory, error);
        if (r < 0)
            return r;
        if (c->memory.stage < (uint32_t)c->config->n_stages)
            c->memory.finished = false;         /* a stage was added after the run had ended */
    }
    for (size_t i = 0; i < restored->n_stages; i++) {
        if (restored->stages[i].stage >= (uint32_t)c->config->n_stages)
            return error_set(error, EBADMSG, "ledger: stage %u is not in the configuration", restored->stages[i].stage);
        c->stages[restored->stages[i].stage] = restored->stages[i];
    }
    r = restore_versions(c, restored, error);
    for (size_t i = 0; r == 0 && i < restored->n_iterations; i++)
        if (restored->iterations[i].state != PROGRESS_DONE)
            r = restore_iteration(c, &restored->iterations[i], restored, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < c->n_open; i++)
        unplayed |= open_iteration_unplayed(&c->open[i]) > 0;
    if (unplayed)
        c->grants_from_ms = now_ms + 2 * (uint64_t)c->config->heartbeat_ms;     /* first hear who still plays what */
    c->stage_since_ms = now_ms;
    if (c->bug == CONDUCTOR_BUG_PLAN_TWICE)
        forget_plans(c);
    return 0;
}
