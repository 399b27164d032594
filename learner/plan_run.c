#include "learner/plan_run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "learner/plan_data.h"
#include "learner/plan_parent.h"
#include "learner/record.h"
#include "nn/device/device.h"
#include "train/checkpoint.h"
#include "train/device_group.h"
#include "train/objective.h"

enum { JOIN_MS = 120000 };

void plan_runner_release(struct plan_runner *runner)
{
    for (int kind = 0; kind < 2; kind++)
        runner->trainer[kind] = trainer_free(runner->trainer[kind]);
    runner->reference = reference_drop(runner->reference);
}

static bool watch(void *arg, _unused_ const char *what, int64_t done, int64_t total, _unused_ double loss)
{
    struct plan_runner *runner = arg;

    atomic_store(&runner->done, (long)done);
    atomic_store(&runner->total, (long)total);
    return !atomic_load(&runner->stop);
}

/* ---- the objectives --------------------------------------------------------------------------------- */

struct execution {              /* one plan on its way */
    struct plan_runner *runner;
    const Gantry__Plan *plan;
    struct stage_config settings;
    struct trainer *trainer;
    bool merge;                 /* the version is full weights: its adapters added to the base */
    struct plan_data data;
    struct record record;
    struct objective objective;
    struct reference_recall recall;
    struct train_watch watch;
};

static void execution_release(struct execution *e)
{
    trainer_free(e->trainer);
    plan_data_release(&e->data);
    record_release(&e->record);
}

static int prepare(struct execution *e, const struct parent_wish *wish, struct error *error)
{
    int r = parent_take(e->runner, e->plan, wish, &e->trainer, error);

    if (r >= 0)
        r = plan_data_load(e->runner, e->plan, e->trainer, &e->settings, &e->data, error);
    if (r >= 0)
        shards_stop_by(e->trainer->shards, &e->runner->stop);
    e->watch = (struct train_watch) {watch, e->runner};
    e->objective = (struct objective) {.seed = e->runner->seed, .stage = e->plan->stage, .iteration = e->plan->round,
                                       .version = e->plan->parent, .watch = &e->watch};
    return r;
}

static int take_metrics(struct execution *e, struct strbuf *json, struct error *error)
{
    e->record.metrics = strbuf_detach(json);
    return e->record.metrics ? 0 : error_set(error, ENOMEM, "out of memory");
}

static int run_sft(struct execution *e, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf json = STRBUF_INIT;
    struct sft_result result;
    int r;

    if (e->settings.kind != STAGE_SFT)
        return error_set(error, EINVAL, "plan sft: its settings are of a %s stage", stage_kind_name(e->settings.kind));
    r = prepare(e, &(struct parent_wish) {.batch = e->settings.sft.batch}, error);
    if (r >= 0)
        r = objective_sft(e->trainer, e->data.set, &e->settings.sft, &e->objective, &result, error);
    if (r < 0)
        return r;
    e->merge = e->trainer->model->lora && (int)e->plan->round + 1 >= sft_pieces(&e->settings.sft);
    atomic_fetch_add(&e->runner->samples, (long)(result.updates * e->settings.sft.batch));
    result.chosen = e->data.chosen;
    sft_result_write(&result, &json);
    e->record.gate_passed = true;
    return take_metrics(e, &json, error);
}

static int run_prm(struct execution *e, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf json = STRBUF_INIT;
    struct prm_result result;
    int r;

    /* a refresh inside an rl stage: as the run's last prm stage says */
    const struct prm_config *config = e->settings.kind == STAGE_PRM ? &e->settings.prm : &e->runner->prm;

    if (e->settings.kind != STAGE_PRM && (e->settings.kind != STAGE_RL || !config->steps))
        return error_set(error, EINVAL, "plan prm: its settings are of a %s stage, and the run has no prm stage",
                         stage_kind_name(e->settings.kind));
    r = prepare(e, &(struct parent_wish) {.reward_width = config->width, .batch = config->batch}, error);
    if (r >= 0)
        r = objective_prm(e->trainer, e->data.set, config, &e->objective, &result, error);
    if (r < 0)
        return r;
    atomic_fetch_add(&e->runner->samples, (long)(result.updates * config->batch));
    prm_result_write(&result, &json);
    e->record.gate_passed = result.gate_passed;
    snprintf(e->record.gate_text, sizeof e->record.gate_text, "%s", result.gate_text);
    return take_metrics(e, &json, error);
}

