#include "learner/plan_parent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "nn/base_link.h"
#include "nn/device/device.h"
#include "nn/models/openvla_adapter.h"
#include "nn/models/openvla_oft.h"
#include "nn/models/openvla_start.h"
#include "run/manifest.h"
#include "train/checkpoint.h"
#include "train/device_memory.h"

static_assert(TRUNK_HISTORY_MAX + 2 == OPENVLA_MAX_IMAGES, "what the configuration allows is what the trunk takes");

static int add_heads(struct openvla *model, const struct parent_wish *wish, int prm_history, uint64_t seed, struct error *error)
{
    int r = 0;

    if (wish->reward_width && !model->config.reward_width && prm_history > TRUNK_HISTORY_MAX)
        return error_set(error, EINVAL, "%s: prm.history: %d: a policy's trunk is shown at most %d frames beside the first and "
                         "the current one", model->dir, prm_history, TRUNK_HISTORY_MAX);
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
static int fit_adapters(const struct plan_runner *runner, const Gantry__Plan *plan, const char *dir, struct openvla *model,
                        struct error *error)
{
    bool wanted = wants_adapters(runner, plan);
    struct lora_spec spec = runner->lora;
    char base[32], named[PATH_MAX], sha256[65];
    int r;

    if (!wanted)
        return model->lora ? openvla_lora_merge(model, error) : 0;
    snprintf(base, sizeof base, "../v%06" PRIu64, plan->parent);
    if (model->lora) {          /* a start policy's lie beside their base: it is what the versions after it name */
        r = base_link_read(dir, named, sha256, error);
        if (r == 0 && (r = openvla_adapter_name_base(model, base)) < 0)
            return error_set(error, -r, "out of memory");
        return MIN(r, 0);
    }
    spec.base = base;
    spec.targets = runner->lora_targets;
    return openvla_lora_new(model, &spec, runner->seed + (plan->stage << 32), error);
}

/* The stage's reference is what this model's adapters sit on. */
static bool sits_on(const struct plan_runner *runner, const struct openvla *model, uint64_t version)
{
    const char *base = openvla_adapter_base_name(model);
    char reference[32], dir[VERSION_PATH];

    snprintf(reference, sizeof reference, "../v%06" PRIu64, version);
    if (!base || oft_trains_whole(model))
        return false;           /* without its adapters it is not what it was: heads and FiLM have moved */
    if (strcmp(base, reference) || version_path(runner->run_dir, 0, version, dir) < 0)
        return false;
    return !openvla_start_is_adapter(dir);      /* the reference would be more than what is below our adapters */
}

/* Bytes that parent_load_reference will take of the device. One that is held counts among what is taken already, if it is the
 * stage's; else it goes now. dir: of the plan's parent. */
static int reference_bytes(struct plan_runner *runner, const Gantry__Plan *plan, const struct openvla *model, const char *dir,
                           int64_t *ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *reference = NULL;
    char of[VERSION_PATH];
    uint64_t version = plan->parent;
    int64_t bytes;
    int r = plan->parent ? checkpoint_reference(dir, plan->stage + 1, &version, error) : 0;

    if (r < 0)
        return r;
    if (runner->reference && runner->reference->version != version)
        runner->reference = reference_drop(runner->reference);
    if (runner->reference || sits_on(runner, model, version))
        return 0;
    r = version_path(runner->run_dir, 0, version, of);
    if (r >= 0)
        r = openvla_open_below(of, &reference, error);
    if (r < 0)
        return error_prefix(error, r, "the policy that the stage started from");
    bytes = memory_on_device(reference, runner->fast);
    for (int i = 0; i < model->params.count && openvla_start_is_adapter(of); i++)
        if (model->params.list[i]->adapter)     /* it has as many */
            bytes += model->params.list[i]->numel * (runner->fast || params_are_half(&reference->params) ? 6 : 4);
    *ret = bytes;
    return 0;
}

/* What training this model takes of the device's memory, before it is asked for, and how its passes go, by what there is. Nothing
 * of it without a device. */
static int check_device(struct plan_runner *runner, const Gantry__Plan *plan, struct openvla *model,
                        const struct parent_wish *wish, const char *dir, struct device_need *ret, struct error *error)
{
    struct device_job job = {.use = model->lora ? MEMORY_LORA : MEMORY_FULL, .batch = MAX(wish->batch, 1),
                             .ranks = runner->group.ranks};
    struct device_facts facts;
    struct device_need need;
    const struct device *device;
    int r = 0;

    params_use_process_device(&model->params);
    device = model->params.device;
    if (!device)
        return 0;
    if (wish->reference)
        r = reference_bytes(runner, plan, model, dir, &job.reference, error);
    if (r < 0)
        return r;
    job.masters = runner->bf16 && plan->kind == GANTRY__VERSION_KIND__VERSION_POLICY && !model->lora;
    r = memory_look_at_device(model, &job, &need, &facts, error);
    if (r < 0)
        return error_prefix(error, r, "%s", dir);
    log_info("device memory", "device=%s need_mib=%" PRId64 " weights=%" PRId64 " reference=%" PRId64 " gradients=%" PRId64
             " optimiser=%" PRId64 " activations=%" PRId64 " workspace=%" PRId64 " free_mib=%zu recompute=%d shards_of_a_pass=%d",
             device->name, need.total >> 20, need.weights >> 20, need.reference >> 20, need.gradients >> 20, need.optimiser >> 20,
             need.activations >> 20, need.workspace >> 20, facts.memory_free >> 20, need.recompute, need.together);
    *ret = need;
    return device_need_check(&need, &job, device->name, &facts, error);
}

static int load_openvla(struct plan_runner *runner, const Gantry__Plan *plan, const char *dir, const struct parent_wish *wish,
                        struct trainer **ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct device_need need = {0};
    /* below adapters the base may rest as bf16; what is trained whole may not */
    int r = openvla_load_halves(dir, wants_adapters(runner, plan) ? OPENVLA_LARGE : -1, &model, error);

    if (r >= 0)
        r = add_heads(model, wish, runner->prm_history, runner->seed, error);
    if (r >= 0)
        r = fit_adapters(runner, plan, dir, model, error);
    if (r < 0)
        return r;
    if (runner->fast)
        params_use_fast(&model->params);
    r = check_device(runner, plan, model, wish, dir, &need, error);
    if (r < 0)
        return r;
    r = trainer_new(model, runner->threads, &runner->group, ret);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be made ready for training: %s", dir, device_error_text(model->params.device, r));
    TAKE_PTR(model);            /* the trainer's now */
    if (need.together) {
        shards_recompute((*ret)->shards, need.recompute);
        shards_together((*ret)->shards, need.together);
    }
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
    base = model->base ? strdup(model->base) : realpath(dir, NULL);
    if (!base)
        return error_set(error, errno, "%s: %s", dir, strerror(errno));
    spec.base = base;
    spec.targets = runner->lora_targets;
    return adapters_new(&adapted, &spec, runner->seed, error);
}

/* The backbone that prm.init names is copied into the run once, as prms/v000000; the versions trained on it name that, so that
 * they are as small as what was trained, and can be brought to other machines like any version. What is itself a version on
 * another run's backbone is not copied: its successors are whole. */
static int import_backbone(const struct plan_runner *runner, char dir[VERSION_PATH], const char **ret_base, struct error *error)
{
    struct manifest manifest = {.run = runner->run};
    char base[PATH_MAX], sha256[65];
    int r = base_link_read(dir, base, sha256, error);

    if (r != 0)
        return MIN(r, 0);
    r = version_import(runner->run_dir, GANTRY__VERSION_KIND__VERSION_PRM, 0, dir, &manifest, error);
    manifest_release(&manifest);
    if (r < 0)
        return error_prefix(error, r, "prm.init");
    *ret_base = "../v000000";
    return version_path(runner->run_dir, GANTRY__VERSION_KIND__VERSION_PRM, 0, dir);
}

/* check_device of a reward model with a backbone of its own. Pictures are as the suite draws them. */
static int check_backbone(const struct plan_runner *runner, struct qwen_vl *model, int batch, const char *dir,
                          struct error *error)
{
    int side = runner->config ? runner->config->image : 224, r;
    struct device_job job = {.use = model->adapters ? MEMORY_LORA : MEMORY_FULL, .batch = MAX(batch, 1),
                             .ranks = runner->group.ranks, .height = side, .width = side};
    struct device_facts facts;
    struct device_need need;
    const struct device *device;

    params_use_process_device(&model->params);
    device = model->params.device;
    if (!device)
        return 0;
    r = memory_look_at_device_prm(model, &job, &need, &facts, error);
    if (r < 0)
        return error_prefix(error, r, "%s", dir);
    log_info("device memory", "device=%s reward_model=1 need_mib=%" PRId64 " weights=%" PRId64 " gradients=%" PRId64
             " optimiser=%" PRId64 " activations=%" PRId64 " workspace=%" PRId64 " free_mib=%zu",
             device->name, need.total >> 20, need.weights >> 20, need.gradients >> 20, need.optimiser >> 20,
             need.activations >> 20, need.workspace >> 20, facts.memory_free >> 20);
    return device_need_check(&need, &job, device->name, &facts, error);
}

/* A reward model with a backbone of its own. */
static int load_backbone(struct plan_runner *runner, const Gantry__Plan *plan, char dir[VERSION_PATH],
                         const struct parent_wish *wish, struct trainer **ret, struct error *error)
{
    _cleanup_(qwen_vl_freep) struct qwen_vl *model = NULL;
    const char *base = NULL;
    int r = plan->parent == 0 ? import_backbone(runner, dir, &base, error) : 0;

    if (r >= 0)
        r = qwen_vl_load_halves(dir, QWEN_LARGE, &model, error);
    if (r >= 0 && plan->parent == 0 && qwen_vl_set_base(model, base) < 0)
        r = error_set(error, ENOMEM, "out of memory");
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
    if (runner->fast)
        params_use_fast(&model->params);
    r = check_backbone(runner, model, wish->batch, dir, error);
    if (r < 0)
        return r;
    r = trainer_new_reward(model, runner->threads, &runner->group, ret);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be made ready for training: %s", dir, error_text(NULL, r));
    TAKE_PTR(model);            /* the trainer's now */
    return 0;
}

/* A committed version that lacks a file was damaged by hand: trying again each minute would not bring it back. The run stops
 * (-EBADMSG), and goes on once it is there. */
static int removed(const char *dir, int r, struct error *error)
{
    struct error found = {0};

    if (r != -ENOENT)
        return r;
    if (error)
        found = *error;
    return error_set(error, EBADMSG, "%.300s; it was removed: restore %s, and `gantry up` goes on", error_text(&found, r), dir);
}

/* Versions that are merged have none; one that was committed with it does not do without. */
static int check_state_removed(const char *dir, struct error *error)
{
    _cleanup_(manifest_release) struct manifest manifest = {0};
    int r = manifest_read(dir, &manifest, error);

    if (r == -ENOENT)
        return 0;               /* nothing says that it was there */
    for (size_t i = 0; r >= 0 && i < manifest.n_files; i++)
        if (!strcmp(manifest.files[i].name, CHECKPOINT_STATE))
            return error_set(error, ENOENT, "%s/" CHECKPOINT_STATE ": %s", dir, strerror(ENOENT));
    return MIN(r, 0);
}

static int load_parent(struct plan_runner *runner, const Gantry__Plan *plan, const struct parent_wish *wish, struct trainer **ret,
                       struct error *error)
{
    _cleanup_(trainer_freep) struct trainer *trainer = NULL;
    char dir[VERSION_PATH];
    int r;

    if (snprintf(dir, sizeof dir, "%s/%s", runner->run_dir, plan->parent_dir) >= (int)sizeof dir)
        return error_set(error, ENAMETOOLONG, "the plan's parent directory has too long a path");
    if (access(dir, F_OK) < 0)  /* prm.init of the run file: not below the run directory */
        snprintf(dir, sizeof dir, "%s", plan->parent_dir);
    if (plan->kind == GANTRY__VERSION_KIND__VERSION_PRM && qwen_vl_is(dir))
        r = load_backbone(runner, plan, dir, wish, &trainer, error);
    else
        r = load_openvla(runner, plan, dir, wish, &trainer, error);
    if (r < 0)
        return removed(dir, r, error);
    /* below the first version lies what the run was given: of another kind, or of another run, whose stages have these numbers */
    r = plan->parent ? checkpoint_load_state(trainer, dir, error) : 0;
    if (r > 0)
        r = removed(dir, check_state_removed(dir, error), error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(trainer);
    return 0;
}

bool parent_is_on_reference(const struct plan_runner *runner, const struct trainer *trainer)
{
    return trainer->model && sits_on(runner, trainer->model, trainer->reference);
}

/* What a plan wants of a device is asked of what is free there when its parent is loaded (check_device). So it holds one kind of
 * model at a time, and nothing of an earlier stage, whose minibatches and reference were others: reading a version again costs
 * seconds, and what no longer fits in the middle of a plan costs the run. */
static void make_room(struct plan_runner *runner, const Gantry__Plan *plan)
{
    struct trainer **same = &runner->trainer[plan->kind], **other = &runner->trainer[1 - plan->kind];

    if (!device_process())
        return;
    *other = trainer_free(*other);
    if (*same && (*same)->stage != plan->stage + 1)
        *same = trainer_free(*same);
    if (plan->kind == GANTRY__VERSION_KIND__VERSION_PRM)
        runner->reference = reference_drop(runner->reference);
}

int parent_take(struct plan_runner *runner, const Gantry__Plan *plan, const struct parent_wish *wish, struct trainer **ret,
                struct error *error)
{
    struct trainer *held;
    int r;

    make_room(runner, plan);
    held = TAKE_PTR(runner->trainer[plan->kind]);
    if (held && (runner->version[plan->kind] != plan->parent ||
                 (plan->kind == GANTRY__VERSION_KIND__VERSION_PRM && plan->parent == 0) ||
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

int parent_load_reference(struct plan_runner *runner, uint64_t version, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    char dir[VERSION_PATH];
    int r;

    if (runner->reference && runner->reference->version == version)
        return 0;
    runner->reference = reference_drop(runner->reference);
    r = version_path(runner->run_dir, 0, version, dir);
    if (r >= 0)
        r = openvla_load_halves(dir, OPENVLA_LARGE, &model, error);
    if (r < 0)
        return error_prefix(error, removed(dir, r, error), "the policy that the stage started from");
    if (runner->fast)
        params_use_fast(&model->params);
    r = openvla_pack(model, false);
    if (r >= 0)
        runner->reference = reference_new(model, version);
    if (!runner->reference)
        return error_set(error, ENOMEM, "%s: out of memory", dir);
    TAKE_PTR(model);            /* the reference's now */
    return 0;
}
