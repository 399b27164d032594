#include "learner/plan_run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "learner/plan_data.h"
#include "learner/record.h"
#include "nn/models/openvla_adapter.h"
#include "train/checkpoint.h"
#include "train/objective.h"

void plan_runner_release(struct plan_runner *runner)
{
    for (int kind = 0; kind < 2; kind++)
        runner->trainer[kind] = trainer_free(runner->trainer[kind]);
    runner->reference = openvla_free(runner->reference);
}

static bool watch(void *arg, _unused_ const char *what, int64_t done, int64_t total, _unused_ double loss)
{
    struct plan_runner *runner = arg;

    atomic_store(&runner->done, (long)done);
    atomic_store(&runner->total, (long)total);
    return !atomic_load(&runner->stop);
}

/* ---- the parent ------------------------------------------------------------------------------------ */

struct wish {                   /* heads that the objective needs */
    int value_width, value_inputs;      /* 0: none */
    int reward_width;
};

static_assert(TRUNK_HISTORY_MAX + 2 == OPENVLA_MAX_IMAGES, "what the configuration allows is what the trunk takes");

static int add_heads(struct openvla *model, const struct wish *wish, int prm_history, uint64_t seed, struct error *error)
{
    int r = 0;

    if (wish->value_width && !model->config.value_width)
        r = openvla_add_value_head(model, wish->value_width, wish->value_inputs, seed);
    if (r >= 0 && wish->reward_width && !model->config.reward_width) {
        r = openvla_add_reward_head(model, wish->reward_width, seed);
        model->config.reward_history = prm_history;
    }
    return r < 0 ? error_set(error, -r, "a head of width %d cannot be added", MAX(wish->value_width, wish->reward_width)) : 0;
}

static bool wants_adapters(const struct plan_runner *runner, const Gantry__Plan *plan)
{
    return plan->kind == GANTRY__VERSION_KIND__VERSION_POLICY && runner->lora.r > 0;
}

/* A policy that is trained by adapters has them; whatever else is trained has none. */
static int fit_adapters(const struct plan_runner *runner, const Gantry__Plan *plan, struct openvla *model, struct error *error)
{
    bool wanted = wants_adapters(runner, plan);
    struct lora_spec spec = runner->lora;
    char base[32];

    if (wanted == (model->lora != NULL))
        return 0;
    if (!wanted)
        return openvla_lora_merge(model, error);
    snprintf(base, sizeof base, "../v%06" PRIu64, plan->parent);
    spec.base = base;
    spec.targets = runner->lora_targets;
    return openvla_lora_new(model, &spec, runner->seed + (plan->stage << 32), error);
}

static int load_openvla(struct plan_runner *runner, const Gantry__Plan *plan, const char *dir, const struct wish *wish,
                        struct trainer **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    /* below adapters the base may rest as bf16; what is trained whole may not */
    int r = openvla_load_halves(dir, wants_adapters(runner, plan) ? OPENVLA_LARGE : -1, &model, error);

    if (r >= 0)
        r = add_heads(model, wish, runner->prm_history, runner->seed, error);
    if (r >= 0)
        r = fit_adapters(runner, plan, model, error);
    if (r < 0)
        return r;
    r = trainer_new(model, runner->threads, &runner->group, ret);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be made ready for training: %s", dir, error_text(NULL, r));
    TAKE_PTR(model);            /* the trainer's now */
    if (runner->bf16 && plan->kind == GANTRY__VERSION_KIND__VERSION_POLICY)
        r = trainer_use_bf16(*ret);
    if (r >= 0)
        return 0;
    *ret = trainer_free(*ret);
    return r == -EDOM ? error_set(error, EINVAL, "%s: policy.weights is bf16, but the checkpoint has values that bf16 has not; "
                                  "`gantry model convert` rounds them, or set policy.weights: fp32", dir)
                      : error_set(error, -r, "%s: no memory for masters", dir);
}

/* prm.train: lora: adapters that name the directory they were made on as their base, as PEFT has it. */
static int fit_reward_adapters(const struct plan_runner *runner, const char *dir, struct qwen_vl *model, struct error *error)
{
    struct adapted adapted = qwen_vl_adapted(model);
    struct lora_spec spec = runner->prm_lora;
    _cleanup_free_ char *base = NULL;

    if (!spec.r || model->adapters)
        return 0;
    base = realpath(dir, NULL);
    if (!base)
        return error_set(error, errno, "%s: %s", dir, strerror(errno));
    spec.base = base;
    spec.targets = runner->lora_targets;
    return adapters_new(&adapted, &spec, runner->seed, error);
}

