/* cmd_model.c - `gantry model`: what can be done with a policy directory. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "base/staged_dir.h"
#include "cli/cli.h"
#include "nn/golden.h"
#include "nn/models/openvla.h"
#include "nn/models/openvla_lora.h"
#include "run/ledger.h"
#include "run/manifest.h"

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: gantry model inspect DIR                            what is in a policy directory\n"
            "       gantry model new DIR [--spec DIR] [--seed N] [--dtype F32|BF16]\n"
            "                                                           a random policy; configuration and tokenizer of --spec\n"
            "                                                           (default models/tiny-spec)\n"
            "       gantry model export RUN[:VERSION] DIR [--dtype D]   a run's policy (default: the newest) as a directory of\n"
            "                                                           its own, checked against its manifest first\n"
            "       gantry model merge BASE ADAPTER DIR [--dtype D]     a PEFT adapter added to its base, in fp32, rounded once\n"
            "       gantry model prompt DIR INSTRUCTION                 the ids of an instruction\n"
            "       gantry model check --golden DIR                     every tensor against the reference's numbers in DIR\n"
            "                                                           (DIR/checkpoint, DIR/golden)\n");
    return status;
}

static int fail(const struct error *error, int r)
{
    fprintf(stderr, "gantry model: %s\n", error_text(error, r));
    return CLI_FAILED;
}

/* The value behind `name`, removed from argv; NULL: not there. "" when nothing follows. */
static const char *take_option(int *argc, char **argv, const char *name)
{
    for (int i = 0; i < *argc; i++)
        if (!strcmp(argv[i], name)) {
            const char *value = i + 1 < *argc ? argv[i + 1] : "";
            int gone = i + 1 < *argc ? 2 : 1;

            memmove(&argv[i], &argv[i + gone], (size_t)(*argc - i - gone) * sizeof(*argv));
            *argc -= gone;
            return value;
        }
    return NULL;
}

static void print_tower(const char *name, const struct openvla_tower *t)
{
    printf("%-12s dim %d, %d blocks (%d run), %d heads, mlp %d, patch %d, %d prefix tokens\n", name, t->dim, t->depth,
           t->depth - 1, t->heads, t->mlp, t->patch, t->prefix);
}

static int inspect(int argc, char **argv)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    const struct openvla_config *c;
    struct error error = {0};
    int64_t total = 0, frozen = 0;
    int r;

    if (argc != 1)
        return usage(stderr, CLI_USAGE);
    r = openvla_load(argv[0], &model, &error);
    if (r < 0)
        return fail(&error, r);
    c = &model->config;
    for (int i = 0; i < model->params.count; i++) {
        total += model->params.list[i]->numel;
        frozen += model->params.list[i]->frozen ? model->params.list[i]->numel : 0;
    }
    printf("%-12s %lld in %d tensors, %lld of them never run\n", "parameters", (long long)total, model->params.count,
           (long long)frozen);
    printf("%-12s %dx%d, %d patches\n", "image", c->image_height, c->image_width, c->patches);
    print_tower("dinov2", &c->tower[0]);
    print_tower("siglip", &c->tower[1]);
    printf("%-12s hidden %d, %d layers, %d heads, mlp %d, rms eps %g, rope theta %g\n", "llama", c->hidden, c->layers, c->heads,
           c->intermediate, (double)c->rms_eps, (double)c->rope_theta);
    printf("%-12s %d ids, padded %d; actions %d..%d, pad %d, empty %d\n", "vocabulary", c->vocab, c->vocab_padded,
           c->vocab - OPENVLA_ACTION_BINS, c->vocab - 1, c->pad_id, c->empty_id);
    if (c->value_width)
        printf("%-12s width %d, %d extra inputs\n", "value head", c->value_width, c->value_inputs);
    if (c->reward_width)
        printf("%-12s width %d\n", "reward head", c->reward_width);
    for (int i = 0; i < model->n_stats; i++)
        printf("%-12s %s, %d action dims\n", i ? "" : "datasets", model->stats[i].key, model->stats[i].dims);
    return CLI_OK;
}

/* The model's directory, whole or not at all. dtype NULL: as it was read. */
static int save(const struct openvla *model, const char *path, const char *dtype, struct error *error)
{
    _cleanup_(staged_dir_release) struct staged_dir dir = {0};
    int r = staged_dir_open(&dir, path, error);

    if (r >= 0)
        r = openvla_save(model, dir.temporary, dtype, error);
    return r < 0 ? r : staged_dir_commit(&dir, error);
}

