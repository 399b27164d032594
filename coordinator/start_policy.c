#include "coordinator/start_policy.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "nn/models/openvla_start.h"
#include "run/ledger.h"

static int write_adapter(const struct run_config *config, const char *base, const char *dir, struct error *error)
{
    bool merge = strcmp(config->policy_train, "lora") != 0;

    log_info(merge ? "the start policy is merged" : "the start policy is trained on as an adapter", "adapter=%s base=%s",
             LOG_Q(config->policy_init), LOG_Q(base));
    return openvla_start_write(config->policy_init, base, merge, dir, error);
}

struct openvla_fit_ask start_policy_ask(const struct run_config *config)
{
    struct openvla_fit_ask ask = {.suite = config->suite, .chain = config->chain, .unnorm_key = config->policy_unnorm_key,
                                  .center_crop = config->policy_center_crop};

    for (int i = 0; i < config->n_stages; i++) {
        const struct stage_config *stage = &config->stages[i];

        ask.used |= stage->kind != STAGE_DEMOS;
        ask.imitates |= stage->kind == STAGE_SFT;
        if (stage->kind == STAGE_DEMOS && stage->demos.from[0] && !ask.data)
            ask.data = stage->demos.from;
    }
    return ask;
}

/* What the checkpoint leaves open is said in the run's copy. */
static int fit_to_suite(const struct run_config *config, const char *source, const char *dir, struct error *error)
{
    const struct openvla_fit_ask ask = start_policy_ask(config);
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct openvla_fit fit;
    char words[256];
    int r = openvla_open(source, NULL, &model, NULL, error);

    if (r >= 0)
        r = openvla_fit_find(model, &ask, &fit, error);
    if (r < 0 || !openvla_fit_changes(&fit))
        return r;
    openvla_fit_words(&fit, words);
    log_info("the start policy is fitted to the suite", "suite=%s policy=%s how=%s", config->suite, LOG_Q(source), LOG_Q(words));
    return openvla_fit_write(&fit, dir, error);
}

static int write_start(const struct run_config *config, const char *dir, struct error *error)
{
    char base[PATH_MAX];
    int r;

    if (openvla_start_is_adapter(config->policy_init)) {
        r = openvla_start_base(config->policy_init, config->policy_base, base, error);
        if (r >= 0)
            r = write_adapter(config, base, dir, error);
    } else {
        if (config->policy_base[0])
            return error_set(error, EINVAL, "%s is no PEFT adapter (no adapter_config.json), and policy.base names the base of "
                             "one: leave policy.base out", config->policy_init);
        snprintf(base, sizeof base, "%s", config->policy_init);
        log_info("the start policy is copied into the run", "policy=%s", LOG_Q(base));      /* a large one takes minutes */
        r = version_copy(base, dir, error);
    }
    return r < 0 ? r : fit_to_suite(config, base, dir, error);
}

int start_policy_import(const char *run_dir, const struct run_config *config, struct manifest *manifest, struct error *error)
{
    char dir[VERSION_PATH], final[VERSION_PATH];
    int r = version_path(run_dir, KIND_POLICY, 0, final);

    if (r < 0)
        return error_set(error, -r, "%s: path too long", run_dir);
    if (access(final, F_OK) == 0)
        return manifest_read(final, manifest, error);
    r = version_begin(run_dir, KIND_POLICY, 0, dir, error);
    if (r < 0)
        return r;
    manifest->kind = KIND_POLICY;
    manifest->number = 0;
    r = write_start(config, dir, error);
    if (r >= 0)
        r = version_commit(run_dir, dir, manifest, error);
    if (r < 0)
        version_discard(dir);
    return r == -EEXIST ? manifest_read(final, manifest, error) : r;
}
