/* The first Welcome: what is on disk becomes intake's memory, and the threads start. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/log.h"
#include "learner/edge_internal.h"
#include "learner/episode_return.h"
#include "nn/device/device.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "run/trajectory.h"
#include "serve/device_use.h"
#include "serve/numerics.h"

enum { RETRY_MIN_MS = 2000, RETRY_MAX_MS = 60000 };

static void on_appended(uint64_t episode, uint64_t token, int result, void *arg)
{
    struct edge *edge = arg;
    uint32_t stage = edge->intake && result >= 0 ? intake_trained_stage_of(edge->intake, episode) : UINT32_MAX;

    if (edge->ahead && edge_rl(edge, stage))
        ahead_add(edge->ahead, stage, episode);
    if (edge->intake)
        edge_step(edge, &(struct intake_event) {.kind = INTAKE_APPENDED, .appended = {episode, token, result}});
}

static void on_trained(const Gantry__Plan *plan, const struct intake_version *version, int result, const char *text, void *arg)
{
    struct edge *edge = arg;

    edge->disk_full = error_is_no_space(result);
    if (result < 0) {
        uint64_t wait = MIN((uint64_t)RETRY_MIN_MS << MIN(edge->failures, 5U), (uint64_t)RETRY_MAX_MS);

        edge->failures++;
        if (device_lost(device_process()))
            (void)device_watch(edge->lifecycle);        /* this process ends; the plan comes again to the next one */
        else if (edge->member && result != -ECANCELED && (edge->rank == 0 || result != -ECONNRESET))
            edge_send_plan_failed(edge, plan, result, text);    /* the others are waiting for a rank that fails alone */
        edge->retry_ms = clock_mono_ms() + wait;
    } else {
        edge->failures = 0;
    }
    if (result == 0)
        edge->newest[version->kind] = version->number;
    if (edge->intake)
        edge_step(edge, &(struct intake_event) {
            .kind = INTAKE_TRAINED, .trained = {.result = result, .version = *version, .text = text} });
}

const struct rl_config *edge_rl(const struct edge *edge, uint32_t stage)
{
    if (!edge->config || stage >= (uint32_t)edge->config->n_stages || edge->config->stages[stage].kind != STAGE_RL)
        return NULL;
    return &edge->config->stages[stage].rl;
}

/* ---- what is on disk --------------------------------------------------------------------------------- */

int edge_read_outcome(struct edge *edge, struct journaled_episode *episode, struct error *error)
{
    _cleanup_(trajectory_freep) Gantry__Trajectory *t = NULL;
    int r = trajectory_load(edge->journal, episode->episode, &t, NULL, NULL, error);

    if (r < 0)
        return r;
    episode->success = t->success;
    episode->timeout = t->timeout;
    episode->steps = t->steps;
    episode->member = t->member;
    episode->progress_end = t->n_progress ? t->progress[t->n_progress - 1] : 0;
    episode->reward = (float)episode_return(t, edge_rl(edge, intake_stage_of(edge->intake, episode->episode)));
    intake_learn_outcome(edge->intake, episode);
    return 0;
}

/* What the index has. How episodes ended is in their records, frames and all: gigabytes, of which the coordinator asks about the
 * open iterations' alone (edge_read_outcome). */
static int read_records(struct edge *edge, struct intake_record **ret, size_t *ret_n, struct error *error)
{
    _cleanup_free_ struct journal_entry *entries = NULL;
    _cleanup_free_ struct intake_record *records = NULL;
    size_t n = 0;
    int r = journal_list(edge->journal, JOURNAL_ALL, JOURNAL_ALL, &entries, &n);

    if (r < 0)
        return error_set(error, -r, "the journal cannot be listed");
    records = calloc(MAX(n, (size_t)1), sizeof *records);
    if (!records)
        return error_set(error, ENOMEM, "out of memory for %zu journaled episodes", n);
    for (size_t i = 0; i < n; i++) {
        records[i] = (struct intake_record) {.stage = entries[i].stage, .iteration = entries[i].iteration,
                                             .episode.episode = entries[i].episode};
        memcpy(records[i].episode.digest, entries[i].digest, SHA256_SIZE);
    }
    *ret = TAKE_PTR(records);
    *ret_n = n;
    return 0;
}

