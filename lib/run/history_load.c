/* From a run directory to the checker's arrays; and the ledger's events as JSON lines. */
#include <errno.h>
#include <inttypes.h>

#include "base/array.h"
#include "base/json_write.h"
#include "run/history.h"
#include "run/ledger_copy.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "run/trajectory.h"

/* What the arrays of a loaded history point into. */
struct owned { struct manifest *manifests; size_t n; };
_Static_assert(sizeof(struct history_record) == sizeof(struct manifest_episode), "consumed lists are used as they are");

static bool parse_hex(const char *hex, uint8_t ret[SHA256_SIZE])
{
    for (int i = 0; i < SHA256_SIZE; i++) {
        unsigned byte;

        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return false;
        ret[i] = (uint8_t)byte;
    }
    return true;
}

/* 1: *ret is an event the checker knows; 0: of no interest to it; -EBADMSG. */
static int translate(const struct ledger_event *event, struct history_event *ret)
{
    char word[24] = "";

    *ret = (struct history_event) {.episode = event->episode};
    if (!strcmp(event->kind, "added")) {
        ret->kind = HISTORY_ADDED;
        return sscanf(event->text, "stage=%u iteration=%u", &ret->stage, &ret->iteration) == 2 ? 1 : -EBADMSG;
    }
    if (!strcmp(event->kind, "journaled")) {
        ret->kind = HISTORY_JOURNALED;
        return strlen(event->text) >= 2 * SHA256_SIZE && parse_hex(event->text, ret->digest) ? 1 : -EBADMSG;
    }
    if (!strcmp(event->kind, "reopened")) {
        ret->kind = HISTORY_REOPENED;
        return 1;
    }
    if (!strcmp(event->kind, "ended")) {
        ret->kind = HISTORY_ENDED;
        return sscanf(event->text, "%23s", word) == 1 && episode_state_parse(word, &ret->end) == 0 ? 1 : -EBADMSG;
    }
    if (!strcmp(event->kind, "iteration")) {
        ret->kind = HISTORY_CLOSED;
        if (sscanf(event->text, "stage=%u iteration=%u state=%23s", &ret->stage, &ret->iteration, word) != 3)
            return -EBADMSG;
        return !strcmp(word, progress_state_name(PROGRESS_DONE));
    }
    return 0;
}

struct loading { struct history *history; size_t capacity; struct error *error; bool said; };

static int load_event(const struct ledger_event *event, void *arg)
{
    struct loading *l = arg;
    struct history *h = l->history;
    int r;

    l->said = true;
    if (array_room(&h->events, h->n_events, &l->capacity, sizeof *h->events) < 0)
        return error_set(l->error, ENOMEM, "out of memory for the ledger's events");
    h->complete |= !strcmp(event->kind, "finished");
    r = translate(event, &h->events[h->n_events]);
    if (r < 0)
        return error_set(l->error, EBADMSG, "the ledger's event %" PRIu64 " (%s) cannot be understood: %s", event->sequence,
                         event->kind, event->text);
    h->n_events += (size_t)r;
    l->said = false;
    return 0;
}

static int load_events(struct ledger *ledger, struct history *h, struct error *error)
{
    struct loading l = {.history = h, .error = error};
    int r = ledger_each_event(ledger, 0, load_event, &l);

    return r < 0 && !l.said ? error_set(error, -r, "the ledger's events cannot be read: %s", ledger_error(ledger)) : r;
}

static bool have_segment(const struct journal_entry *entries, size_t n, uint32_t stage, uint32_t iteration)
{
    for (size_t i = 0; i < n; i++)
        if (entries[i].stage == stage && entries[i].iteration == iteration)
            return true;
    return false;
}

/* Whole segments of closed iterations may be gone by retention; data sets that were kept may not. */
static int load_dropped(struct ledger *ledger, const struct journal_entry *entries, size_t n, struct history *h,
                        struct error *error)
{
    _cleanup_free_ struct ledger_iteration *iterations = NULL;
    size_t n_iterations;
    int r = ledger_iterations(ledger, &iterations, &n_iterations);