static bool is_listed(const uint64_t *list, size_t n, uint64_t episode)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == episode)
            return true;
    return false;
}

/* Rows that carried no gradient move from trained to filtered: the version has not consumed them. */
static int sort_out(struct execution *e, const bool *filtered)
{
    size_t kept = 0, used = 0;

    e->record.filtered = calloc(MAX(e->data.n_trained, (size_t)1), sizeof *e->record.filtered);
    if (!e->record.filtered)
        return -ENOMEM;
    for (size_t i = 0; i < e->data.n_trained; i++)
        if (filtered[i])
            e->record.filtered[e->record.n_filtered++] = e->data.trained[i];
        else
            e->data.trained[kept++] = e->data.trained[i];
    e->data.n_trained = kept;
    for (size_t i = 0; i < e->data.n_used; i++)
        if (!is_listed(e->record.filtered, e->record.n_filtered, e->data.used[i].episode))
            e->data.used[used++] = e->data.used[i];
    e->data.n_used = used;
    return 0;
}

/* The trainer's own model below its adapters; or the version that the stage began with, which may have been asked already and
 * can be from now on. On a device it is asked by the plan alone: who works ahead computes on this host. */
static int find_reference(struct execution *e, const struct rl_config *config, const struct openvla **ret, struct error *error)
{
    struct plan_runner *runner = e->runner;
    int r;

    if (parent_is_on_reference(runner, e->trainer)) {
        *ret = e->trainer->model;
        return 0;
    }
    r = parent_load_reference(runner, e->trainer->reference, error);
    if (r < 0)
        return r;
    *ret = runner->reference->model;
    if (!runner->ahead || runner->reference->model->params.device)
        return 0;
    ahead_offer(runner->ahead, (uint32_t)e->plan->stage, runner->reference, config);
    e->recall = (struct reference_recall) {ahead_take, runner->ahead};
    e->objective.recall = &e->recall;
    return 0;
}

static uint64_t last_of(const Gantry__Plan *plan)
{
    uint64_t last = 0;

    for (size_t i = 0; i < plan->n_episodes; i++)
        last = MAX(last, plan->episodes[i]);
    return last;
}

static int run_ppo(struct execution *e, struct error *error)
{
    const struct rl_config *config = &e->settings.rl;
    _cleanup_(strbuf_release) struct strbuf json = STRBUF_INIT;
    _cleanup_free_ bool *filtered = NULL;
    struct parent_wish wish = {.value_width = rl_has_critic(config) ? config->value_width : 0,
                               .value_inputs = rl_critic_inputs(config), .batch = config->minibatch,
                               .reference = config->kl != KL_NONE};
    const struct openvla *reference = NULL;
    struct ppo_result result;
    int r;

    if (e->settings.kind != STAGE_RL)
        return error_set(error, EINVAL, "plan ppo: its settings are of a %s stage", stage_kind_name(e->settings.kind));
    r = prepare(e, &wish, error);
    if (r >= 0 && config->kl != KL_NONE)
        r = find_reference(e, config, &reference, error);
    if (r < 0)
        return r;
    filtered = calloc((size_t)MAX(e->data.set->n, 1), sizeof *filtered);
    if (!filtered)
        return error_set(error, ENOMEM, "out of memory");
    e->objective.ret_filtered = filtered;
    r = objective_ppo(e->trainer, reference, e->data.set, config, &e->objective, &result, error);
    if (e->runner->ahead && e->plan->n_episodes)
        ahead_forget(e->runner->ahead, last_of(e->plan));
    if (r < 0)
        return r;
    if (sort_out(e, filtered) < 0)
        return error_set(error, ENOMEM, "out of memory");
    atomic_fetch_add(&e->runner->samples, (long)result.steps * (result.warmup ? 0 : config->epochs));
    ppo_result_write(&result, &json);
    e->record.gate_passed = true;
    return take_metrics(e, &json, error);
}

/* ---- committing --------------------------------------------------------------------------------------- */

static void describe(const Gantry__Plan *plan, struct intake_version *ret)
{
    *ret = (struct intake_version) {.kind = (int)plan->kind, .number = plan->version, .parent = plan->parent,
                                    .stage = (uint32_t)plan->stage, .iteration = (uint32_t)plan->iteration};
    memcpy(ret->plan_digest, plan->digest.data, SHA256_SIZE);
}