/* A reward model with a backbone of its own. */
static int load_backbone(struct plan_runner *runner, const char *dir, const struct wish *wish, struct trainer **ret, struct error *error)
{
    _cleanup_(qwen_vl_freep) struct qwen_vl *model = NULL;
    int r = qwen_vl_load_halves(dir, QWEN_LARGE, &model, error);

    if (r >= 0 && wish->reward_width && !model->config.reward_width) {
        r = qwen_vl_add_reward_head(model, wish->reward_width, runner->seed);
        if (r < 0)
            return error_set(error, -r, "%s: a head of width %d cannot be added", dir, wish->reward_width);
    }
    if (r >= 0)
        r = fit_reward_adapters(runner, dir, model, error);
    if (r < 0)
        return r;
    model->history = runner->prm_history;
    r = trainer_new_reward(model, runner->threads, &runner->group, ret);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be made ready for training: %s", dir, error_text(NULL, r));
    TAKE_PTR(model);            /* the trainer's now */
    return 0;
}

static int load_parent(struct plan_runner *runner, const Gantry__Plan *plan, const struct wish *wish, struct trainer **ret,
                       struct error *error)
{
    _cleanup_(trainer_freep) struct trainer *trainer = NULL;
    char dir[1024];
    int r;

    if (snprintf(dir, sizeof dir, "%s/%s", runner->run_dir, plan->parent_dir) >= (int)sizeof dir)
        return error_set(error, ENAMETOOLONG, "the plan's parent directory has too long a path");
    if (access(dir, F_OK) < 0)  /* prm.init of the run file: not below the run directory */
        snprintf(dir, sizeof dir, "%s", plan->parent_dir);
    if (plan->kind == GANTRY__VERSION_KIND__VERSION_PRM && qwen_vl_is(dir))
        r = load_backbone(runner, dir, wish, &trainer, error);
    else
        r = load_openvla(runner, plan, dir, wish, &trainer, error);
    if (r < 0)
        return r;
    r = checkpoint_load_state(trainer, dir, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(trainer);
    return 0;
}

/* The reference is what the adapters sit on. */
static bool reference_is_base(const struct trainer *trainer)
{
    const char *base = trainer->model ? openvla_adapter_base_name(trainer->model) : NULL;
    char reference[32];

    snprintf(reference, sizeof reference, "../v%06" PRIu64, trainer->reference);
    return base && !strcmp(base, reference);
}

/* Take the trainer out of the runner (put back once committed: a failed plan leaves it half-trained), or load the parent. */
static int take_trainer(struct plan_runner *runner, const Gantry__Plan *plan, const struct wish *wish, struct trainer **ret,
                        struct error *error)
{
    struct trainer *held = TAKE_PTR(runner->trainer[plan->kind]);
    int r;

