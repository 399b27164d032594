/* cmd_eval.c - `gantry eval RUN --policies sft,last --seeds A..B [--json]`: policies of a finished run on fresh test states.
 *
 * A seed numbers one test state of every task; each is played once by every policy, at the temperature chosen on val in the
 * run. The work is an eval stage added to the run (RUN/evals.yaml), so that these episodes, too, are in its ledger. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>

#include "base/atomic_file.h"
#include "base/json_write.h"
#include "cli/cli.h"
#include "cli/eval_suite.h"
#include "cli/run_open.h"
#include "cli/up.h"
#include "rl/stats.h"
#include "run/ledger.h"

enum { RESAMPLES = 10000 };
static const double Z95 = 1.959963984540054;

struct eval {
    struct run_config config;           /* of the run */
    const char *run_dir;
    char policies[RUN_MAX_POLICIES][24];
    double temperature[RUN_MAX_POLICIES];   /* chosen on val in the run */
    int n_policies;
    int first, last;                    /* seeds */
    uint32_t stage;                     /* index of the added stage */
    struct ledger_episode *episodes;    /* of that stage */
    size_t n_episodes;
};

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry eval RUN --policies sft,last --seeds A..B [--json]\n"
                 "       gantry eval MODEL --suite NAME ...    a checkpoint on a benchmark (gantry eval --suite --help)\n"
                 "Plays policies of a finished run on test states A to B of every task, once each, at the temperatures the run chose.\n"
                 "  --policies  sft, best, last or version numbers, separated by commas; the difference is last minus first\n"
                 "  --seeds     a range nobody has looked at; the run's own evaluation used the lowest numbers\n"
                 "  --json      the result as one JSON object on stdout (progress goes to stderr)\n");
    return status;
}

/* ---- asking ------------------------------------------------------------------------------------------------------- */

static int parse_seeds(const char *text, struct eval *eval)
{
    char *end;
    long first = strtol(text, &end, 10), last;

    if (end == text || strncmp(end, "..", 2))
        return -EINVAL;
    text = end + 2;
    last = strtol(text, &end, 10);
    if (end == text || *end || first < 0 || last < first || last > 1000000000)
        return -EINVAL;
    eval->first = (int)first;
    eval->last = (int)last;
    return 0;
}

static int parse_policies(char *text, struct eval *eval)
{
    char *save = NULL, *word;

    for (word = strtok_r(text, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        if (eval->n_policies == RUN_MAX_POLICIES || strlen(word) >= sizeof eval->policies[0])
            return -EINVAL;
        snprintf(eval->policies[eval->n_policies++], sizeof eval->policies[0], "%s", word);
    }
    return eval->n_policies ? 0 : -EINVAL;
}

static int read_temperatures(struct eval *eval, struct error *error)
{
    char path[PATH_MAX];
    json_t *summary, *policies;
    int r = 0;

    snprintf(path, sizeof path, "%s/summary.json", eval->run_dir);
    summary = json_load_file(path, 0, NULL);
    if (!summary)
        return error_set(error, ENOENT, "%s: not there; the run's own eval stage must have ended (it chooses the temperatures)", path);
    policies = json_object_get(summary, "policies");
    for (int i = 0; i < eval->n_policies && r == 0; i++) {
        json_t *value = json_object_get(json_object_get(policies, eval->policies[i]), "temperature");

        if (json_is_number(value))
            eval->temperature[i] = json_number_value(value);
        else
            r = error_set(error, ENOENT, "%s: no temperature for policy '%s'; it was not in the run's eval stage", path, eval->policies[i]);
    }
    json_decref(summary);
    return r;
}

/* Add the stage to RUN/evals.yaml; *ret_index is its place there. */
static int add_stage(struct eval *eval, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ char *old = NULL;
    _cleanup_free_ struct run_config *check = malloc(sizeof *check);
    char path[PATH_MAX];
    int r;

    if (!check)
        return error_set(error, ENOMEM, "out of memory");
    snprintf(path, sizeof path, "%s/evals.yaml", eval->run_dir);
    r = file_read(path, 1 << 20, &old, NULL);
    if (r < 0 && r != -ENOENT)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    strbuf_adds(&text, old ? old : "# evaluations after the run, by gantry eval\nstages:\n");
    strbuf_addf(&text, "  - eval: {episodes: %d, first_state: %d, policies: [", (eval->last - eval->first + 1) * eval->config.n_tasks, eval->first);
    for (int i = 0; i < eval->n_policies; i++)
        strbuf_addf(&text, "%s'%s'", i ? ", " : "", eval->policies[i]);
    strbuf_adds(&text, "], at: [");
    for (int i = 0; i < eval->n_policies; i++)
        strbuf_addf(&text, "%s%.9g", i ? ", " : "", eval->temperature[i]);
    strbuf_adds(&text, "]}\n");
    r = run_config_parse(text.text, text.length, path, check, error);
    if (r < 0)
        return r;
    eval->stage = (uint32_t)(eval->config.n_stages + check->n_stages - 1);
    r = atomic_file_write(path, text.text, text.length);
    return r < 0 ? error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r)) : 0;
}