static int read_version(const char *run_dir, int kind, uint64_t number, struct intake_version *ret, struct error *error)
{
    struct manifest manifest = {0};
    char dir[VERSION_PATH];
    int r = version_path(run_dir, kind, number, dir);

    if (r >= 0)
        r = manifest_read(dir, &manifest, error);
    if (r < 0)
        return r;
    *ret = (struct intake_version) {.kind = kind, .number = number, .parent = manifest.parent, .stage = manifest.stage,
                                    .iteration = manifest.iteration};
    memcpy(ret->digest, manifest.digest, SHA256_SIZE);
    memcpy(ret->plan_digest, manifest.plan_digest, SHA256_SIZE);
    manifest_release(&manifest);
    return 0;
}

static int read_versions(const char *run_dir, struct intake_version **ret, size_t *ret_n, struct error *error)
{
    _cleanup_free_ struct intake_version *versions = NULL;
    size_t total = 0;

    for (int kind = 0; kind < 2; kind++) {
        _cleanup_free_ uint64_t *numbers = NULL;
        struct intake_version *larger;
        size_t n = 0;
        int r = version_list(run_dir, kind, &numbers, &n);

        if (r < 0 && r != -ENOENT)
            return error_set(error, -r, "%s: its versions cannot be listed", run_dir);
        larger = realloc(versions, (total + n + 1) * sizeof *larger);
        if (!larger)
            return error_set(error, ENOMEM, "out of memory");
        versions = larger;
        for (size_t i = 0; i < n; i++) {
            if (kind == GANTRY__VERSION_KIND__VERSION_PRM && numbers[i] == 0)
                continue;       /* the backbone below the versions (plan_parent.c) is not one of them */
            r = read_version(run_dir, kind, numbers[i], &versions[total++], error);
            if (r < 0)
                return r;
        }
    }
    *ret = TAKE_PTR(versions);
    *ret_n = total;
    return 0;
}

/* What episodes must fit, by the newest policy's files: its shape is every version's. Where these are damaged, whoever loads them
 * says so, and nothing can be trained; where there are none, demonstrations are all there is. */
static void open_shape(struct edge *edge)
{
    _cleanup_free_ uint64_t *numbers = NULL;
    struct error error = {0};
    char dir[VERSION_PATH];
    size_t n = 0;
    int r = version_list(edge->run_dir, GANTRY__VERSION_KIND__VERSION_POLICY, &numbers, &n);

    if (r < 0 || n == 0)
        return;
    r = version_path(edge->run_dir, GANTRY__VERSION_KIND__VERSION_POLICY, numbers[n - 1], dir);
    if (r >= 0)
        r = openvla_open_below(dir, &edge->shape, &error);
    if (r < 0)
        log_warn("episodes are taken without asking whether they fit the policy", "reason=%s", LOG_Q(error_text(&error, r)));
}

static int restore(struct edge *edge, struct error *error)
{
    _cleanup_free_ struct intake_record *records = NULL;
    _cleanup_free_ struct intake_version *versions = NULL;
    size_t n_records = 0, n_versions = 0;
    int r = read_records(edge, &records, &n_records, error);

    if (r >= 0)
        r = read_versions(edge->run_dir, &versions, &n_versions, error);
    if (r < 0)
        return r;
    r = intake_new(&edge->intake);
    if (r >= 0)
        r = intake_restore(edge->intake, records, n_records, versions, n_versions);
    if (r < 0)
        return error_set(error, -r, "out of memory for %zu journaled episodes", n_records);
    log_info("journal read", "episodes=%zu versions=%zu bytes=%" PRIu64, n_records, n_versions, journal_bytes(edge->journal));
    return 0;
}