static int new(int argc, char **argv)
{
    const char *spec = take_option(&argc, argv, "--spec"), *seed_text = take_option(&argc, argv, "--seed");
    const char *dtype = take_option(&argc, argv, "--dtype");
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct error error = {0};
    unsigned long long seed;
    char *end;
    int r;

    if (argc != 1)
        return usage(stderr, CLI_USAGE);
    seed = strtoull(seed_text ? seed_text : "1", &end, 10);
    if (*end || end == seed_text)
        return usage(stderr, CLI_USAGE);
    r = openvla_new(spec ? spec : "models/tiny-spec", seed, &model, &error);
    if (r >= 0)
        r = save(model, argv[0], dtype ? dtype : "F32", &error);
    if (r < 0)
        return fail(&error, r);
    printf("%s: %lld parameters, seed %llu\n", argv[0], (long long)model->params.numel, seed);
    return CLI_OK;
}

/* RUN:VERSION in two; without a number the newest committed. Writes a NUL over the colon. */
static int choose_version(char *run, uint64_t *ret, struct error *error)
{
    _cleanup_free_ uint64_t *numbers = NULL;
    char *colon = strrchr(run, ':'), *end;
    size_t n = 0;
    int r;

    if (colon && colon[1] && !strchr(colon, '/')) {
        *ret = strtoull(colon + (colon[1] == 'v' ? 2 : 1), &end, 10);
        if (*end)
            return error_set(error, EINVAL, "%s: found version '%s', expected a number", run, colon + 1);
        *colon = '\0';
        return 0;
    }
    r = version_list(run, KIND_POLICY, &numbers, &n);
    if (r < 0 || n == 0)
        return error_set(error, r < 0 ? -r : ENOENT, "%s: no policy version", run);
    *ret = numbers[n - 1];
    return 0;
}

static int export(int argc, char **argv)
{
    const char *dtype = take_option(&argc, argv, "--dtype");
    _cleanup_(manifest_release) struct manifest manifest = {0};
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct error error = {0};
    char dir[VERSION_PATH];
    uint64_t number = 0;
    int r;

    if (argc != 2)
        return usage(stderr, CLI_USAGE);
    r = choose_version(argv[0], &number, &error);
    if (r >= 0)
        r = version_path(argv[0], KIND_POLICY, number, dir);
    if (r >= 0)
        r = manifest_read(dir, &manifest, &error);
    if (r >= 0)
        r = manifest_verify(dir, &manifest, true, &error);
    if (r >= 0)
        r = openvla_load(dir, &model, &error);
    if (r >= 0 && model->lora)
        r = openvla_lora_merge(model, &error);
    if (r >= 0)
        r = save(model, argv[1], dtype, &error);
    if (r < 0)
        return fail(&error, r);
    printf("%s: version %llu of %s\n", argv[1], (unsigned long long)number, argv[0]);
    return CLI_OK;
}

static int merge(int argc, char **argv)
{
    const char *dtype = take_option(&argc, argv, "--dtype");
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct error error = {0};
    int r;

    if (argc != 3)
        return usage(stderr, CLI_USAGE);
    r = openvla_load(argv[0], &model, &error);
    if (r >= 0)
        r = openvla_lora_load(model, argv[1], &error);
    if (r >= 0)
        r = openvla_lora_merge(model, &error);
    if (r >= 0)
        r = save(model, argv[2], dtype, &error);
    if (r < 0)
        return fail(&error, r);
    printf("%s: %s with the adapter %s\n", argv[2], argv[0], argv[1]);
    return CLI_OK;
}

static int prompt(int argc, char **argv)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    _cleanup_free_ int32_t *ids = NULL;
    struct error error = {0};
    int n, r;

    if (argc != 2)
        return usage(stderr, CLI_USAGE);
    r = openvla_load(argv[0], &model, &error);
    if (r >= 0)
        r = openvla_prompt(model, argv[1], &ids, &n);
    if (r < 0)
        return fail(&error, r);
    for (int i = 0; i < n; i++)
        printf("%s%d", i ? " " : "", ids[i]);
    printf("\n");
    return CLI_OK;
}

static int check(int argc, char **argv)
{
    const char *dir = take_option(&argc, argv, "--golden");
    struct error error = {0};
    int r;

    if (!dir || !*dir || argc != 0)
        return usage(stderr, CLI_USAGE);
    r = golden_check(dir, stdout, &error);
    if (r < 0)
        return fail(&error, r);
    return r == 0 ? CLI_OK : CLI_FAILED;
}

int cmd_model(int argc, char **argv)
{
    static const struct cli_command verbs[] = {
        {"inspect", NULL, inspect}, {"new", NULL, new}, {"export", NULL, export}, {"merge", NULL, merge},
        {"prompt", NULL, prompt}, {"check", NULL, check},
    };

    if (argc < 2)
        return usage(stderr, CLI_USAGE);
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help"))
            return usage(stdout, CLI_OK);
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        if (!strcmp(argv[1], verbs[i].name))
            return verbs[i].run(argc - 2, argv + 2);
    fprintf(stderr, "gantry model: there is no '%s'\n", argv[1]);
    return usage(stderr, CLI_USAGE);
}