/* ---- the result ----------------------------------------------------------------------------------------------------- */

static int read_episodes(struct eval *eval, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    size_t ended = 0, want = (size_t)eval->n_policies * (size_t)(eval->last - eval->first + 1) * (size_t)eval->config.n_tasks;
    int r = run_open_ledger(eval->run_dir, &ledger, error);

    if (r == 0 && (r = ledger_episodes(ledger, eval->stage, LEDGER_ALL, &eval->episodes, &eval->n_episodes)) < 0)
        r = error_set(error, -r, "%s/ledger.sqlite: %s", eval->run_dir, ledger_error(ledger));
    for (size_t i = 0; i < eval->n_episodes; i++)
        ended += eval->episodes[i].state == EPISODE_EVALUATED;
    if (r == 0 && ended < want)
        r = error_set(error, EAGAIN, "%zu of %zu episodes were played; the same command again plays a new set, gantry up %s/config.yaml "
                      "finishes this one", ended, want, eval->run_dir);
    return r;
}

static bool is_row(const struct eval *eval, const struct ledger_episode *e, int policy)
{
    char tag[80];

    snprintf(tag, sizeof tag, "test %s t=%.3g", eval->policies[policy], (double)(float)eval->temperature[policy]);
    return e->state == EPISODE_EVALUATED && !strcmp(e->tag, tag);
}

static double mean_success(const struct eval *eval, int policy, const char *task, int64_t *ret_n, int64_t *ret_successes)
{
    *ret_n = *ret_successes = 0;
    for (size_t i = 0; i < eval->n_episodes; i++)
        if (is_row(eval, &eval->episodes[i], policy) && (!task || !strcmp(task, eval->episodes[i].task))) {
            (*ret_n)++;
            *ret_successes += eval->episodes[i].success;
        }
    return *ret_n ? (double)*ret_successes / (double)*ret_n : 0;
}

/* Outcomes of two policies on the same states, side by side. */
static int pair(const struct eval *eval, int a, int b, double *ret_a, double *ret_b)
{
    int n = 0;

    for (size_t i = 0; i < eval->n_episodes; i++)
        for (size_t k = 0; is_row(eval, &eval->episodes[i], a) && k < eval->n_episodes; k++)
            if (is_row(eval, &eval->episodes[k], b) && eval->episodes[i].state_seed == eval->episodes[k].state_seed &&
                !strcmp(eval->episodes[i].task, eval->episodes[k].task)) {
                ret_a[n] = eval->episodes[i].success;
                ret_b[n++] = eval->episodes[k].success;
                break;
            }
    return n;
}