/* Somebody committed this number first: what it holds counts, ours is thrown away. */
static int load_winner(struct plan_runner *runner, const Gantry__Plan *plan, struct intake_version *ret, struct error *error)
{
    struct manifest winner = {0};
    char dir[VERSION_PATH];
    int r = version_path(runner->run_dir, (int)plan->kind, plan->version, dir);

    if (r >= 0)
        r = manifest_read(dir, &winner, error);
    if (r < 0)
        return r;
    describe(plan, ret);
    memcpy(ret->digest, winner.digest, SHA256_SIZE);
    memcpy(ret->plan_digest, winner.plan_digest, SHA256_SIZE);
    ret->parent = winner.parent;
    manifest_release(&winner);
    return 0;
}

/* fp32 sums, rounded once to what the base is kept in. */
static int save_merged(struct trainer *trainer, const char *dir, struct error *error)
{
    int r = trainer_fetch(trainer);

    if (r < 0)
        return error_set(error, -r, "%s: what was trained cannot be fetched from its device", dir);
    r = openvla_lora_merge(trainer->model, error);
    return r < 0 ? r : openvla_save(trainer->model, dir, NULL, error);
}

/* What the next plan may go on with. A merged one is read back: it begins another stage. */
static void keep_trainer(struct execution *e)
{
    struct plan_runner *runner = e->runner;

    if (e->merge)
        return;
    runner->trainer[e->plan->kind] = TAKE_PTR(e->trainer);
    runner->version[e->plan->kind] = e->plan->version;
}

static int commit(struct execution *e, struct intake_version *ret, struct error *error)
{
    const Gantry__Plan *plan = e->plan;
    struct plan_runner *runner = e->runner;
    struct manifest manifest = {
        .run = runner->run, .kind = (int)plan->kind, .number = plan->version, .parent = plan->parent,
        .group_epoch = plan->group_epoch,
        .stage = (uint32_t)plan->stage, .iteration = (uint32_t)plan->iteration, .consumed = e->data.used,
        .n_consumed = e->data.n_used,
    };
    uint8_t digest[SHA256_SIZE];
    char dir[VERSION_PATH];
    int r = version_begin(runner->run_dir, (int)plan->kind, plan->version, dir, error);

    if (r < 0)
        return r;
    memcpy(manifest.plan_digest, plan->digest.data, SHA256_SIZE);
    r = e->merge ? save_merged(e->trainer, dir, error) : checkpoint_save(e->trainer, dir, error);
    if (r >= 0)
        r = record_write(dir, &e->record, error);
    if (r >= 0)
        r = version_commit(runner->run_dir, dir, &manifest, error);
    memcpy(digest, manifest.digest, SHA256_SIZE);
    manifest.consumed = NULL;   /* the execution's */
    manifest_release(&manifest);
    if (r < 0)
        version_discard(dir);
    if (r == -EEXIST)
        return load_winner(runner, plan, ret, error);
    if (r < 0)
        return r;
    describe(plan, ret);
    memcpy(ret->digest, digest, SHA256_SIZE);
    keep_trainer(e);
    return 0;
}

static int check_plan(const Gantry__Plan *plan, struct error *error)
{
    if (plan->digest.len != SHA256_SIZE || plan->kind > GANTRY__VERSION_KIND__VERSION_PRM || plan->version <= plan->parent)
        return error_set(error, EINVAL, "the plan makes no sense: version %" PRIu64 " from %" PRIu64 ", digest of %zu bytes",
                         plan->version, plan->parent, plan->digest.len);
    return 0;
}

/* Old trajectories of an rl stage go when a plan of it begins, never in between: what a refresh of the reward model finds in the
 * journal follows from its plan alone, whatever was killed before. */
static int retain(const struct plan_runner *runner, const Gantry__Plan *plan, const struct stage_config *settings,
                  struct error *error)
{
    int r;

    if (settings->kind != STAGE_RL || !plan->keep_from || runner->group.rank != 0)
        return 0;
    r = journal_retain(runner->journal, (uint32_t)plan->stage, (uint32_t)plan->keep_from);
    return r < 0 ? error_set(error, -r, "old segments of the journal cannot be removed: %s", strerror(-r)) : 0;
}

