/* Reading back: whole tables as arrays of plain structs. */
#include <errno.h>

#include "base/method.h"
#include "run/ledger_sql.h"

static const char *const episode_states[] = {
    [EPISODE_OPEN] = "open", [EPISODE_JOURNALED] = "journaled", [EPISODE_TRAINED] = "trained", [EPISODE_KEPT] = "kept",
    [EPISODE_EVALUATED] = "evaluated", [EPISODE_FILTERED] = "filtered", [EPISODE_STALE] = "stale", [EPISODE_FAILED] = "failed",
};

bool ledger_version_failed_gate(const struct ledger_version *v)
{
    return v->kind == KIND_PRM && (!v->gate_passed || !strncmp(v->gate_text, PRM_FORCED, strlen(PRM_FORCED)));
}
const char *episode_state_name(enum episode_state state) { return episode_states[state]; }

int episode_state_parse(const char *text, enum episode_state *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(episode_states); i++)
        if (!strcmp(text, episode_states[i])) {
            *ret = (enum episode_state)i;
            return 0;
        }
    return -EINVAL;
}

void ledger_episode_forget(struct ledger_episode *e)
{
    e->state = EPISODE_OPEN;
    e->success = e->timeout = false;
    e->steps = e->member = 0;
    e->reward = e->progress_end = 0;
    memset(e->digest, 0, sizeof e->digest);
}

const char *progress_state_name(enum progress_state state)
{
    static const char *const names[] = {"pending", "open", "planned", "done"};

    return names[state];
}

/* Run the query to its end; fill(row, element) per row into a growing array. */
static int collect(struct ledger *ledger, sqlite3_stmt *s, size_t size, int (*fill)(sqlite3_stmt *, void *), void **ret,
                   size_t *ret_n)
{
    size_t n = 0, capacity = 0;
    char *rows = NULL;
    int r;

    while ((r = sql_next(ledger, s)) == 1) {
        if (n == capacity) {
            char *more;

            capacity = capacity ? capacity * 2 : 16;
            more = realloc(rows, capacity * size);
            if (!more) {
                r = -ENOMEM;
                break;
            }
            rows = more;
        }
        memset(rows + n * size, 0, size);
        r = fill(s, rows + n * size);
        if (r < 0)
            break;
        n++;
    }
    sql_done(s);
    if (r < 0) {
        free(rows);
        return r;
    }
    *ret = rows;
    *ret_n = n;
    return 0;
}

static int collect_all(struct ledger *ledger, const char *query, size_t size, int (*fill)(sqlite3_stmt *, void *), void **ret,
                       size_t *ret_n)
{
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, query, "");

    return r < 0 ? r : collect(ledger, s, size, fill, ret, ret_n);
}

static uint64_t u64(sqlite3_stmt *s, int column) { return (uint64_t)sqlite3_column_int64(s, column); }
static uint32_t u32(sqlite3_stmt *s, int column) { return (uint32_t)sqlite3_column_int64(s, column); }

static int fill_stage(sqlite3_stmt *s, void *row)
{
    struct ledger_stage *stage = row;

    stage->stage = u32(s, 0);
    sql_text(s, 1, stage->name, sizeof stage->name);
    sql_text(s, 2, stage->kind, sizeof stage->kind);
    stage->state = (enum progress_state)u32(s, 3);
    stage->start_ms = u64(s, 4);
    stage->end_ms = u64(s, 5);
    stage->wall_s = sqlite3_column_double(s, 6);
    stage->policy_in = u64(s, 7);
    stage->policy_out = u64(s, 8);
    return 0;
}

int ledger_stages(struct ledger *ledger, struct ledger_stage **ret, size_t *ret_n)
{
    return collect_all(ledger, "SELECT * FROM stages ORDER BY stage", sizeof **ret, fill_stage, (void **)ret, ret_n);
}

static int fill_iteration(sqlite3_stmt *s, void *row)
{
    struct ledger_iteration *i = row;

    i->stage = u32(s, 0);
    i->iteration = u32(s, 1);
    sql_text(s, 2, i->name, sizeof i->name);
    i->purpose = u32(s, 3);
    i->policy_version = u64(s, 4);
    i->prm_version = u64(s, 5);
    i->state = (enum progress_state)u32(s, 6);
    i->first_episode = u64(s, 7);
    i->last_episode = u64(s, 8);
    i->start_ms = u64(s, 9);
    i->end_ms = u64(s, 10);
    sql_digest(s, 11, i->plan_digest);
    return 0;
}

int ledger_iterations(struct ledger *ledger, struct ledger_iteration **ret, size_t *ret_n)
{
    return collect_all(ledger, "SELECT * FROM iterations ORDER BY stage, iteration", sizeof **ret, fill_iteration, (void **)ret,
                       ret_n);
}

static int fill_episode(sqlite3_stmt *s, void *row)
{
    struct ledger_episode *e = row;
    char state[16];

    e->episode = u64(s, 0);
    e->stage = u32(s, 1);
    e->iteration = u32(s, 2);
    e->purpose = u32(s, 3);
    e->split = u32(s, 4);
    sql_text(s, 5, e->task, sizeof e->task);
    e->state_seed = u64(s, 6);
    e->policy_version = u64(s, 7);
    e->prm_version = u64(s, 8);
    e->temperature = (float)sqlite3_column_double(s, 9);
    e->search_n = u32(s, 10);
    e->max_steps = u32(s, 11);
    e->sample_key = u64(s, 12);
    sql_text(s, 13, e->tag, sizeof e->tag);
    e->replaces = u64(s, 14);
    sql_text(s, 15, state, sizeof state);
    e->failures = u32(s, 16);
    e->suspect = u32(s, 17);
    e->success = u32(s, 18);
    e->timeout = u32(s, 19);
    e->steps = u32(s, 20);
    e->member = u32(s, 21);
    e->reward = (float)sqlite3_column_double(s, 22);
    e->progress_end = (float)sqlite3_column_double(s, 23);
    sql_digest(s, 24, e->digest);
    sql_text(s, 25, e->reason, sizeof e->reason);
    return episode_state_parse(state, &e->state) < 0 ? -EBADMSG : 0;
}