    for (size_t i = 0; r == 0 && i < n_iterations; i++) {
        _cleanup_free_ struct ledger_episode *rows = NULL;
        uint64_t *more;
        size_t n_rows;

        if (iterations[i].state != PROGRESS_DONE || have_segment(entries, n, iterations[i].stage, iterations[i].iteration))
            continue;
        r = ledger_episodes(ledger, iterations[i].stage, iterations[i].iteration, &rows, &n_rows);
        if (r < 0)
            break;
        more = realloc(h->dropped, (h->n_dropped + n_rows + 1) * sizeof *more);
        if (!more) {
            r = -ENOMEM;
            break;
        }
        h->dropped = more;
        for (size_t j = 0; j < n_rows; j++)
            if (rows[j].state != EPISODE_KEPT)
                h->dropped[h->n_dropped++] = rows[j].episode;
    }
    return r < 0 ? error_set(error, -r, "the ledger's rows cannot be read: %s", ledger_error(ledger)) : 0;
}

static int compare_rows(const void *key, const void *row)
{
    uint64_t a = *(const uint64_t *)key, b = ((const struct ledger_episode *)row)->episode;

    return a < b ? -1 : a > b;
}

/* What a trajectory says of itself, beside its row. A damaged one is the journal's to report. */
static int load_played(struct journal *journal, const struct journal_entry *entry, const struct ledger_episode *row,
                       struct history *h, struct error *error)
{
    struct history_played *played = &h->played[h->n_played];
    _cleanup_(trajectory_freep) Gantry__Trajectory *t = NULL;
    int r = trajectory_load(journal, entry->episode, &t, NULL, NULL, error);

    if (r < 0)
        return r;
    *played = (struct history_played) {
        .episode = entry->episode, .policy_version = t->policy_version, .prm_version = t->prm_version,
        .fence_epoch = t->fence >> 32, .row_policy_version = row->policy_version, .row_prm_version = row->prm_version,
    };
    for (size_t k = 0; k < t->n_step_version; k++)
        played->mixed |= t->step_version[k] != t->policy_version;
    h->n_played++;
    return 0;
}

static int load_all_played(struct journal *journal, struct ledger *ledger, const struct journal_entry *entries, size_t n,
                           struct history *h, struct error *error)
{
    _cleanup_free_ struct ledger_episode *rows = NULL;
    size_t n_rows;
    int r = ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &rows, &n_rows);

    if (r < 0)
        return error_set(error, -r, "the ledger's rows cannot be read: %s", ledger_error(ledger));
    h->epoch = ledger_run(ledger)->epoch;
    h->played = calloc(n + 1, sizeof *h->played);
    if (!h->played)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; r == 0 && i < n; i++) {
        const struct ledger_episode *row = n_rows ? bsearch(&entries[i].episode, rows, n_rows, sizeof *rows, compare_rows) : NULL;

        if (row)                        /* one that was never promised is found anyway */
            r = load_played(journal, &entries[i], row, h, error);
    }
    return r;
}

static int load_journal(const char *run_dir, struct ledger *ledger, struct history *h, struct error *error)
{
    _cleanup_(journal_closep) struct journal *journal = NULL;
    _cleanup_free_ struct journal_entry *entries = NULL;
    char path[RUN_PATH];
    size_t n;
    int r = rundir_path(run_dir, "journal", path, error);

    if (r == 0)
        r = journal_open(path, ledger_run(ledger)->id, JOURNAL_READ, &journal, NULL, error);
    if (r == 0 && (r = journal_list(journal, JOURNAL_ALL, JOURNAL_ALL, &entries, &n)) < 0)
        r = error_set(error, -r, "%s: out of memory", path);
    if (r < 0)
        return r;
    h->records = calloc(n + 1, sizeof *h->records);
    if (!h->records)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < n; i++) {
        h->records[i].episode = entries[i].episode;
        memcpy(h->records[i].digest, entries[i].digest, SHA256_SIZE);
    }
    h->n_records = n;
    r = load_all_played(journal, ledger, entries, n, h, error);
    return r < 0 ? r : load_dropped(ledger, entries, n, h, error);
}

static bool ledger_has(const struct ledger_version *versions, size_t n, const struct manifest *m)
{
    for (size_t i = 0; i < n; i++)
        if ((int)versions[i].kind == m->kind && versions[i].number == m->number)
            return !memcmp(versions[i].digest, m->digest, SHA256_SIZE);
    return false;
}

