/* edge_ledger.c - the conductor's ledger changes as one SQLite transaction, and its memory back from the ledger. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/edge.h"
#include "coordinator/start_policy.h"
#include "run/ledger_place.h"
#include "run/manifest.h"
#include "version.h"

/* ---- opening ------------------------------------------------------------------------------------- */

static int import_version_0(struct edge *edge, struct error *error)
{
    _cleanup_(manifest_release) struct manifest manifest = {.run = ledger_run(edge->ledger)->id};
    struct ledger_version version = {
        .kind = KIND_POLICY, .dir = "policies/v000000", .gate_passed = true, .committed_ms = clock_wall_ms(),
    };
    int r;

    (void)version_sweep(edge->run_dir);
    r = start_policy_import(edge->run_dir, &edge->config, &manifest, error);
    if (r < 0)
        return error_prefix(error, r, "policy.init");
    memcpy(version.digest, manifest.digest, SHA256_SIZE);
    if (manifest.run != ledger_run(edge->ledger)->id)
        return error_set(error, EXDEV, "%s/policies/v000000 belongs to run %016" PRIx64 ", the ledger is of run %016" PRIx64
                         ": the directory is put together from two runs, or ledger.sqlite was removed: restore it from a copy",
                         edge->run_dir, manifest.run, ledger_run(edge->ledger)->id);
    r = ledger_begin(edge->ledger);
    if (r == 0)
        r = ledger_add_version(edge->ledger, &version);
    if (r == 0)
        r = ledger_commit(edge->ledger);
    if (r == -EEXIST)
        return error_set(error, EEXIST, "%s/policies/v000000 is not the one the ledger knows: restore it from a copy",
                         edge->run_dir);
    return r < 0 ? error_set(error, -r, "ledger: %s", ledger_error(edge->ledger)) : 0;
}

int edge_ledger_open(struct edge *edge, struct error *error)
{
    uint8_t shorter[RUN_MAX_STAGES][SHA256_SIZE];       /* the run may not know yet that its configuration has gained stages */
    struct ledger_run create = {.seed = edge->config.seed, .created_ms = clock_wall_ms(), .begins_with = shorter};
    char path[RUN_PATH], where[LEDGER_PLACE_NAME];
    enum ledger_place place;
    int r = run_config_digest(&edge->config, create.config_digest);

    for (int n = 1; r == 0 && n < edge->config.n_stages; n++)
        r = run_config_digest_of(&edge->config, n, shorter[create.n_begins_with++]);
    if (r < 0)
        return error_set(error, -r, "out of memory");
    snprintf(create.build, sizeof create.build, "%s", GANTRY_BUILD);
    while (create.id == 0)
        if (getrandom(&create.id, sizeof create.id, 0) != sizeof create.id)
            return error_set(error, errno, "no random number for the run id: %m");
    r = rundir_path(edge->run_dir, "ledger.sqlite", path, error);
    if (r == 0)
        r = ledger_open(path, &create, &edge->ledger, error);
    if (r == 0 && ledger_place_of(path, &place, where) == 0 && place == LEDGER_SHARED)
        log_info("the ledger lies on a network file system: held exclusively", "fs=%s path=%s", LOG_Q(where), LOG_Q(path));
    return r < 0 ? r : import_version_0(edge, error);
}

int edge_ledger_extend(struct edge *edge, struct error *error)
{
    uint8_t digest[SHA256_SIZE];
    int r = run_config_digest(&edge->config, digest);

    if (r == 0)
        r = ledger_extend(edge->ledger, digest);
    return r < 0 ? error_set(error, -r, "ledger: %s", ledger_error(edge->ledger)) : 0;
}

/* ---- restoring ------------------------------------------------------------------------------------ */

struct rows {
    struct ledger_stage *stages;
    struct ledger_iteration *iterations;
    struct ledger_episode *episodes;
    struct ledger_version *versions;
    void *memory;
    size_t n_stages, n_iterations, n_episodes, n_versions, n_memory;
};

static void rows_release(struct rows *rows)
{
    free(rows->stages);
    free(rows->iterations);
    free(rows->episodes);
    ledger_versions_free(rows->versions, rows->n_versions);
    free(rows->memory);
}

