/* conductor_rows.c - the rows of open iterations: found by id, ended, failed and replaced. */
#include <errno.h>
#include <stdio.h>

#include "coordinator/conductor_internal.h"

static int compare_id(const void *key, const void *row)
{
    uint64_t a = *(const uint64_t *)key, b = ((const struct ledger_episode *)row)->episode;

    return a < b ? -1 : a > b;
}

struct ledger_episode *conductor_row(struct conductor *c, uint64_t episode, struct open_iteration **ret_iteration)
{
    for (size_t k = 0; k < c->n_open; k++) {
        struct open_iteration *it = &c->open[k];
        struct ledger_episode *row = it->n ? bsearch(&episode, it->rows, it->n, sizeof(*row), compare_id) : NULL;

        if (row) {
            *ret_iteration = it;
            return row;
        }
    }
    return NULL;
}

int open_iteration_reserve(struct open_iteration *it, size_t capacity)
{
    struct ledger_episode *rows = realloc(it->rows, capacity * sizeof(*rows));
    uint64_t *by;
    uint32_t *lost;

    if (!rows)
        return -ENOMEM;
    it->rows = rows;
    by = realloc(it->journaled_by, capacity * sizeof(*by));
    if (!by)
        return -ENOMEM;
    it->journaled_by = by;
    lost = realloc(it->lost_by, capacity * sizeof(*lost));
    if (!lost)
        return -ENOMEM;
    it->lost_by = lost;
    it->capacity = capacity;
    return 0;
}

int open_iteration_add(struct open_iteration *it, const struct ledger_episode *row)
{
    int r = it->n == it->capacity ? open_iteration_reserve(it, MAX(2 * it->capacity, (size_t)16)) : 0;

    if (r < 0)
        return r;
    it->rows[it->n] = *row;
    it->lost_by[it->n] = 0;
    it->journaled_by[it->n++] = 0;
    return 0;
}

void open_iteration_release(struct open_iteration *it)
{
    free(it->rows);
    free(it->journaled_by);
    free(it->lost_by);
    free(it->ids);
    free(it->kept_stages);
    *it = (struct open_iteration) { 0 };
}

size_t open_iteration_unplayed(const struct open_iteration *it)
{
    size_t n = 0;

    for (size_t i = 0; i < it->n; i++)
        n += it->rows[i].state == EPISODE_OPEN;
    return n;
}

void conductor_end_row(struct conductor *c, struct ledger_episode *row, enum episode_state end, const char *reason)
{
    row->state = end;
    snprintf(row->reason, sizeof(row->reason), "%s", reason);
    conductor_emit(c, CONDUCTOR_EPISODE_ENDED)->episode = *row;
}

/* Which episodes, by task and state, and of what; a reason stands once behind those that it had in a row. */
static void stop_for_failures(struct conductor *c, const struct open_iteration *it, size_t failed)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    const char *why = NULL;

    strbuf_addf(&text, "%s: %zu of %zu episodes failed (the env workers' logs say more; with that mended `gantry up` goes on):",
                it->work.name, failed, it->opened_with);
    for (size_t i = 0; i < it->n && text.length < 300; i++) {
        const struct ledger_episode *row = &it->rows[i];

        if (row->state != EPISODE_FAILED)
            continue;
        if (why && strcmp(why, row->reason) != 0)
            strbuf_addf(&text, " (%s);", why);
        else if (why)
            strbuf_addc(&text, ',');
        why = row->reason;
        strbuf_addf(&text, " %llu %s/%llu", (unsigned long long)row->episode, row->task, (unsigned long long)row->state_seed);
    }
    strbuf_addf(&text, " (%s)", why ?: "");
    conductor_stop(c, text.text);
}

void conductor_fail_row(struct conductor *c, struct open_iteration *it, struct ledger_episode *row, const char *reason)
{
    struct ledger_episode replacement;
    bool again;
    size_t failed = 0;

    conductor_end_row(c, row, EPISODE_FAILED, reason);
    stage_plan_replace(c->config, &c->memory, it->rows, it->n, row, &replacement);
    again = row->replaces && replacement.state_seed == row->state_seed;    /* it has failed before, and nothing is left instead */
    c->memory_moved = true;
    if (open_iteration_add(it, &replacement) < 0) {
        c->out_of_memory = true;
        return;
    }
    conductor_emit(c, CONDUCTOR_ADD_EPISODE)->episode = replacement;
    it->known_to = 0;               /* the learner must hear of the new row before it is leased */
    it->sent_ms = 0;
    for (size_t i = 0; i < it->n; i++)
        failed += it->rows[i].state == EPISODE_FAILED;
    if (again || (failed >= FAILED_MIN && failed * 10 > it->opened_with))
        stop_for_failures(c, it, failed);
}