int ledger_episodes(struct ledger *ledger, uint32_t stage, uint32_t iteration, struct ledger_episode **ret, size_t *ret_n)
{
    sqlite3_stmt *s;
    int r;

    if (stage == LEDGER_ALL)
        r = sql_query(ledger, &s, "SELECT * FROM episodes ORDER BY episode", "");
    else if (iteration == LEDGER_ALL)
        r = sql_query(ledger, &s, "SELECT * FROM episodes WHERE stage=? ORDER BY episode", "i", (uint64_t)stage);
    else
        r = sql_query(ledger, &s, "SELECT * FROM episodes WHERE stage=? AND iteration=? ORDER BY episode", "ii", (uint64_t)stage,
                      (uint64_t)iteration);
    return r < 0 ? r : collect(ledger, s, sizeof **ret, fill_episode, (void **)ret, ret_n);
}

static int fill_version(sqlite3_stmt *s, void *row)
{
    struct ledger_version *v = row;
    const char *metrics;

    v->kind = (enum version_kind)u32(s, 0);
    v->number = u64(s, 1);
    v->parent = u64(s, 2);
    v->stage = u32(s, 3);
    v->iteration = u32(s, 4);
    sql_digest(s, 5, v->digest);
    sql_text(s, 6, v->dir, sizeof v->dir);
    v->gate_passed = u32(s, 7);
    sql_text(s, 8, v->gate_text, sizeof v->gate_text);
    metrics = (const char *)sqlite3_column_text(s, 9);
    v->metrics = metrics ? strdup(metrics) : NULL;
    v->committed_ms = u64(s, 10);
    return metrics && !v->metrics ? -ENOMEM : 0;
}

int ledger_versions(struct ledger *ledger, struct ledger_version **ret, size_t *ret_n)
{
    return collect_all(ledger, "SELECT * FROM versions ORDER BY kind, number", sizeof **ret, fill_version, (void **)ret, ret_n);
}

void ledger_versions_free(struct ledger_version *versions, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(versions[i].metrics);
    free(versions);
}

int ledger_get_blob(struct ledger *ledger, const char *name, void **ret, size_t *ret_n)
{
    sqlite3_stmt *s;
    char *copy = NULL;
    size_t n = 0;
    int r = sql_query(ledger, &s, "SELECT bytes FROM blobs WHERE name=?", "t", name);

    if (r < 0)
        return r;
    r = sql_next(ledger, s);
    if (r == 1) {
        n = (size_t)sqlite3_column_bytes(s, 0);
        copy = malloc(n + 1);
        if (copy && n)
            memcpy(copy, sqlite3_column_blob(s, 0), n);
        if (copy)
            copy[n] = '\0';
    }
    sql_done(s);
    if (r < 1)
        return r < 0 ? r : -ENOENT;
    if (!copy)
        return -ENOMEM;
    *ret = copy;
    *ret_n = n;
    return 0;
}

static int fill_scalar(sqlite3_stmt *s, void *row)
{
    struct ledger_scalar *scalar = row;

    scalar->stage = u32(s, 0);
    scalar->iteration = u32(s, 1);
    sql_text(s, 2, scalar->name, sizeof scalar->name);
    scalar->value = sqlite3_column_double(s, 3);
    scalar->wall_ms = u64(s, 4);
    return 0;
}

int ledger_scalars(struct ledger *ledger, const char *name, struct ledger_scalar **ret, size_t *ret_n)
{
    sqlite3_stmt *s;
    int r;

    if (name)
        r = sql_query(ledger, &s, "SELECT * FROM scalars WHERE name=? ORDER BY stage, iteration", "t", name);
    else
        r = sql_query(ledger, &s, "SELECT * FROM scalars ORDER BY stage, iteration, name", "");
    return r < 0 ? r : collect(ledger, s, sizeof **ret, fill_scalar, (void **)ret, ret_n);
}

static int fill_event(sqlite3_stmt *s, void *row)
{
    struct ledger_event *event = row;

    event->sequence = u64(s, 0);
    event->wall_ms = u64(s, 1);
    event->epoch = u64(s, 2);
    sql_text(s, 3, event->kind, sizeof event->kind);
    event->episode = u64(s, 4);
    sql_text(s, 5, event->text, sizeof event->text);
    return 0;
}

int ledger_events(struct ledger *ledger, uint64_t after, size_t limit, struct ledger_event **ret, size_t *ret_n)
{
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, "SELECT * FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?", "ii", after,
                      (uint64_t)MIN(limit, (size_t)INT64_MAX));

    return r < 0 ? r : collect(ledger, s, sizeof **ret, fill_event, (void **)ret, ret_n);
}

int ledger_each_event(struct ledger *ledger, uint64_t after, int (*fn)(const struct ledger_event *event, void *arg), void *arg)
{
    enum { AT_ONCE = 4096 };
    size_t n;

    do {
        _cleanup_free_ struct ledger_event *events = NULL;
        int r = ledger_events(ledger, after, AT_ONCE, &events, &n);

        for (size_t i = 0; r >= 0 && i < n; i++)
            r = fn(&events[i], arg);
        if (r < 0)
            return r;
        after = n ? events[n - 1].sequence : after;
    } while (n == AT_ONCE);
    return 0;
}
