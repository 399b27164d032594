/* model_verify.c - `gantry model verify DIR`: every problem of a checkpoint, one line each; the exit status says if any. */
#include <errno.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "nn/models/openvla.h"
#include "nn/models/qwen_vl.h"
#include "nn/peft.h"
#include "nn/torch_file.h"

static void print_problem(void *arg, const char *line)
{
    (void)arg;
    printf("%s\n", line);
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);

    return n > m && !strcmp(text + n - m, suffix);
}

static void check_values(const struct hf_shards *shards, struct hf_problems *all, int64_t *ret_bytes)
{
    int64_t bytes = 0;

    for (int s = 0; s < shards->n; s++)
        for (int i = 0; i < shards->file[s]->count; i++) {
            (void)hf_check_finite(shards, &shards->file[s]->list[i], all, NULL);
            bytes += (int64_t)shards->file[s]->list[i].bytes;
        }
    *ret_bytes = bytes;
}

/* Of an adapter without its base: every tensor is the A or B of some module, and its other half is there, of the same rank. */
static void check_adapter(const struct hf_shards *file, struct hf_problems *all)
{
    const struct safetensors *tensors = file->file[0];
    int pairs = 0;

    for (int i = 0; i < tensors->count; i++) {
        const struct st_tensor *tensor = &tensors->list[i], *other;
        _cleanup_(strbuf_release) struct strbuf name = STRBUF_INIT;
        bool is_a = ends_with(tensor->name, ".lora_A.weight"), is_b = ends_with(tensor->name, ".lora_B.weight");

        if (strstr(tensor->name, ".base_layer.weight"))
            continue;           /* PEFT's copy of an unchanged base weight */
        if (!is_a && !is_b) {
            (void)hf_problem(all, NULL, EINVAL, "%s: tensor %s is no A or B of a linear module", tensors->path, tensor->name);
            continue;
        }
        strbuf_add(&name, tensor->name, strlen(tensor->name) - strlen("A.weight"));
        strbuf_addf(&name, "%c.weight", is_a ? 'B' : 'A');
        other = safetensors_find(tensors, name.text);
        if (!other)
            (void)hf_problem(all, NULL, ENOENT, "%s: tensor %s is missing, the other half of %s", tensors->path, name.text,
                             tensor->name);
        else if (is_a && (tensor->ndim < 2 || other->ndim < 2 || tensor->dim[0] != other->dim[1]))
            (void)hf_problem(all, NULL, EINVAL, "%s: tensor %s: its rank is not that of %s", tensors->path, tensor->name,
                             other->name);
        pairs += is_a && other;
    }
    if (!pairs)
        (void)hf_problem(all, NULL, ENOENT, "%s: no adapter in it", tensors->path);
}

/* Names, shapes and dtypes by the architecture's tables; of an architecture without tables only what any checkpoint must be. */
static int open_checked(const char *dir, struct hf_problems *all, struct hf_shards *ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    _cleanup_(qwen_vl_freep) struct qwen_vl *prm = NULL;
    _cleanup_(peft_config_release) struct peft_config peft = {0};
    _cleanup_json_ json_t *config = NULL;
    const char *type;
    int r = model_is_adapter(dir, ret, &peft, error);

    if (r > 0)
        check_adapter(ret, all);
    if (r != 0)
        return r;
    if (qwen_vl_is(dir))
        return qwen_vl_open(dir, all, &prm, ret, error);
    r = hf_json(dir, "config.json", &config, error);
    if (r < 0)
        return r;
    type = json_string_value(json_object_get(config, "model_type"));
    if (type && !strcmp(type, "openvla"))
        return openvla_open(dir, all, &model, ret, error);
    r = hf_shards_open(dir, ret, error);
    if (r >= 0)
        printf("%s: model_type %s: names and shapes are not checked, there is no table for it\n", dir, type ? type : "(none)");
    return r;
}

/* Heads and other files beside the shards. */
static void check_side_file(const char *dir, const char *name, struct hf_problems *all)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    _cleanup_(torch_file_closep) struct torch_file *torch = NULL;
    _cleanup_(hf_shards_close) struct hf_shards alone = {0};
    struct error error = {0};
    int64_t bytes;
    int r;

    strbuf_addf(&path, "%s/%s", dir, name);
    if (ends_with(name, ".pt"))
        r = torch_file_open(path.text, &torch, &error);
    else
        r = hf_shards_open_file(path.text, &alone, &error);
    if (r < 0)
        (void)hf_problem(all, NULL, -r, "%s", error_text(&error, r));
    else
        check_values(&alone, all, &bytes);
}

static bool is_shard(const struct hf_shards *shards, const char *name)
{
    for (int i = 0; i < shards->n; i++) {
        const char *slash = strrchr(shards->file[i]->path, '/');

        if (!strcmp(slash ? slash + 1 : shards->file[i]->path, name))
            return true;
    }
    return false;
}

static void check_side_files(const char *dir, const struct hf_shards *shards, struct hf_problems *all)
{
    struct dirent **entries;
    int n = scandir(dir, &entries, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;

        if ((ends_with(name, ".safetensors") && !is_shard(shards, name)) || ends_with(name, ".pt"))
            check_side_file(dir, name, all);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

int model_verify(int argc, char **argv)
{
    _cleanup_(hf_shards_close) struct hf_shards shards = {.total_size = -1};
    struct hf_problems all = {.found = print_problem};
    struct error error = {0};
    int64_t bytes = 0;
    int tensors = 0, r;

    if (argc != 1)
        return CLI_USAGE;
    r = open_checked(argv[0], &all, &shards, &error);
    if (r < 0) {
        (void)hf_problem(&all, NULL, -r, "%s", error_text(&error, r));
    } else {
        check_values(&shards, &all, &bytes);
        check_side_files(argv[0], &shards, &all);
    }
    for (int i = 0; i < shards.n; i++)
        tensors += shards.file[i]->count;
    if (r >= 0 && shards.total_size >= 0 && shards.total_size != bytes)
        (void)hf_problem(&all, NULL, EINVAL, "%s/model.safetensors.index.json: total_size: found %lld, expected %lld", argv[0],
                         (long long)shards.total_size, (long long)bytes);
    if (all.count)
        printf("%s: %d problem%s\n", argv[0], all.count, all.count == 1 ? "" : "s");
    else
        printf("%s: good: %d tensors, %lld bytes, every value finite\n", argv[0], tensors, (long long)bytes);
    return all.count ? CLI_FAILED : CLI_OK;
}
