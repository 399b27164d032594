/* cmd_model.c - `gantry model`: what can be done with a policy directory. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "nn/golden.h"
#include "nn/models/openvla.h"
#include "rl/labels.h"

static int usage(FILE *out, int status)
{
    fprintf(out,
            "usage: gantry model inspect DIR [--batch N] [--json]\n"
            "                                                    what is in a directory, and the memory it needs\n"
            "       gantry model verify DIR                      every problem of a checkpoint; exit status 1 if\n"
            "                                                    any\n"
            "       gantry model convert SRC DST [--dtype bf16|f16|f32] [--shard-size 5GB]\n"
            "                                                    the same weights again; side files NAME.pt of\n"
            "                                                    torch become NAME.safetensors; SRC may be one\n"
            "                                                    .pt file\n"
            "       gantry model export RUN[:VERSION] DIR [--dtype D]\n"
            "                                                    a run's policy (a number, best, sft; default:\n"
            "                                                    the newest) as a directory of its own, checked\n"
            "                                                    against its manifest first; prmN: its reward\n"
            "                                                    model of that number\n"
            "       gantry model merge BASE ADAPTER DIR [--dtype D]\n"
            "                                                    a PEFT adapter added to its base, in fp32,\n"
            "                                                    rounded once\n"
            "       gantry model new DIR [--spec DIR] [--seed N] [--dtype D]\n"
            "                                                    a random policy; configuration and tokenizer of\n"
            "                                                    --spec (default models/tiny-spec)\n"
            "       gantry model synth --like openvla-7b|openvla-1b|tiny DIR [--dtype D] [--shard-size 5GB]\n"
            "                          [--seed N]\n"
            "                                                    a random checkpoint of that size, streamed to\n"
            "                                                    disk\n"
            "       gantry model act DIR INSTRUCTION [--picture FILE] [--key DATASET] [--full] [--fast]\n"
            "                                                    one greedy answer as JSON, with time and memory\n"
            "                                                    taken\n"
            "       gantry model oft SRC DST --kind l1|tokens|laplace [--chunk 8] [--width N] [--blocks 2]\n"
            "                        [--state N] [--images N] [--film] [--scale .22]\n"
            "                                                    an OpenVLA as the start of an OpenVLA-OFT:\n"
            "                                                    chunks of actions in one pass, fresh heads. SRC\n"
            "                                                    of kind l1 to laplace: the same answers, drawn\n"
            "                                                    around; rl takes it\n"
            "       gantry model prompt DIR INSTRUCTION          the ids of an instruction\n"
            "       gantry model check --golden DIR [--dtype fp32|bf16] [--fast]\n"
            "                                                    every tensor against a reference's numbers in\n"
            "                                                    DIR (DIR/checkpoint, DIR/golden)\n");
    return status;
}

static int new(int argc, char **argv)
{
    const char *spec = model_option(&argc, argv, "--spec"), *seed_text = model_option(&argc, argv, "--seed");
    const char *dtype = model_option(&argc, argv, "--dtype");
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct error error = {0};
    char own[PATH_MAX], *end;
    unsigned long long seed;
    int r;

    if (argc != 1)
        return CLI_USAGE;
    seed = strtoull(seed_text ? seed_text : "1", &end, 10);
    if (*end || end == seed_text)
        return CLI_USAGE;
    r = spec ? 0 : beside_find("models/tiny-spec", own, sizeof own, &error);
    if (r >= 0)
        r = openvla_new(spec ? spec : own, seed, &model, &error);
    if (r >= 0)
        r = model_save(model, argv[0], dtype ? dtype : "F32", &error);
    if (r < 0)
        return model_fail(&error, r);
    printf("%s: %lld parameters, seed %llu\n", argv[0], (long long)model->params.numel, seed);
    return CLI_OK;
}

static int prompt(int argc, char **argv)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    _cleanup_free_ int32_t *ids = NULL;
    struct error error = {0};
    int n, r;

    if (argc != 2)
        return CLI_USAGE;
    r = openvla_load(argv[0], &model, &error);
    if (r >= 0)
        r = openvla_prompt(model, argv[1], &ids, &n);
    if (r < 0)
        return model_fail(&error, model ? openvla_prompt_failed(model, r, &error) : r);
    for (int i = 0; i < n; i++)
        printf("%s%d", i ? " " : "", ids[i]);
    printf("\n");
    return CLI_OK;
}

/* DIR/common/pseudo_labels.json of a set of reward models: what the learner would teach. Returns how many lists are wrong. */
static int check_labels(const char *dir)
{
    _cleanup_json_ json_t *root = NULL;
    char path[4096];
    int wrong = 0, n = 0;
    const char *frames;
    json_t *lists;

    snprintf(path, sizeof path, "%s/common/pseudo_labels.json", dir);
    root = json_load_file(path, 0, NULL);
    json_object_foreach(json_object_get(root, "labels"), frames, lists)
        for (int success = 0; success < 2; success++) {
            const json_t *want = json_object_get(lists, success ? "success" : "failed");
            int count = (int)json_array_size(want);
            _cleanup_free_ float *label = calloc((size_t)count + 1, sizeof *label);
            bool same = label && count > 0;

            if (same)
                prm_labels(count, success, label);
            for (int i = 0; i < count && same; i++)
                same = label[i] == (float)json_number_value(json_array_get(want, (size_t)i));
            wrong += !same;
            n++;
        }
    if (n)
        printf("%-68s %-14d %9d %9s  %-14s %s\n", "common/pseudo_labels: labels", n, wrong, "", "exact", wrong ? "FAIL" : "PASS");
    return wrong;
}

static int check(int argc, char **argv)
{
    const char *dir = model_option(&argc, argv, "--golden"), *dtype = model_option(&argc, argv, "--dtype");
    bool fast = model_flag(&argc, argv, "--fast");
    struct error error = {0};
    int r;

    if (!dir || !*dir || argc != 0 || (fast && dtype && strcmp(dtype, "bf16")) ||
        (dtype && strcmp(dtype, "fp32") && strcmp(dtype, "bf16")))
        return CLI_USAGE;
    r = fast ? golden_check_fast(dir, stdout, &error) : golden_check(dir, dtype, stdout, &error);
    if (r < 0)
        return model_fail(&error, r);
    return check_labels(dir) + r == 0 ? CLI_OK : CLI_FAILED;
}

int cmd_model(int argc, char **argv)
{
    static const struct cli_command verbs[] = {
        {"inspect", NULL, model_inspect}, {"verify", NULL, model_verify}, {"convert", NULL, model_convert},
        {"export", NULL, model_export},   {"new", NULL, new},             {"synth", NULL, model_synth},
        {"merge", NULL, model_merge},     {"act", NULL, model_act}, {"oft", NULL, model_oft},       {"prompt", NULL, prompt},
        {"check", NULL, check},
    };

    return cli_verb(verbs, ARRAY_SIZE(verbs), usage, argc, argv);
}
