#include "nn/models/openvla_start.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "nn/base_link.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_lora.h"
#include "nn/peft.h"

static bool has(const char *dir, const char *name)
{
    char path[PATH_MAX];

    return (size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) < sizeof(path) && access(path, F_OK) == 0;
}

bool openvla_start_is_adapter(const char *dir)
{
    return has(dir, "adapter_config.json");
}

static int named_base(const char *dir, char ret[PATH_MAX], struct error *error)
{
    _cleanup_(peft_config_release) struct peft_config config = {0};
    int r = base_link_follow(dir, ret, error);

    if (r != 0)
        return MIN(r, 0);
    r = peft_config_read(dir, &config, error);
    if (r < 0)
        return r;
    if (!config.base)
        return error_set(error, ENOENT,
                         "%s/adapter_config.json: base_model_name_or_path is not there: name the base's directory (policy.base)",
                         dir);
    if (strlen(config.base) >= PATH_MAX || !has(config.base, "config.json"))
        return error_set(error, ENOENT,
                         "%s/adapter_config.json: base_model_name_or_path is %s, which is no model directory here: name the "
                         "base's directory (policy.base)",
                         dir, config.base);
    snprintf(ret, PATH_MAX, "%s", config.base);
    return 0;
}

int openvla_start_base(const char *dir, const char *given, char ret[PATH_MAX], struct error *error)
{
    char found[PATH_MAX];
    int r = 0;

    if (*given && strlen(given) >= sizeof(found))
        return error_set(error, ENAMETOOLONG, "%s: path too long", given);
    if (*given)
        snprintf(found, sizeof(found), "%s", given);
    else if (has(dir, "config.json") && !has(dir, "base.json"))
        snprintf(found, sizeof(found), "%s", dir);
    else
        r = named_base(dir, found, error);
    if (r < 0)
        return r;
    if (!has(found, "config.json"))
        return error_set(error, ENOENT,
                         "%s: no config.json in it: name the directory of the base that the adapter %s was trained on",
                         found, dir);
    if (strcmp(found, dir) && openvla_start_is_adapter(found))
        return error_set(error, EINVAL,
                         "%s is an adapter itself, and cannot be the base of %s: `gantry model merge` makes a checkpoint of it",
                         found, dir);
    memcpy(ret, found, sizeof(found));
    return 0;
}

static int copy_file(const char *from, const char *to, const char *name, struct error *error)
{
    char source[PATH_MAX + 256], target[PATH_MAX + 256];
    int r;

    snprintf(source, sizeof(source), "%s/%s", from, name);
    snprintf(target, sizeof(target), "%s/%s", to, name);
    r = file_copy(source, target);
    return r < 0 ? error_set(error, -r, "%s: copying to %s failed: %s", source, target, strerror(-r)) : 0;
}

/* Files of what is trained whole beside an adapter. */
static const char *const heads[] = {"value_head", "action_head", "proprio_projector", "scale_head", "vision_backbone"};

static bool has_head(const char *dir, size_t i)
{
    char name[64];

    snprintf(name, sizeof(name), "%s.safetensors", heads[i]);
    return has(dir, name);
}

/* The base's of a head that the adapter has itself, also as the original training script writes them. */
static bool is_replaced(const char *name, const char *adapter)
{
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
        size_t n = strlen(heads[i]);

        if (!strncmp(name, heads[i], n) && (!strcmp(name + n, ".safetensors") || !strncmp(name + n, "--", 2)) &&
            has_head(adapter, i))
            return true;
    }
    return false;
}

/* What lies beside a model and is not of it, or is another's here. */
static bool stays_behind(const char *name, const char *adapter)
{
    static const char *const names[] = {"manifest.json", "base.json", "train_state.safetensors", "training.json",
                                        "adapter_config.json", "adapter_model.safetensors"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(name, names[i]))
            return true;
    return name[0] == '.' || is_replaced(name, adapter);
}

static int copy_base(const char *base, const char *to, const char *adapter, struct error *error)
{
    struct dirent **entries;
    int n = scandir(base, &entries, NULL, alphasort), r = 0;

    if (n < 0)
        return error_set(error, errno, "%s: %s", base, strerror(errno));
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX + 256];
        struct stat st;

        snprintf(path, sizeof(path), "%s/%s", base, entries[i]->d_name);
        if (r >= 0 && !strncmp(entries[i]->d_name, "vision_backbone--", 17) && is_replaced(entries[i]->d_name, adapter))
            r = error_set(error, EINVAL,
                          "%s: it may hold the vision towers, too, and the adapter has its own vision_backbone.safetensors: "
                          "`gantry model convert` the base first",
                          path);
        if (r >= 0 && !stays_behind(entries[i]->d_name, adapter) && stat(path, &st) == 0 && S_ISREG(st.st_mode))
            r = copy_file(base, to, entries[i]->d_name, error);
        free(entries[i]);
    }
    free(entries);
    return r;
}

static int write_both(const char *adapter, const char *base, const char *to, struct error *error)
{
    int r = copy_base(base, to, adapter, error);

    if (r >= 0)
        r = copy_file(adapter, to, "adapter_config.json", error);
    if (r >= 0)
        r = copy_file(adapter, to, "adapter_model.safetensors", error);
    for (size_t i = 0; i < ARRAY_SIZE(heads) && r >= 0; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s.safetensors", heads[i]);
        r = has_head(adapter, i) ? copy_file(adapter, to, name, error) : 0;
    }
    return r;
}

int openvla_start_write(const char *adapter, const char *base, bool merge, const char *to, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    int r = openvla_adapter_load(adapter, base, NULL, merge ? -1 : OPENVLA_LARGE, &model, error);

    if (r < 0)
        return r;
    if (!merge)
        return write_both(adapter, base, to, error);
    r = openvla_lora_merge(model, error);
    return r < 0 ? r : openvla_save(model, to, NULL, error);
}