/* ---- opening -------------------------------------------------------------------------------------------- */

/* What plans need of the run beyond their own settings: the reward model is refreshed as the last prm stage says;
 * cluster.learners is the number of ranks. */
static int take_run_settings(struct edge *edge, const char *config, struct plan_runner *runner, int *ret_ranks,
                             struct error *error)
{
    struct run_config *run = edge->config = malloc(sizeof *run);
    int r = run ? run_config_parse(config, strlen(config), "Welcome.config", run, error)
                : error_set(error, ENOMEM, "out of memory");

    for (int i = 0; r >= 0 && i < run->n_stages; i++)
        if (run->stages[i].kind == STAGE_PRM)
            runner->prm = run->stages[i].prm;
    if (r < 0)
        return r;
    snprintf(runner->lora_targets, sizeof runner->lora_targets, "%s", run->lora_targets);
    runner->fast = numerics_fast(run);
    runner->bf16 = !strcmp(run->policy_weights, "bf16");
    if (!strcmp(run->policy_train, "lora"))
        runner->lora = (struct lora_spec) {.r = run->lora_r, .alpha = run->lora_alpha};
    if (!strcmp(run->prm_train, "lora"))
        runner->prm_lora = (struct lora_spec) {.r = run->lora_r, .alpha = run->lora_alpha};
    runner->prm_history = run->prm_history;
    runner->config = run;
    *ret_ranks = MAX(run->n_learners, 1);
    return 0;
}

static int open_journal(struct edge *edge, uint64_t run, struct error *error)
{
    struct error notice = {0};
    char path[RUN_PATH];
    int r = rundir_path(edge->run_dir, "journal", path, error);

    if (r >= 0 && edge->lock < 0)
        r = rundir_lock(edge->run_dir, LEARNER_LOCK, &edge->lock, error);
    if (r >= 0)
        r = journal_open(path, run, JOURNAL_WRITE, &edge->journal, &notice, error);
    if (r >= 0 && notice.errnum)
        log_warn("the journal had a torn end", "what=%s", LOG_Q(notice.text));
    return r;
}

/* Rank 0 keeps the trajectories; the others only train along. */
static int open_rank_0(struct edge *edge, uint64_t run, struct error *error)
{
    int r = open_journal(edge, run, error);

    if (r < 0)
        return r;
    version_sweep(edge->run_dir);
    r = restore(edge, error);
    if (r < 0)
        return r;
    open_shape(edge);
    r = journal_thread_new(edge->loop, edge->journal, on_appended, edge, &edge->journal_thread);
    if (r >= 0)
        r = ahead_new(edge->journal, (int)edge->threads, true, &edge->ahead);
    return r < 0 ? error_set(error, -r, "the journal's threads cannot start: %s", strerror(-r)) : 0;
}

/* A rank has left the plan that we are in: over NCCL it would be waited for. */
static void on_anew(unsigned rank, void *arg)
{
    char why[64];

    snprintf(why, sizeof why, "rank %u has begun the plan anew", rank);
    device_group_abort(arg, why);
}

/* Gradients on devices are added by NCCL; who is in the group is agreed on by the way that there is. */
static int open_device_group(struct edge *edge, struct group *group, struct error *error)
{
    int version = 0, r = nccl_calls_open(NULL, &edge->nccl, error);

    if (r >= 0 && device_group_new(&edge->nccl, group, &edge->device_group) < 0)
        r = error_set(error, ENOMEM, "out of memory");
    if (r < 0)
        return r;
    (void)edge->nccl.get_version(&version);
    log_info("gradients are added by NCCL", "version=%d rank=%d ranks=%d", version, group->rank, group->ranks);
    group->device = edge->device_group;
    collective_on_anew(edge->collective, on_anew, edge->device_group);
    return 0;
}

