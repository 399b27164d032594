/* cmd_ablate.c - `gantry ablate CONFIG`: which part of the method brings what, by one command. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "cli/ablate.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/up.h"
#include "cli/up_config.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry ablate CONFIG [options]\n"
                 "Plays the ladder of the method's parts from a run's configuration (stages demos, sft, rollouts, prm,\n"
                 "rl, eval): for each seed one start, and from it every rung in a run directory of its own; all are\n"
                 "tested on the same states. Interrupted and called again it goes on.\n"
                 "At the end: DIR/ablation.json, DIR/ablation.png and a table.\n"
                 "  --seeds N      training seeds, from run.seed on (3)\n"
                 "  --rungs LIST   some of them (all):\n");
    for (int i = 0; i < RUNGS; i++)
        fprintf(out, "                   %-6s %s\n", ablate_rungs[i].name, ablate_rungs[i].title);
    fprintf(out, "  --search N     candidates of F's and F''s look-ahead (8); its other settings are the eval stage's\n"
                 "  --dir DIR      where the runs are (the configuration's run.dir with -ladder behind)\n"
                 "  --measure      only measure what has been played\n"
                 "  --dry-run      only list what would be done\n"
                 "  --json         the result as JSON on stdout in place of the table (progress goes to stderr)\n");
    return status;
}

static int parse_rungs(char *text, bool *ret)
{
    char *save = NULL;

    for (char *word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        int i = 0;

        while (i < RUNGS && strcmp(ablate_rungs[i].name, word) != 0)
            i++;
        if (i == RUNGS) {
            fprintf(stderr, "gantry ablate: --rungs: there is no rung '%s'; `gantry ablate --help` lists them\n", word);
            return -ERANGE;
        }
        ret[i] = true;
    }
    return 0;
}

static int parse_number(const char *option, const char *text, int most, int *ret)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (end == text || *end || value < 1 || value > most) {
        fprintf(stderr, "gantry ablate: --%s %s: a number from 1 to %d\n", option, text, most);
        return -ERANGE;
    }
    *ret = (int)value;
    return 0;
}

/* With --json stdout is the result's alone. */
static int play(const struct ablate *a, bool json, struct error *error)
{
    int out = json ? stdout_aside() : -1, r = ablate_play(a, error);

    return out >= 0 && stdout_back(out) < 0 && r == 0 ? error_set(error, EIO, "standard output is gone") : r;
}

static int finish(const struct ablate *a, bool json, struct error *error)
{
    _cleanup_(ablate_result_release) struct ablate_result result = {0};
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    char path[PATH_MAX];
    int r = ablate_measure(a, &result, error);

    if (r < 0)
        return r;
    if (!result.states)
        return error_set(error, ENODATA, "%s: no rung has been played to its end yet", a->dir);
    if (ablate_write(a, &result, &out) < 0)
        return error_set(error, ENOMEM, "out of memory");
    snprintf(path, sizeof path, "%s/ablation.json", a->dir);
    if ((r = atomic_file_write(path, out.text, out.length)) < 0)
        return error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r));
    snprintf(path, sizeof path, "%s/ablation.png", a->dir);
    r = ablate_plot(&result, path, error);
    if (r < 0)
        return r;
    if (json)
        fputs(out.text, stdout);
    else
        ablate_print(a, &result);
    return 0;
}

/* The runs' configuration, and where they go: `dir`, or the configuration's run.dir with -ladder behind. The start and what
 * branches off it name the same paths. */
static int prepare(struct ablate *a, const char *config, const char *dir, struct error *error)
{
    char here[PATH_MAX];
    int r = up_config_load(config, &a->config, error);

    if (r < 0)
        return r;
    if (!getcwd(here, sizeof here))
        return error_set(error, errno, "current directory: %s", strerror(errno));
    beside_find_model(a->config.policy_init, sizeof a->config.policy_init);
    r = run_config_anchor(&a->config, here, error);
    if (r < 0)
        return r;
    a->first_seed = a->config.seed;
    if ((size_t)snprintf(a->dir, sizeof a->dir, dir ? "%s" : "%s-ladder", dir ? dir : a->config.dir) >= sizeof a->dir)
        return error_set(error, ENAMETOOLONG, "--dir: at most %zu characters", sizeof a->dir - 1);
    return 0;
}

enum { SEEDS = 256, RUNG_LIST, SEARCH, DIR_, MEASURE, DRY_RUN, JSON, HELP };
static const struct option options[] = {{"seeds", 1, NULL, SEEDS}, {"rungs", 1, NULL, RUNG_LIST}, {"search", 1, NULL, SEARCH},
                                        {"dir", 1, NULL, DIR_},    {"measure", 0, NULL, MEASURE}, {"dry-run", 0, NULL, DRY_RUN},
                                        {"json", 0, NULL, JSON},   {"help", 0, NULL, HELP},       {0}};

int cmd_ablate(int argc, char **argv)
{
    _cleanup_free_ struct ablate *a = calloc(1, sizeof *a);
    bool dry = false, json = false, measure = false, some = false;
    const char *dir = NULL;
    struct error error = {0};
    int option, r = 0;

    if (!a)
        return CLI_FAILED;
    a->seeds = 3;
    a->search_n = 8;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0 && r == 0)
        switch (option) {
        case SEEDS: r = parse_number("seeds", optarg, ABLATE_SEEDS_MAX, &a->seeds); break;
        case RUNG_LIST:
            some = true;
            r = parse_rungs(optarg, a->wanted);
            break;
        case SEARCH: r = parse_number("search", optarg, SEARCH_N_MAX, &a->search_n); break;
        case DIR_: dir = optarg; break;
        case MEASURE: measure = true; break;
        case DRY_RUN: dry = true; break;
        case JSON: json = true; break;
        case HELP: return usage(stdout, CLI_OK);
        default: return usage(stderr, CLI_USAGE);
        }
    if (r < 0)
        return CLI_USAGE;
    if (optind + 1 != argc)
        return usage(stderr, CLI_USAGE);
    for (int i = 0; i < RUNGS && !some; i++)
        a->wanted[i] = true;
    r = prepare(a, argv[optind], dir, &error);
    if (r == 0 && dry)
        r = ablate_list(a, &error);
    if (r == 0 && !dry && !measure)
        r = play(a, json, &error);
    if (r == 0 && !dry)
        r = finish(a, json, &error);
    if (r < 0) {
        fprintf(stderr, "gantry ablate: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    return CLI_OK;
}
