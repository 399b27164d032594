/* model_options.c - what the verbs of `gantry model` read off their command lines. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/staged_dir.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "nn/models/openvla.h"
#include "nn/peft.h"

int model_fail(const struct error *error, int r)
{
    fprintf(stderr, "gantry model: %s\n", error_text(error, r));
    return CLI_FAILED;
}

static void remove_words(int *argc, char **argv, int at, int n)
{
    memmove(&argv[at], &argv[at + n], (size_t)(*argc - at - n) * sizeof(*argv));
    *argc -= n;
}

const char *model_option(int *argc, char **argv, const char *name)
{
    for (int i = 0; i < *argc; i++)
        if (!strcmp(argv[i], name)) {
            const char *value = i + 1 < *argc ? argv[i + 1] : "";

            remove_words(argc, argv, i, i + 1 < *argc ? 2 : 1);
            return value;
        }
    return NULL;
}

bool model_flag(int *argc, char **argv, const char *name)
{
    for (int i = 0; i < *argc; i++)
        if (!strcmp(argv[i], name)) {
            remove_words(argc, argv, i, 1);
            return true;
        }
    return false;
}

int model_size(const char *text, int64_t *ret, struct error *error)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}};
    char *end;
    double value = strtod(text, &end);

    for (size_t i = 0; i < ARRAY_SIZE(units); i++)
        if (end != text && !strcasecmp(end, units[i].unit) && value * units[i].bytes >= 1 && value * units[i].bytes < 1e18) {
            *ret = (int64_t)(value * units[i].bytes);
            return 0;
        }
    return error_set(error, EINVAL, "'%s': expected a size such as 5GB or 500MB", text);
}

int model_dtype(const char *text, int *ret, struct error *error)
{
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++)
        if (!strcasecmp(text, dtype_name((enum dtype)dtype)) || !strcmp(text, dtype_torch_name((enum dtype)dtype))) {
            *ret = dtype;
            return 0;
        }
    return error_set(error, EINVAL, "'%s': expected bf16, f16 or f32", text);
}

int model_is_adapter(const char *dir, struct hf_shards *ret_file, struct peft_config *ret_config, struct error *error)
{
    _cleanup_(peft_config_release) struct peft_config config = {0};
    char path[4096];
    int r;

    if ((size_t)snprintf(path, sizeof(path), "%s/config.json", dir) >= sizeof(path))
        return error_set(error, ENAMETOOLONG, "%s: the name is too long", dir);
    if (access(path, F_OK) == 0)
        return 0;
    snprintf(path, sizeof(path), "%s/adapter_config.json", dir);
    if (access(path, F_OK) < 0)
        return 0;
    r = peft_config_read(dir, &config, error);
    snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir);
    if (r >= 0)
        r = hf_shards_open_file(path, ret_file, error);
    if (r < 0)
        return r;
    *ret_config = config;
    config = (struct peft_config) {0};
    return 1;
}

int model_save(const struct openvla *model, const char *path, const char *dtype_text, struct error *error)
{
    _cleanup_(staged_dir_release) struct staged_dir dir = {0};
    int dtype = DTYPE_F32, r = dtype_text ? model_dtype(dtype_text, &dtype, error) : 0;

    if (r >= 0)
        r = staged_dir_open(&dir, path, error);
    if (r >= 0)
        r = openvla_save(model, dir.temporary, dtype_text ? dtype_name((enum dtype)dtype) : NULL, error);
    return r < 0 ? r : staged_dir_commit(&dir, error);
}