static int open_group(struct edge *edge, int ranks, struct group *ret, struct error *error)
{
    int r;

    *ret = (struct group) {.ranks = 1};
    if (ranks == 1 && edge->rank == 0)
        return 0;
    r = collective_new(edge->loop, edge->wire, edge->rank, (unsigned)ranks, &edge->collective);
    if (r < 0)
        return error_set(error, -r, "rank %u of %d learners: cluster.learners must have 1, 2, 4 or 8 entries, numbered from 0",
                         edge->rank, ranks);
    *ret = (struct group) {.rank = (int)edge->rank, .ranks = ranks, .gather = collective_gather, .arg = edge->collective};
    return device_process() && ranks > 1 ? open_device_group(edge, ret, error) : 0;
}

/* On another host, --run-dir may be anything: a journal begun in the wrong place would be a second truth. */
static int check_run_dir(const char *run_dir, const char *config, struct error *error)
{
    _cleanup_free_ char *text = NULL;
    char path[RUN_PATH];
    size_t n;
    int r = rundir_path(run_dir, "config.yaml", path, error);

    if (r < 0)
        return r;
    r = file_read(path, 4 << 20, &text, &n);
    if (r < 0)
        return error_set(error, -r, "%s: %s: --run-dir must be where this host sees the run's directory", path, strerror(-r));
    if (strcmp(text, config))
        return error_set(error, ESTALE, "%s is of another run: --run-dir must be where this host sees the run's directory", path);
    return 0;
}

int edge_open(struct edge *edge, const Gantry__Welcome *welcome, struct error *error)
{
    struct plan_runner runner = {.run = welcome->run, .seed = welcome->seed, .threads = (int)edge->threads};
    int r, ranks = 1;

    if (!edge->run_dir[0])
        snprintf(edge->run_dir, sizeof edge->run_dir, "%s", welcome->run_dir);
    r = check_run_dir(edge->run_dir, welcome->config, error);
    if (r >= 0)
        r = take_run_settings(edge, welcome->config, &runner, &ranks, error);
    if (r >= 0)
        r = open_group(edge, ranks, &runner.group, error);
    if (r >= 0 && edge->rank == 0)
        r = open_rank_0(edge, welcome->run, error);
    if (r >= 0 && edge->rank == 0 && weights_new(edge->loop, edge->run_dir, &edge->weights) < 0)
        r = error_set(error, EAGAIN, "the learner's threads cannot start");
    if (r < 0)
        return r;
    snprintf(runner.run_dir, sizeof runner.run_dir, "%s", edge->run_dir);
    runner.journal = edge->journal;
    runner.collective = edge->collective;
    runner.ahead = edge->ahead;
    r = train_thread_new(edge->loop, &runner, on_trained, edge, &edge->train_thread);
    return r < 0 ? error_set(error, -r, "the learner's threads cannot start: %s", strerror(-r)) : 0;
}

void edge_close(struct edge *edge)
{
    if (edge->collective)
        collective_abort(edge->collective);
    if (edge->device_group)
        device_group_abort(edge->device_group, "the learner is stopping");
    edge->weights = weights_free(edge->weights);
    edge->train_thread = train_thread_free(edge->train_thread);
    edge->device_group = device_group_free(edge->device_group);
    edge->collective = collective_free(edge->collective);
    edge->journal_thread = journal_thread_free(edge->journal_thread);
    edge->ahead = ahead_free(edge->ahead);
    edge->shape = openvla_free(edge->shape);
    deliveries_free(&edge->deliveries);
    intake_effects_release(&edge->effects);
    edge->intake = intake_free(edge->intake);
    free(edge->config);
    edge->config = NULL;
    edge->journal = journal_close(edge->journal);
    if (edge->lock >= 0)
        close(edge->lock);
    edge->lock = -1;
    free(edge->plan.bytes);
    edge->plan.bytes = NULL;
}
