/* model_write.c - the verbs of `gantry model` that write a directory: convert, synth, export, merge. Each writes it wholly or not
 * at all. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/staged_dir.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/run_open.h"
#include "nn/hf_convert.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/openvla_synth.h"
#include "nn/models/qwen_vl.h"
#include "run/ledger.h"
#include "run/manifest.h"

static bool ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);

    return n > m && !strcmp(text + n - m, suffix);
}

int model_convert(int argc, char **argv)
{
    const char *dtype_text = model_option(&argc, argv, "--dtype"), *size_text = model_option(&argc, argv, "--shard-size");
    _cleanup_(staged_dir_release) struct staged_dir dir = {0};
    struct hf_conversion how = {.change_dtype = dtype_text != NULL};
    struct hf_converted done = {0};
    struct error error = {0};
    int dtype = DTYPE_F32, r = 0;

    if (argc != 2)
        return CLI_USAGE;
    if (dtype_text)
        r = model_dtype(dtype_text, &dtype, &error);
    if (r >= 0 && size_text)
        r = model_size(size_text, &how.shard_bytes, &error);
    if (r >= 0 && ends_with(argv[0], ".pt")) {
        r = hf_convert_torch(argv[0], argv[1], &done.tensors, &error);
        if (r >= 0)
            printf("%s: %d tensors\n", argv[1], done.tensors);
        return r < 0 ? model_fail(&error, r) : CLI_OK;
    }
    how.dtype = (enum dtype)dtype;
    if (r >= 0)
        r = staged_dir_open(&dir, argv[1], &error);
    if (r >= 0)
        r = hf_convert(argv[0], dir.temporary, &how, &done, &error);
    if (r >= 0)
        r = staged_dir_commit(&dir, &error);
    if (r < 0)
        return model_fail(&error, r);
    printf("%s: %d tensors, %lld bytes", argv[1], done.tensors, (long long)done.bytes);
    if (done.side_files)
        printf(", %d file%s beside them", done.side_files, done.side_files == 1 ? "" : "s");
    printf("\n");
    return CLI_OK;
}

static int no_such_size(const char *name)
{
    const struct openvla_size *sizes;
    int n;

    sizes = openvla_sizes(&n);
    fprintf(stderr, "gantry model: --like %s: expected one of\n", name);
    for (int i = 0; i < n; i++)
        fprintf(stderr, "  %-12s %s\n", sizes[i].name, sizes[i].help);
    return CLI_USAGE;
}

int model_synth(int argc, char **argv)
{
    const char *like = model_option(&argc, argv, "--like"), *dtype_text = model_option(&argc, argv, "--dtype");
    const char *size_text = model_option(&argc, argv, "--shard-size"), *seed_text = model_option(&argc, argv, "--seed");
    _cleanup_(staged_dir_release) struct staged_dir dir = {0};
    const struct openvla_size *size = like ? openvla_size_find(like) : NULL;
    struct openvla_synthesis done;
    struct error error = {0};
    int64_t shard_bytes = 0;
    char *end = NULL;
    uint64_t seed = seed_text ? strtoull(seed_text, &end, 10) : 1;
    int dtype = DTYPE_BF16, r = 0;

    if (argc != 1 || !like || (end && (*end || end == seed_text)))
        return CLI_USAGE;
    if (!size)
        return no_such_size(like);
    if (dtype_text)
        r = model_dtype(dtype_text, &dtype, &error);
    if (r >= 0 && size_text)
        r = model_size(size_text, &shard_bytes, &error);
    if (r >= 0)
        r = staged_dir_open(&dir, argv[0], &error);
    if (r >= 0)
        r = openvla_synth(size, dir.temporary, (enum dtype)dtype, seed, shard_bytes, &done, &error);
    if (r >= 0)
        r = staged_dir_commit(&dir, &error);
    if (r < 0)
        return model_fail(&error, r);
    printf("%s: %d tensors, %lld parameters, %lld bytes, seed %llu\n", argv[0], done.tensors, (long long)done.parameters,
           (long long)done.bytes, (unsigned long long)seed);
    return CLI_OK;
}

/* RUN:VERSION in two; without one, or `last`, the newest committed. prmN: the reward model's. Writes a NUL over the colon. */
static int choose_version(char *run, int *ret_kind, uint64_t *ret, struct error *error)
{
    char *colon = strrchr(run, ':'), *end;
    const char *word = colon ? colon + 1 : "", *digits = word;

    *ret_kind = KIND_POLICY;
    if (!*word || strchr(word, '/') || access(run, F_OK) == 0)       /* a directory's name may have one */
        return run_named_policy(run, "last", ret, error);
    if (!strncmp(digits, "prm", 3)) {
        *ret_kind = KIND_PRM;
        digits += 3;
    }
    digits += *digits == 'v';
    *ret = strtoull(digits, &end, 10);
    if (end != digits && !*end) {
        *colon = '\0';
        return 0;
    }
    if (*ret_kind == KIND_PRM)
        return error_set(error, EINVAL, "%s: found version '%s', expected prm and a number", run, word);
    *colon = '\0';
    return run_named_policy(run, word, ret, error);
}