/* The open iterations and their rows; what is done stays on disk. */
static int read_open(struct ledger *ledger, struct rows *rows)
{
    _cleanup_free_ struct ledger_iteration *all = NULL;
    size_t n;
    int r = ledger_iterations(ledger, &all, &n);

    if (r < 0)
        return r;
    rows->iterations = calloc(n + 1, sizeof *all);
    if (!rows->iterations)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        _cleanup_free_ struct ledger_episode *episodes = NULL;
        struct ledger_episode *more;
        size_t n_episodes;

        if (all[i].state == PROGRESS_DONE)
            continue;
        r = ledger_episodes(ledger, all[i].stage, all[i].iteration, &episodes, &n_episodes);
        if (r < 0)
            return r;
        more = realloc(rows->episodes, (rows->n_episodes + n_episodes + 1) * sizeof *more);
        if (!more)
            return -ENOMEM;
        rows->episodes = more;
        if (n_episodes)
            memcpy(more + rows->n_episodes, episodes, n_episodes * sizeof *more);
        rows->n_episodes += n_episodes;
        rows->iterations[rows->n_iterations++] = all[i];
    }
    return 0;
}

static int read_rows(struct ledger *ledger, struct rows *rows)
{
    int r = ledger_stages(ledger, &rows->stages, &rows->n_stages);

    if (r == 0)
        r = read_open(ledger, rows);
    if (r == 0)
        r = ledger_versions(ledger, &rows->versions, &rows->n_versions);
    if (r == 0)
        r = ledger_get_blob(ledger, "memory", &rows->memory, &rows->n_memory);
    return r == -ENOENT ? 0 : r;        /* no memory: a new run */
}

/* What the run goes on with is there? Otherwise no server could load it, and each would say so. An evaluation does without the
 * newest, if it names others. */
static int check_versions(const struct edge *edge, struct error *error)
{
    uint32_t stage = conductor_memory(edge->conductor)->stage;

    if (stage >= (uint32_t)edge->config.n_stages || edge->config.stages[stage].kind == STAGE_EVAL)
        return 0;
    for (enum version_kind kind = KIND_POLICY; kind <= KIND_PRM; kind++) {
        uint64_t wanted[MEMBER_VERSIONS];
        size_t n = conductor_wanted(edge->conductor, kind, wanted);

        for (size_t i = 0; i < n; i++) {
            const struct ledger_version *version = versions_find(conductor_versions(edge->conductor), kind, wanted[i]);
            char path[RUN_PATH + 80];

            if (!version)
                continue;
            snprintf(path, sizeof path, "%s/%s/manifest.json", edge->run_dir, version->dir);
            if (access(path, F_OK) < 0 && errno == ENOENT)
                return error_set(error, ENOENT, "%s/%s is not there, and the run goes on with it: restore that directory, or the "
                                 "whole run from a copy that was made while it was down", edge->run_dir, version->dir);
        }
    }
    return 0;
}

int edge_ledger_restore(struct edge *edge, struct error *error)
{
    const struct ledger_run *run = ledger_run(edge->ledger);
    struct conductor_setup setup = {
        .config = &edge->config, .stage_settings = edge->stage_settings, .run = run->id, .epoch = run->epoch,
        .group_epoch = run->group_epoch,
    };
    _cleanup_(rows_release) struct rows rows = {0};
    struct conductor_restored restored;
    int r = conductor_new(&setup, &edge->conductor);

    if (r < 0)
        return error_set(error, -r, "out of memory");
    r = read_rows(edge->ledger, &rows);
    if (r < 0)
        return error_set(error, -r, "ledger: cannot be read: %s", ledger_error(edge->ledger));
    restored = (struct conductor_restored) {
        .stages = rows.stages, .n_stages = rows.n_stages, .iterations = rows.iterations, .n_iterations = rows.n_iterations,
        .episodes = rows.episodes, .n_episodes = rows.n_episodes, .versions = rows.versions, .n_versions = rows.n_versions,
        .memory = rows.memory, .memory_size = rows.n_memory,
    };
    r = conductor_restore(edge->conductor, &restored, clock_mono_ms(), error);
    return r < 0 ? r : check_versions(edge, error);
}