    if (held && (runner->version[plan->kind] != plan->parent || (plan->kind == GANTRY__VERSION_KIND__VERSION_PRM &&
                                                                 plan->parent == 0) ||
                 (wish->value_width && !held->parts[TRAIN_VALUE].n) || (wish->reward_width && !held->parts[TRAIN_REWARD].n)))
        held = trainer_free(held);
    if (!held) {
        r = load_parent(runner, plan, wish, &held, error);
        if (r < 0)
            return r;
    }
    if (held->stage != plan->stage + 1) {       /* 0 means no stage yet */
        trainer_reset(held);
        held->stage = plan->stage + 1;
        held->reference = plan->parent;
    }
    *ret = held;
    return 0;
}

static int load_reference(struct plan_runner *runner, uint64_t version, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    char dir[VERSION_PATH];
    int r;

    if (runner->reference && runner->reference_version == version)
        return 0;
    runner->reference = openvla_free(runner->reference);
    r = version_path(runner->run_dir, 0, version, dir);
    if (r >= 0)
        r = openvla_load_halves(dir, OPENVLA_LARGE, &model, error);
    if (r < 0)
        return error_prefix(error, r, "the policy that the stage started from");
    r = openvla_pack(model, false);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", dir);
    runner->reference = TAKE_PTR(model);
    runner->reference_version = version;
    return 0;
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
    struct train_watch watch;
};

static void execution_release(struct execution *e)
{
    trainer_free(e->trainer);
    plan_data_release(&e->data);
    record_release(&e->record);
}

static int prepare(struct execution *e, const struct wish *wish, int max_staleness, struct error *error)
{
    int r = take_trainer(e->runner, e->plan, wish, &e->trainer, error);

    if (r >= 0)
        r = plan_data_load(e->runner, e->plan, e->trainer, max_staleness, &e->data, error);
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
    int r = prepare(e, &(struct wish) {0}, 0, error);

    if (r >= 0)
        r = objective_sft(e->trainer, e->data.set, &e->settings.sft, &e->objective, &result, error);
    if (r < 0)
        return r;
    e->merge = e->trainer->model->lora && (int)e->plan->round + 1 >= sft_pieces(&e->settings.sft);
    atomic_fetch_add(&e->runner->samples, (long)(result.updates * e->settings.sft.batch));
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
    r = prepare(e, &(struct wish) {.reward_width = config->width}, INT32_MAX, error);
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

static int run_ppo(struct execution *e, struct error *error)
{
    const struct rl_config *config = &e->settings.rl;
    _cleanup_(strbuf_release) struct strbuf json = STRBUF_INIT;
    _cleanup_free_ bool *filtered = NULL;
    bool critic = config->advantage == ADVANTAGE_GAE && config->value_width > 0;
    struct wish wish = {.value_width = critic ? config->value_width : 0, .value_inputs = critic
                        ? config->critic_time + config->critic_prm : 0};
    const struct openvla *reference = NULL;
    struct ppo_result result;
    int r;

    if (e->settings.kind != STAGE_RL)
        return error_set(error, EINVAL, "plan ppo: its settings are of a %s stage", stage_kind_name(e->settings.kind));
    r = prepare(e, &wish, config->max_staleness, error);
    if (r >= 0 && config->kl != KL_NONE && reference_is_base(e->trainer))
        reference = e->trainer->model;
    else if (r >= 0 && config->kl != KL_NONE) {
        r = load_reference(e->runner, e->trainer->reference, error);
        reference = e->runner->reference;
    }
    if (r < 0)
        return r;
    filtered = calloc((size_t)MAX(e->data.set->n, 1), sizeof *filtered);
    if (!filtered)
        return error_set(error, ENOMEM, "out of memory");
    e->objective.ret_filtered = filtered;
    r = objective_ppo(e->trainer, reference, e->data.set, config, &e->objective, &result, error);
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
static int save_merged(struct openvla *model, const char *dir, struct error *error)
{
    int r = openvla_lora_merge(model, error);

    return r < 0 ? r : openvla_save(model, dir, NULL, error);
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
    r = e->merge ? save_merged(e->trainer->model, dir, error) : checkpoint_save(e->trainer, dir, error);
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

static int execute(struct plan_runner *runner, const Gantry__Plan *plan, struct intake_version *ret, struct error *error)
{
    static const struct { const char *name; int (*run)(struct execution *, struct error *); } objectives[] = {
        {"sft", run_sft}, {"prm", run_prm}, {"ppo", run_ppo},
    };
    _cleanup_(execution_release) struct execution e = {.runner = runner, .plan = plan};
    int r = stage_config_parse(plan->settings, strlen(plan->settings), &e.settings, error);

    if (r < 0)
        return error_prefix(error, r, "plan of stage %" PRIu64 ", iteration %" PRIu64, plan->stage, plan->iteration);
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
        return error_prefix(error, r, "plan of stage %" PRIu64 ", iteration %" PRIu64, plan->stage, plan->iteration);
    e.record.trained = TAKE_PTR(e.data.trained);
    e.record.n_trained = e.data.n_trained;
    e.record.stale = TAKE_PTR(e.data.stale);
    e.record.n_stale = e.data.n_stale;
    if (runner->group.rank == 0)
        return commit(&e, ret, error);
    describe(plan, ret);
    keep_trainer(&e);
    return 0;
}

int plan_run(struct plan_runner *runner, const Gantry__Plan *plan, struct intake_version *ret, struct error *error)
{
    _cleanup_(journal_closep) struct journal *journal = NULL;
    char path[sizeof runner->run_dir + 16];
    int r = check_plan(plan, error);

    if (r < 0)
        return r;
    if (runner->collective)
        collective_begin(runner->collective, plan->digest.data);
    if (runner->journal)
        return execute(runner, plan, ret, error);
    snprintf(path, sizeof path, "%s/journal", runner->run_dir);
    r = journal_open(path, runner->run, JOURNAL_READ, &journal, NULL, error);
    if (r < 0)
        return r;
    runner->journal = journal;
    r = execute(runner, plan, ret, error);
    runner->journal = NULL;
    return r;
}