/* Which data sets it learnt from, into training.json. */
static int take_sources(struct execution *e, struct error *error)
{
    if (!e->data.sources.length)
        return 0;
    if (asprintf(&e->record.data, "[%s]", e->data.sources.text) >= 0)
        return 0;
    e->record.data = NULL;
    return error_set(error, ENOMEM, "out of memory");
}

static int execute(struct plan_runner *runner, const Gantry__Plan *plan, struct intake_version *ret, struct error *error)
{
    static const struct { const char *name; int (*run)(struct execution *, struct error *); } objectives[] = {
        {"sft", run_sft}, {"prm", run_prm}, {"ppo", run_ppo},
    };
    _cleanup_(execution_release) struct execution e = {.runner = runner, .plan = plan};
    int r = stage_config_parse(plan->settings, strlen(plan->settings), &e.settings, error);

    if (r < 0)
        return error_prefix(error, r, "plan");
    r = retain(runner, plan, &e.settings, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i <= ARRAY_SIZE(objectives); i++) {
        if (i == ARRAY_SIZE(objectives))
            return error_set(error, EINVAL, "plan: objective `%s` is unknown to this build", plan->objective);
        if (strcmp(plan->objective, objectives[i].name))
            continue;
        r = objectives[i].run(&e, error);
        break;
    }
    if (r < 0)
        return r;
    e.record.trained = TAKE_PTR(e.data.trained);
    e.record.n_trained = e.data.n_trained;
    e.record.stale = TAKE_PTR(e.data.stale);
    e.record.n_stale = e.data.n_stale;
    r = take_sources(&e, error);
    if (r < 0)
        return r;
    if (runner->group.rank == 0)
        return commit(&e, ret, error);
    describe(plan, ret);
    keep_trainer(&e);
    return 0;
}

/* Ranks on devices: all hold one NCCL group before the plan begins. A device is this thread's when it is told so. */
static int agree(struct plan_runner *runner, struct error *error)
{
    struct device *device = device_process();
    char why[256] = "";
    int r;

    if (!runner->group.device || !device)
        return 0;
    r = device->k->use(device->ordinal, NULL, why, sizeof why);
    if (r < 0)
        return error_set(error, -r, "--device %s: %s", device->name, why);
    r = device_group_agree(runner->group.device, JOIN_MS, error);
    return r < 0 ? error_prefix(error, r, "rank %d of %d on %s", runner->group.rank, runner->group.ranks, device->name) : 0;
}

/* The objective's words are of its numbers; why the ranks' group broke, NCCL knows. */
static int name_break(struct plan_runner *runner, int r, struct error *error)
{
    struct nccl_group *nccl = runner->group.device ? device_group_nccl(runner->group.device) : NULL;

    if (r < 0 && nccl && nccl_group_broken(nccl))
        return error_prefix(error, r, "rank %d of %d lost the others (%s); the plan is begun again", runner->group.rank,
                            runner->group.ranks, nccl_group_why(nccl));
    return r;
}

/* A rank that does not write the journal reads it anew for each plan. */
static int execute_on_rank(struct plan_runner *runner, const Gantry__Plan *plan, struct intake_version *ret, struct error *error)
{
    _cleanup_(journal_closep) struct journal *journal = NULL;
    char path[sizeof runner->run_dir + 16];
    int r = agree(runner, error);

    if (r < 0)
        return r;
    if (runner->journal)
        return name_break(runner, execute(runner, plan, ret, error), error);
    snprintf(path, sizeof path, "%s/journal", runner->run_dir);
    r = journal_open(path, runner->run, JOURNAL_READ, &journal, NULL, error);
    if (r < 0)
        return r;
    runner->journal = journal;
    r = name_break(runner, execute(runner, plan, ret, error), error);
    runner->journal = NULL;
    return r;
}

int plan_run(struct plan_runner *runner, const Gantry__Plan *plan, struct intake_version *ret, struct error *error)
{
    int r = check_plan(plan, error), over;

    if (r < 0)
        return r;
    if (!runner->collective)
        return execute_on_rank(runner, plan, ret, error);
    collective_begin(runner->collective, plan->digest.data);
    r = execute_on_rank(runner, plan, ret, error);
    over = collective_end(runner->collective, r);
    if (r >= 0 && over < 0)
        return error_set(error, -over, "rank 0 has not committed the version that rank %d trained, too; the plan is begun again",
                         runner->group.rank);
    return r;
}
