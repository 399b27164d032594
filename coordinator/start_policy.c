#include "coordinator/start_policy.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "nn/models/openvla_start.h"
#include "run/ledger.h"

static int import_adapter(const char *run_dir, const struct run_config *config, struct manifest *manifest, struct error *error)
{
    bool merge = strcmp(config->policy_train, "lora") != 0;
    char dir[VERSION_PATH], base[PATH_MAX];
    int r = openvla_start_base(config->policy_init, config->policy_base, base, error);

    if (r < 0)
        return r;
    r = version_begin(run_dir, KIND_POLICY, 0, dir, error);
    if (r < 0)
        return r;
    log_info(merge ? "the start policy is merged" : "the start policy is trained on as an adapter", "adapter=%s base=%s",
             LOG_Q(config->policy_init), LOG_Q(base));
    manifest->kind = KIND_POLICY;
    manifest->number = 0;
    r = openvla_start_write(config->policy_init, base, merge, dir, error);
    if (r >= 0)
        r = version_commit(run_dir, dir, manifest, error);
    if (r < 0)
        version_discard(dir);
    return r;
}

int start_policy_import(const char *run_dir, const struct run_config *config, struct manifest *manifest, struct error *error)
{
    char final[VERSION_PATH];
    int r = version_path(run_dir, KIND_POLICY, 0, final);

    if (r < 0)
        return error_set(error, -r, "%s: path too long", run_dir);
    if (access(final, F_OK) == 0)
        return manifest_read(final, manifest, error);
    if (openvla_start_is_adapter(config->policy_init)) {
        r = import_adapter(run_dir, config, manifest, error);
        return r == -EEXIST ? manifest_read(final, manifest, error) : r;
    }
    if (config->policy_base[0])
        return error_set(error, EINVAL, "%s is no PEFT adapter (no adapter_config.json), and policy.base names the base of one: "
                         "leave policy.base out", config->policy_init);
    log_info("the start policy is copied into the run", "policy=%s", LOG_Q(config->policy_init));   /* a large one takes minutes */
    return version_import(run_dir, KIND_POLICY, 0, config->policy_init, manifest, error);
}