/* ---- writing --------------------------------------------------------------------------------------- */

/* Every number the learner reports with a version becomes a point of a curve. */
static int add_metrics(struct edge *edge, const struct ledger_version *version)
{
    json_t *root = version->metrics ? json_loads(version->metrics, JSON_REJECT_DUPLICATES, NULL) : NULL, *value;
    const char *name;
    int r = 0;

    json_object_foreach(root, name, value)
        if (json_is_number(value) && (r = ledger_add_scalar(edge->ledger, version->stage, version->iteration, name,
                                                            json_number_value(value))) < 0)
            break;
    json_decref(root);
    return r;
}

static int apply_one(struct edge *edge, const struct conductor_effect *e)
{
    struct ledger *ledger = edge->ledger;
    int r;

    switch (e->kind) {
    case CONDUCTOR_PUT_STAGE: return ledger_put_stage(ledger, &e->stage);
    case CONDUCTOR_PUT_ITERATION: return ledger_put_iteration(ledger, &e->iteration);
    case CONDUCTOR_ADD_EPISODE: return ledger_add_episode(ledger, &e->episode);
    case CONDUCTOR_EPISODE_JOURNALED: return ledger_episode_journaled(ledger, &e->episode);
    case CONDUCTOR_EPISODE_ENDED: return ledger_episode_ended(ledger, e->episode.episode, e->episode.state, e->episode.reason);
    case CONDUCTOR_EPISODE_FAILURE:
        return ledger_episode_failure(ledger, e->episode.episode, e->episode.failures, e->episode.suspect, e->episode.reason);
    case CONDUCTOR_EPISODE_REOPENED: return ledger_episode_reopened(ledger, e->episode.episode, e->episode.reason);
    case CONDUCTOR_ADD_VERSION:
        r = ledger_add_version(ledger, &e->version);
        return r < 0 ? r : add_metrics(edge, &e->version);
    case CONDUCTOR_PUT_BLOB: return ledger_put_blob(ledger, e->blob.name, e->blob.bytes, e->blob.n);
    case CONDUCTOR_PUT_GROUP_EPOCH: return ledger_put_group_epoch(ledger, e->group_epoch);
    case CONDUCTOR_ADD_SCALAR:
        return ledger_add_scalar(ledger, e->scalar.stage, e->scalar.iteration, e->scalar.name, e->scalar.value);
    case CONDUCTOR_ADD_EVENT: return ledger_add_event(ledger, e->text.kind, e->text.episode, e->text.text);
    case CONDUCTOR_FINISHED: return ledger_add_event(ledger, "finished", 0, "");
    default: return 0;
    }
}

static bool belongs_in_ledger(const struct conductor_effect *e)
{
    return e->kind <= CONDUCTOR_LAST_LEDGER || e->kind == CONDUCTOR_FINISHED;
}

int edge_ledger_apply(struct edge *edge)
{
    bool open = false;
    int r = 0;

    for (size_t i = 0; r == 0 && i < edge->effects.n; i++) {
        const struct conductor_effect *e = &edge->effects.items[i];

        if (!belongs_in_ledger(e))
            continue;
        if (!open)
            r = ledger_begin(edge->ledger);
        open = true;
        if (r == 0)
            r = apply_one(edge, e);
        if (r < 0 && !error_is_no_space(r))      /* a full disk is waited for, and said once (edge_step.c) */
            log_error("a change cannot be written to the ledger", "effect=%d why=%s sqlite=%s", (int)e->kind, LOG_Q(strerror(-r)),
                      LOG_Q(ledger_error(edge->ledger)));
    }
    if (r == 0 && open) {
        r = ledger_commit(edge->ledger);
        if (r < 0 && !error_is_no_space(r))
            log_error("the ledger's commit failed", "why=%s sqlite=%s", LOG_Q(strerror(-r)), LOG_Q(ledger_error(edge->ledger)));
        edge->commits += r == 0;
    }
    if (r < 0)
        ledger_rollback(edge->ledger);
    return r;
}
