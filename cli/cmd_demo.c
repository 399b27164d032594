/* cmd_demo.c - `gantry demo`: the main job on the built-in suite, from a shipped policy to a report, in one command. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>

#include "cli/cli.h"
#include "cli/json_at.h"
#include "cli/up.h"

/* deploy/demo.yaml, as it was when this was built */
__asm__(".section .rodata\n"
        "demo_yaml: .incbin \"deploy/demo.yaml\"\n"
        "demo_yaml_end: .byte 0\n"
        ".previous\n");
extern const char demo_yaml[], demo_yaml_end[];

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry demo [--seed N] [--dir RUN] [--config]\n"
                 "Demonstrations, imitation, a reward model, reinforcement learning, a test on held-out states, a\n"
                 "report.\n"
                 "  --seed N   another seed (default 7); its run directory is runs/demo-seed-N\n"
                 "  --dir RUN  the run directory (default runs/demo)\n"
                 "  --config   print the configuration and end: a starting point for your own\n");
    return status;
}

static double percent(const json_t *summary, const char *key) { return 100 * number_at(summary, key); }

/* The headline, and the report. The summary is there once the last stage has ended. */
static int conclude(const struct run_config *config)
{
    char path[PATH_MAX];
    json_t *summary;

    snprintf(path, sizeof path, "%s/summary.json", config->dir);
    summary = json_load_file(path, 0, NULL);
    if (!summary) {
        printf("gantry: the run has not ended yet; the same command goes on from here\n");
        return CLI_OK;
    }
    printf("gantry: success on held-out states: demonstrator %.1f %%, imitation %.1f %%, reinforcement learning %.1f %%\n",
           percent(summary, "success_demonstrator"), percent(summary, "success_before"), percent(summary, "success_after"));
    json_decref(summary);
    return up_report(config);
}

int cmd_demo(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", required_argument, NULL, 's'}, {"dir", required_argument, NULL, 'd'}, {"config", no_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'}, {0}};
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    struct error error = {0};
    char *end;
    int option, r;

    r = config ? run_config_parse(demo_yaml, (size_t)(demo_yaml_end - demo_yaml), "demo.yaml", config, &error) : -ENOMEM;
    while (r == 0 && (option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        switch (option) {
        case 's':
            config->seed = strtoull(optarg, &end, 10);
            if (end == optarg || *end)
                return usage(stderr, CLI_USAGE);
            snprintf(config->dir, sizeof config->dir, "runs/demo-seed-%llu", (unsigned long long)config->seed);
            break;
        case 'd': snprintf(config->dir, sizeof config->dir, "%s", optarg); break;
        case 'c': fwrite(demo_yaml, 1, (size_t)(demo_yaml_end - demo_yaml), stdout); return CLI_OK;
        case 'h': return usage(stdout, CLI_OK);
        default: return usage(stderr, CLI_USAGE);
        }
    }
    if (r == 0 && optind != argc)
        return usage(stderr, CLI_USAGE);
    if (r < 0) {
        fprintf(stderr, "gantry demo: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    r = up_run(config, false);
    return r == CLI_OK ? conclude(config) : r;
}