static int write_result(const struct eval *eval, struct strbuf *out)
{
    struct json_writer w = {.out = out};
    _cleanup_free_ double *a = calloc(eval->n_episodes + 1, sizeof *a), *b = calloc(eval->n_episodes + 1, sizeof *b);
    struct interval interval;
    int64_t n, successes;
    double sum = 0;
    int pairs;

    if (!a || !b)
        return -ENOMEM;
    json_open(&w, NULL, '{');
    json_text(&w, "run", eval->run_dir);
    json_signed(&w, "first_seed", eval->first);
    json_signed(&w, "last_seed", eval->last);
    json_open(&w, "policies", '{');
    for (int i = 0; i < eval->n_policies; i++) {
        double success = mean_success(eval, i, NULL, &n, &successes);

        json_open(&w, eval->policies[i], '{');
        json_number(&w, "temperature", eval->temperature[i]);
        json_signed(&w, "episodes", n);
        json_number(&w, "success", success);
        interval = wilson(successes, n, Z95);
        json_interval(&w, "interval", interval.low, interval.high);
        json_open(&w, "tasks", '{');
        for (int t = 0; t < eval->config.n_tasks; t++)
            json_number(&w, eval->config.tasks[t], mean_success(eval, i, eval->config.tasks[t], &n, &successes));
        json_close(&w, '}');
        json_close(&w, '}');
    }
    json_close(&w, '}');
    pairs = eval->n_policies > 1 ? pair(eval, eval->n_policies - 1, 0, a, b) : 0;
    if (pairs > 0) {
        int r = paired_bootstrap(a, b, pairs, RESAMPLES, .95, eval->config.seed, &interval);

        if (r < 0)
            return r;
        for (int i = 0; i < pairs; i++)
            sum += a[i] - b[i];
        json_open(&w, "difference", '{');
        json_text(&w, "of", eval->policies[eval->n_policies - 1]);
        json_text(&w, "over", eval->policies[0]);
        json_signed(&w, "pairs", pairs);
        json_number(&w, "mean", sum / pairs);
        json_interval(&w, "interval", interval.low, interval.high);
        json_close(&w, '}');
    }
    json_close(&w, '}');
    return out->failed ? -ENOMEM : 0;
}

static void print_table(const struct eval *eval)
{
    int64_t n, successes;

    for (int i = 0; i < eval->n_policies; i++) {
        double success = mean_success(eval, i, NULL, &n, &successes);
        struct interval interval = wilson(successes, n, Z95);

        printf("%-14s T %.2g  success %.3f [%.3f %.3f] of %lld episodes\n", eval->policies[i], eval->temperature[i], success, interval.low,
               interval.high, (long long)n);
    }
}

static int run_eval(struct eval *eval, bool json, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    char path[PATH_MAX];
    int r;

    snprintf(path, sizeof path, "%s/config.yaml", eval->run_dir);
    r = run_config_load(path, &eval->config, error);
    if (r == 0)
        r = read_temperatures(eval, error);
    if (r == 0)
        r = add_stage(eval, error);
    if (r < 0)
        return r;
    snprintf(eval->config.dir, sizeof eval->config.dir, "%s", eval->run_dir);
    if (up_run_quietly(&eval->config) != CLI_OK)
        return error_set(error, EIO, "the evaluation did not run to its end");
    r = read_episodes(eval, error);
    if (r < 0)
        return r;
    if (!json) {
        print_table(eval);
        return 0;
    }
    r = write_result(eval, &out);
    if (r == 0)
        printf("%s\n", out.text);
    return r;
}

int cmd_eval(int argc, char **argv)
{
    static const struct option options[] = {{"policies", required_argument, NULL, 'p'}, {"seeds", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    _cleanup_free_ struct eval *eval = calloc(1, sizeof *eval);
    struct error error = {0};
    bool json = false, seeds = false;
    int option, r;

    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--suite"))
            return eval_suite(argc, argv);
    if (!eval)
        return CLI_FAILED;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (option == 'h')
            return usage(stdout, CLI_OK);
        if (option == 'j')
            json = true;
        else if (option == 's' && parse_seeds(optarg, eval) == 0)
            seeds = true;
        else if (option != 'p' || parse_policies(optarg, eval) < 0)
            return usage(stderr, CLI_USAGE);
    }
    if (optind + 1 != argc || !seeds || !eval->n_policies)
        return usage(stderr, CLI_USAGE);
    eval->run_dir = argv[optind];
    r = run_eval(eval, json, &error);
    free(eval->episodes);
    if (r < 0) {
        fprintf(stderr, "gantry eval: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    return CLI_OK;
}