static int load_versions(const char *run_dir, int kind, const struct ledger_version *known, size_t n_known, struct history *h,
                         struct error *error)
{
    struct owned *owned = h->owned;
    _cleanup_free_ uint64_t *numbers = NULL;
    char path[VERSION_PATH];
    struct history_version *versions;
    struct manifest *manifests;
    size_t n = 0;
    int r = version_list(run_dir, kind, &numbers, &n);

    if (r < 0)
        return error_set(error, -r, "%s: its versions cannot be listed: %s", run_dir, strerror(-r));
    manifests = realloc(owned->manifests, (owned->n + n + 1) * sizeof *manifests);
    if (!manifests)
        return error_set(error, ENOMEM, "%s: out of memory", run_dir);
    owned->manifests = manifests;
    versions = realloc(h->versions, (h->n_versions + n + 1) * sizeof *versions);
    if (!versions)
        return error_set(error, ENOMEM, "%s: out of memory", run_dir);
    h->versions = versions;
    for (size_t i = 0; i < n; i++) {
        struct manifest *m = &owned->manifests[owned->n];

        if (kind == KIND_PRM && numbers[i] == 0)
            continue;           /* the backbone that versions name: nobody trained it */
        r = version_path(run_dir, kind, numbers[i], path);
        if (r == 0)
            r = manifest_read(path, m, error);
        if (r < 0)
            return r;
        owned->n++;
        h->versions[h->n_versions++] = (struct history_version) {
            .kind = m->kind, .number = m->number, .parent = m->parent, .n_consumed = m->n_consumed,
            .consumed = (const struct history_record *)m->consumed, .in_ledger = ledger_has(known, n_known, m),
        };
    }
    return 0;
}

static int load_all(const char *run_dir, struct history *h, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    struct ledger_version *versions = NULL;
    char path[RUN_PATH];
    size_t n = 0;
    int r = rundir_path(run_dir, "ledger.sqlite", path, error);

    if (r == 0)
        r = ledger_open_to_read(path, &ledger, error);
    if (r == 0)
        r = load_events(ledger, h, error);
    if (r == 0)
        r = load_journal(run_dir, ledger, h, error);
    if (r == 0 && (r = ledger_versions(ledger, &versions, &n)) < 0)
        r = error_set(error, -r, "%s: versions cannot be read: %s", path, ledger_error(ledger));
    for (int kind = 0; r == 0 && kind < 2; kind++)
        r = load_versions(run_dir, kind, versions, n, h, error);
    ledger_versions_free(versions, n);
    return r;
}

int history_load(const char *run_dir, struct history *ret, struct error *error)
{
    struct history h = {.owned = calloc(1, sizeof(struct owned))};
    int r;

    if (!h.owned)
        return error_set(error, ENOMEM, "%s: out of memory", run_dir);
    r = load_all(run_dir, &h, error);
    if (r < 0) {
        history_release(&h);
        return r;
    }
    *ret = h;
    return 0;
}

void history_release(struct history *history)
{
    struct owned *owned = history->owned;

    for (size_t i = 0; owned && i < owned->n; i++)
        manifest_release(&owned->manifests[i]);
    if (owned)
        free(owned->manifests);
    free(owned);
    free(history->events);
    free(history->records);
    free(history->played);
    free(history->versions);
    free(history->dropped);
    *history = (struct history) {0};
}

static int export_event(const struct ledger_event *event, void *arg)
{
    struct strbuf *out = arg;
    struct json_writer w = {.out = out};

    json_open(&w, NULL, '{');
    json_unsigned(&w, "sequence", event->sequence);
    json_unsigned(&w, "wall_ms", event->wall_ms);
    json_unsigned(&w, "epoch", event->epoch);
    json_text(&w, "kind", event->kind);
    json_unsigned(&w, "episode", event->episode);
    json_text(&w, "text", event->text);
    json_close(&w, '}');
    strbuf_addc(out, '\n');
    return out->failed ? -ENOMEM : 0;
}

int history_export(struct ledger *ledger, uint64_t after, struct strbuf *out)
{
    return ledger_each_event(ledger, after, export_event, out);
}