/* All files that the manifest names are removed together (version_drop). */
static bool has_weights(const char *run, int kind, uint64_t number)
{
    _cleanup_(manifest_release) struct manifest manifest = {0};
    char dir[VERSION_PATH], path[VERSION_PATH + sizeof manifest.files->name];

    if (version_path(run, kind, number, dir) < 0 || manifest_read(dir, &manifest, NULL) < 0 || !manifest.n_files)
        return false;
    snprintf(path, sizeof path, "%s/%s", dir, manifest.files[0].name);
    return access(path, F_OK) == 0;
}

/* Of most versions only the manifest stays: which can be had. */
static int refuse_removed(const char *run, int kind, uint64_t number, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf there = STRBUF_INIT;
    _cleanup_free_ uint64_t *numbers = NULL;
    size_t n = 0;

    if (version_list(run, kind, &numbers, &n) < 0)
        n = 0;
    for (size_t i = 0; i < n; i++)
        if (has_weights(run, kind, numbers[i]))
            strbuf_addf(&there, "%s%" PRIu64, there.length ? ", " : "", numbers[i]);
    return error_set(error, ENOENT, "%s: the weights of version %" PRIu64 " have been removed; there are those of %s", run,
                     number, there.length ? there.text : "none");
}

static int export_policy(const char *from, const char *to, const char *dtype, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    int r = openvla_load(from, &model, error);

    if (r >= 0 && model->lora)
        r = openvla_lora_merge(model, error);
    return r < 0 ? r : model_save(model, to, dtype, error);
}

/* A reward model of Qwen-VL: backbone, head, and adapters merged into the backbone. */
static int export_backbone(const char *from, const char *to, const char *dtype_text, struct error *error)
{
    _cleanup_(staged_dir_release) struct staged_dir dir = {0};
    _cleanup_(qwen_vl_freep) struct qwen_vl *model = NULL;
    int dtype = DTYPE_F32, r = dtype_text ? model_dtype(dtype_text, &dtype, error) : 0;

    if (r >= 0)
        r = qwen_vl_load(from, &model, error);
    if (r >= 0 && model->adapters) {
        struct adapted adapted = qwen_vl_adapted(model);

        r = adapters_merge(&adapted, error);
    }
    if (r >= 0)
        r = staged_dir_open(&dir, to, error);
    if (r >= 0)
        r = qwen_vl_save(model, dir.temporary, dtype_text ? dtype_name((enum dtype)dtype) : NULL, error);
    return r < 0 ? r : staged_dir_commit(&dir, error);
}

int model_export(int argc, char **argv)
{
    const char *dtype = model_option(&argc, argv, "--dtype");
    _cleanup_(manifest_release) struct manifest manifest = {0};
    struct error error = {0};
    char dir[VERSION_PATH];
    uint64_t number = 0;
    int kind, r;

    if (argc != 2)
        return CLI_USAGE;
    r = choose_version(argv[0], &kind, &number, &error);
    if (r >= 0)
        r = version_path(argv[0], kind, number, dir);
    if (r >= 0)
        r = manifest_read(dir, &manifest, &error);
    if (r >= 0 && !has_weights(argv[0], kind, number))
        r = refuse_removed(argv[0], kind, number, &error);
    if (r >= 0)
        r = manifest_verify(dir, &manifest, NULL, &error);
    if (r >= 0)
        r = qwen_vl_is(dir) ? export_backbone(dir, argv[1], dtype, &error) : export_policy(dir, argv[1], dtype, &error);
    if (r < 0)
        return model_fail(&error, r);
    printf("%s: %s %llu of %s\n", argv[1], kind == KIND_PRM ? "reward model" : "version", (unsigned long long)number, argv[0]);
    return CLI_OK;
}

int model_merge(int argc, char **argv)
{
    const char *dtype = model_option(&argc, argv, "--dtype");
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct error error = {0};
    int r;

    if (argc != 3)
        return CLI_USAGE;
    r = openvla_load(argv[0], &model, &error);
    if (r >= 0)
        r = openvla_lora_load(model, argv[1], &error);
    if (r >= 0)
        r = openvla_lora_merge(model, &error);
    if (r >= 0)
        r = model_save(model, argv[2], dtype, &error);
    if (r < 0)
        return model_fail(&error, r);
    printf("%s: %s with the adapter %s\n", argv[2], argv[0], argv[1]);
    return CLI_OK;
}
