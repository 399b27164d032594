/* cmd_eval.c - `gantry eval RUN`: policies of finished runs on fresh test states, beside one another and beside look-ahead.
 *
 * A seed numbers one test state of every task; each is played once by every policy and in every way that is asked for. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "cli/action_error.h"
#include "cli/cli.h"
#include "cli/eval.h"
#include "cli/eval_suite.h"
#include "cli/eval_words.h"

enum { AGAINST_MAX = 4, FILMS_MOST = 100 };

struct command {
    struct eval_ask ask;
    const char *run_dir, *against[AGAINST_MAX], *films, *plot, *out;
    int n_against;
    unsigned given; /* bit(option) of each */
    bool json, seeds, action_error;
    int draws[RUN_MAX_N], n_draws, frames; /* of --action-error */
};

static int usage(FILE *out, int status)
{
    fprintf(
        out,
        "usage: gantry eval RUN --policies sft,last --seeds A..B [options]\n"
        "       gantry eval RUN --action-error --policies sft,last [--n 1..128] [--frames 200]\n"
        "       gantry eval MODEL --suite NAME ...   a checkpoint on a benchmark (gantry eval --suite --help)\n"
        "Plays policies of a finished run on test states A to B of every task, once each, at the temperatures\n"
        "the run chose. Interrupted and asked again in the same words it goes on; what was played before is\n"
        "only measured.\n"
        "  --policies LIST        sft, best, last or version numbers, with commas; the difference is last\n"
        "                         minus first\n"
        "  --seeds A..B           a range nobody has looked at; the run's own evaluation used the lowest\n"
        "                         numbers: a note says which, and where fresh ones begin\n"
        "  --temperatures LIST    choose each policy's anew, on val states (%d per policy and temperature)\n"
        "  --at T                 this temperature for all\n"
        "  --against RUN          the same in another run, paired state by state; up to %d\n"
        "  --val                  on val states A to B instead: what settings are chosen by\n"
        "  --perturb KIND         push, drop or offset: what the world does once to every episode\n"
        "  --drop-stopped         an evaluation that was begun before and stopped is given up, not played\n"
        "                         to its end first; what was played of it counts for nothing\n"
        "  --max-steps N          a longer limit than the task's, for time to recover\n"
        "  --films DIR            failures as film strips, at most %d of a policy\n"
        "  --json                 the result as one JSON object on stdout (progress goes to stderr)\n"
        "  --out FILE             that object into a file, too\n"
        "look-ahead, on the same states:\n"
        "  --n LIST               candidates, 1 to %d: 1,2,4,8,16,32; with 1 the two laws are fitted\n"
        "  --horizon H            steps of a candidate, 1 to %d (4)\n"
        "  --execute M            of these, how many are executed (4)\n"
        "  --search-temperature T at which candidates are sampled (0.8), and n = 1 beside them\n"
        "  --score last|mean      what a candidate's scores are worth (mean)\n"
        "  --method M             search_n (in copies of the simulator), sample_n (one action, no copies),\n"
        "                         refine\n"
        "  --judge J              prm, value, confidence\n"
        "  --proposals P          sample_n: policy, gaussian\n"
        "  --controls LIST        greedy, random, shuffled, oracle (a ceiling: it sees the verdict)\n"
        "  --plot FILE.png        success by n, with intervals and the better law\n"
        "action error: the least error of k sampled actions against the demonstrator's,\n"
        "log e = log a + b log k\n",
        100, AGAINST_MAX, FILMS_MOST, SEARCH_N_MAX, SEARCH_H_MAX);
    return status;
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

enum {
    POLICIES = 256,
    SEEDS,
    TEMPERATURES,
    AT,
    AGAINST,
    VAL,
    PERTURB,
    MAX_STEPS,
    FILMS,
    JSON,
    OUT,
    WIDTHS,
    HORIZON,
    EXECUTE,
    SEARCH_TEMPERATURE,
    SCORE,
    METHOD,
    JUDGE,
    PROPOSALS,
    CONTROLS,
    PLOT,
    ACTION_ERROR,
    FRAMES,
    DROP_STOPPED,
    HELP
};
static const struct option options[] = {{"policies", 1, NULL, POLICIES},
                                        {"seeds", 1, NULL, SEEDS},
                                        {"temperatures", 1, NULL, TEMPERATURES},
                                        {"at", 1, NULL, AT},
                                        {"against", 1, NULL, AGAINST},
                                        {"val", 0, NULL, VAL},
                                        {"perturb", 1, NULL, PERTURB},
                                        {"max-steps", 1, NULL, MAX_STEPS},
                                        {"films", 1, NULL, FILMS},
                                        {"json", 0, NULL, JSON},
                                        {"out", 1, NULL, OUT},
                                        {"n", 1, NULL, WIDTHS},
                                        {"horizon", 1, NULL, HORIZON},
                                        {"execute", 1, NULL, EXECUTE},
                                        {"search-temperature", 1, NULL, SEARCH_TEMPERATURE},
                                        {"score", 1, NULL, SCORE},
                                        {"method", 1, NULL, METHOD},
                                        {"judge", 1, NULL, JUDGE},
                                        {"proposals", 1, NULL, PROPOSALS},
                                        {"controls", 1, NULL, CONTROLS},
                                        {"plot", 1, NULL, PLOT},
                                        {"action-error", 0, NULL, ACTION_ERROR},
                                        {"frames", 1, NULL, FRAMES},
                                        {"drop-stopped", 0, NULL, DROP_STOPPED},
                                        {"help", 0, NULL, HELP},
                                        {0}};

/* 0; -EINVAL: wrong usage; -ERANGE: a line was printed. */
static int take_option(struct command *c, int option, char *value)
{
    struct eval_config *stage = &c->ask.stage;
    int name, r;

    switch (option) {
    case POLICIES: return eval_parse_policies(value, &c->ask);
    case SEEDS: c->seeds = true; return eval_parse_seeds(value, &c->ask);
    case TEMPERATURES: return eval_parse_temperatures(value, &c->ask);
    case AT: return eval_parse_number(value, &c->ask.at);
    case AGAINST:
        if (c->n_against == AGAINST_MAX)
            return -EINVAL;
        c->against[c->n_against++] = value;
        return 0;
    case VAL: stage->on_val = true; return 0;
    case PERTURB:
        snprintf(stage->perturb, sizeof stage->perturb, "%s", value);
        return !strcmp(value, "push") || !strcmp(value, "drop") || !strcmp(value, "offset") ? 0 : -EINVAL;
    case MAX_STEPS: return eval_parse_count(value, &stage->max_steps);
    case FILMS: c->films = value; return 0;
    case JSON: c->json = true; return 0;
    case OUT: c->out = value; return 0;
    case WIDTHS: return eval_parse_widths(value, c->draws, &c->n_draws);
    case HORIZON: return eval_parse_steps("horizon", value, &stage->search_horizon);
    case EXECUTE: return eval_parse_steps("execute", value, &stage->search_execute);
    case SEARCH_TEMPERATURE: return eval_parse_number(value, &stage->search_temperature);
    case SCORE:
        snprintf(stage->search_score, sizeof stage->search_score, "%s", value);
        return !strcmp(value, "last") || !strcmp(value, "mean") ? 0 : -EINVAL;
    case METHOD:
        if ((r = eval_parse_name("method", value, search_method_names, &name)) == 0)
            stage->search_method = (enum search_method)name;
        return r;
    case JUDGE:
        if ((r = eval_parse_name("judge", value, search_judge_names, &name)) == 0)
            stage->search_judge = (enum search_judge)name;
        return r;
    case PROPOSALS:
        if ((r = eval_parse_name("proposals", value, search_proposal_names, &name)) == 0)
            stage->search_proposals = (enum search_proposals)name;
        return r;
    case CONTROLS: return eval_parse_controls(value, stage);
    case PLOT: c->plot = value; return 0;
    case ACTION_ERROR: c->action_error = true; return 0;
    case FRAMES: return eval_parse_count(value, &c->frames);
    case DROP_STOPPED: c->ask.drop_stopped = true; return 0;
    default: return -EINVAL;
    }
}

/* What take_option wants where it says -EINVAL. */
static const char *expected(int option)
{
    switch (option) {
    case POLICIES: return "up to 8 of sft, best, last, demonstrator and version numbers, with commas";
    case SEEDS: return "A..B with A <= B, for example 1000..1099";
    case TEMPERATURES: return "up to 4 numbers, with commas";
    case AT: case SEARCH_TEMPERATURE: return "a number from 0 to 10";
    case AGAINST: return "no more than 4 runs beside the first";
    case PERTURB: return "push, drop or offset";
    case SCORE: return "last or mean";
    case WIDTHS: return "up to 8 numbers with commas, or 1..128, which is by doubling";
    case CONTROLS: return "greedy, random, shuffled, oracle, with commas";
    default: return "a whole number from 1 on";
    }
}

static unsigned bit(int option) { return 1u << (option - POLICIES); }

/* An option that would be passed over in silence is a mistake of who gave it. Prints the line; -EINVAL. */
static int check_together(const struct command *c)
{
    static const int search[] = {HORIZON, EXECUTE, SEARCH_TEMPERATURE, SCORE, METHOD, JUDGE, PROPOSALS, CONTROLS, PLOT};
    static const int of_errors[] = {POLICIES, AT, JSON, OUT, WIDTHS, ACTION_ERROR, FRAMES};
    unsigned stray = c->given & bit(FRAMES);
    const char *why = "is of --action-error";

    if (c->action_error) {
        stray = c->given;
        for (size_t i = 0; i < ARRAY_SIZE(of_errors); i++)
            stray &= ~bit(of_errors[i]);
        why = "is not of --action-error";
    } else if (!c->n_draws) {
        for (size_t i = 0; i < ARRAY_SIZE(search); i++)
            stray |= c->given & bit(search[i]);
        why = stray & ~bit(FRAMES) ? "is of look-ahead: --n says with how many candidates, 1,4 for example" : why;
    }
    for (size_t i = 0; stray && options[i].name; i++)
        if (stray & bit(options[i].val)) {
            fprintf(stderr, "gantry eval: --%s %s\n", options[i].name, why);
            return -EINVAL;
        }
    return 0;
}

/* ---- work ---------------------------------------------------------------------------------------------------------------- */

/* The runs beside the first one, policy by policy. */
static int write_against(const struct eval *eval, const struct eval *others, int n, struct json_writer *w)
{
    _cleanup_free_ double *mine = calloc((size_t)eval->states, sizeof *mine),
                          *theirs = calloc((size_t)eval->states, sizeof *theirs);

    if (!mine || !theirs)
        return -ENOMEM;
    if (n)
        json_open(w, "against", '[');
    for (int k = 0; k < n; k++) {
        json_open(w, NULL, '{');
        json_text(w, "run", others[k].run_dir);
        for (int p = 0; p < eval->ask->n_policies; p++) {
            struct paired d;
            char tag[EVAL_TAG];

            eval_test_tag(eval, p, tag);
            (void)eval_outcomes(eval, tag, mine);
            eval_test_tag(&others[k], p, tag);
            (void)eval_outcomes(&others[k], tag, theirs);
            if (paired_compare(mine, theirs, eval->states, eval->config.seed, &d) < 0)
                continue;
            json_open(w, eval->ask->policies[p], '{');
            json_number(w, "their_temperature", others[k].temperature[p]);
            eval_write_difference(&d, w);
            json_close(w, '}');
        }
        json_close(w, '}');
    }
    if (n)
        json_close(w, ']');
    return 0;
}

/* How often the blow came: a drop needs something held. */
static int blows(const struct eval *eval, int policy, int *ret, int *ret_of, struct error *error)
{
    struct eval_cost cost;
    char tag[EVAL_TAG];
    int r;

    eval_test_tag(eval, policy, tag);
    r = eval_costs(eval, tag, &cost, error);
    if (r < 0)
        return r;
    *ret = cost.perturbed;
    *ret_of = cost.episodes;
    return 0;
}

static int print_blows(const struct eval *eval, struct error *error)
{
    int came, of, r = 0;

    for (int p = 0; p < eval->ask->n_policies && eval->ask->stage.perturb[0] && r == 0; p++)
        if ((r = blows(eval, p, &came, &of, error)) == 0)
            printf("%-14s %s: came to %d of %d episodes\n", eval->ask->policies[p], eval->ask->stage.perturb, came, of);
    return r;
}

static int write_blows(const struct eval *eval, struct json_writer *w, struct error *error)
{
    int came, of, r = 0;

    if (!eval->ask->stage.perturb[0])
        return 0;
    json_text(w, "perturb", eval->ask->stage.perturb);
    json_open(w, "perturbed_episodes", '{');
    for (int p = 0; p < eval->ask->n_policies && r == 0; p++)
        if ((r = blows(eval, p, &came, &of, error)) == 0)
            json_signed(w, eval->ask->policies[p], came);
    json_close(w, '}');
    return r;
}

static int write_result(const struct eval *eval, const struct eval *others, int n_others, struct strbuf *out, struct error *error)
{
    struct json_writer w = {.out = out};
    int r;

    json_open(&w, NULL, '{');
    json_text(&w, "run", eval->run_dir);
    json_text(&w, "split", eval->ask->stage.on_val ? "val" : "test");
    json_signed(&w, "first_seed", eval->ask->first);
    json_signed(&w, "last_seed", eval->ask->last);
    eval_write_seen(eval, &w);
    if (eval->ask->stage.max_steps)
        json_signed(&w, "max_steps", eval->ask->stage.max_steps);
    r = write_blows(eval, &w, error);
    if (r == 0 && (r = eval_write_policies(eval, &w)) < 0)
        r = error_set(error, -r, "the result: %s", strerror(-r));
    if (r == 0 && (r = write_against(eval, others, n_others, &w)) < 0)
        r = error_set(error, -r, "the result: %s", strerror(-r));
    if (r == 0)
        r = eval_write_search(eval, &w, error);
    json_close(&w, '}');
    strbuf_addc(out, '\n');
    return r < 0 ? r : out->failed ? error_set(error, ENOMEM, "out of memory") : 0;
}

static int say_result(const struct command *c, const struct eval *eval, const struct eval *others, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    int r = write_result(eval, others, c->n_against, &out, error);

    if (r == 0 && c->json)
        fputs(out.text, stdout);
    if (r == 0 && c->out && (r = atomic_file_write_through(c->out, out.text, out.length)) < 0)
        r = error_set(error, -r, "%s: cannot be written: %s", c->out, strerror(-r));
    if (r == 0 && !c->json) {
        eval_print(eval);
        r = print_blows(eval, error);
        for (int i = 0; i < c->n_against; i++) {
            printf("%s:\n", others[i].run_dir);
            eval_print(&others[i]);
        }
        r = r < 0 ? r : eval_print_search(eval, error);
    }
    if (r == 0 && c->plot)
        r = eval_plot_search(eval, c->plot, error);
    return r == 0 && c->films ? eval_films(eval, c->films, FILMS_MOST, error) : r;
}

/* Could `path` be written? Asked before hours are spent on what goes into it. */
static int check_writable(const char *option, const char *path, struct error *error)
{
    int r = path ? atomic_file_may_write_through(path) : 0;

    return r < 0 ? error_set(error, -r, "--%s %s: cannot be written: %s", option, path, strerror(-r)) : 0;
}

/* All are checked before the first is played. */
static int run_eval(const struct command *c, struct eval *evals, struct error *error)
{
    int n = 1 + c->n_against, r = 0;

    for (int i = 0; i < n && r == 0; i++) {
        r = eval_open(i ? c->against[i - 1] : c->run_dir, &c->ask, &evals[i], error);
        if (r == 0 &&
            (evals[i].config.n_tasks != evals[0].config.n_tasks || strcmp(evals[i].config.suite, evals[0].config.suite) != 0 ||
             memcmp(evals[i].config.tasks, evals[0].config.tasks,
                    sizeof evals[0].config.tasks[0] * (size_t)evals[0].config.n_tasks)))
            r = error_set(error, EINVAL, "%s plays other tasks than %s: there is no pair to compare", evals[i].run_dir,
                          evals[0].run_dir);
        if (r == 0)
            r = eval_check(&evals[i], error);
    }
    for (int i = 0; i < n && r == 0; i++)
        eval_say_seen(&evals[i]);
    for (int i = 0; i < n && r == 0; i++)
        r = eval_play(&evals[i], error);
    return r < 0 ? r : say_result(c, &evals[0], evals + 1, error);
}

static int start(struct command *c, struct error *error)
{
    struct eval *evals;
    int r;

    if ((r = check_writable("out", c->out, error)) < 0 || (r = check_writable("plot", c->plot, error)) < 0)
        return r;
    if (c->action_error) {
        struct action_error_ask ask = {.policies = c->ask.policies,
                                       .n_policies = c->ask.n_policies,
                                       .k = c->draws,
                                       .n_k = c->n_draws,
                                       .frames = c->frames,
                                       .temperature = c->ask.at >= 0 ? c->ask.at : 1,
                                       .json = c->json,
                                       .out = c->out};

        return action_error_run(c->run_dir, &ask, error);
    }
    memcpy(c->ask.stage.n, c->draws, sizeof c->draws);
    c->ask.stage.n_n = c->n_draws;
    if (!c->n_draws) {
        c->ask.stage.n[0] = 1;
        c->ask.stage.n_n = 1;
    }
    c->ask.stage.search_execute = MIN(c->ask.stage.search_execute, c->ask.stage.search_horizon);
    evals = calloc(1 + AGAINST_MAX, sizeof *evals);
    r = evals ? run_eval(c, evals, error) : error_set(error, ENOMEM, "out of memory");
    for (int i = 0; evals && i <= AGAINST_MAX; i++)
        eval_release(&evals[i]);
    free(evals);
    return r;
}

int cmd_eval(int argc, char **argv)
{
    static const char defaults[] = "kind: eval\nval_episodes: 100\nsearch_temperature: 0.8\nsearch_score: mean\n";
    _cleanup_free_ struct command *c = calloc(1, sizeof *c);
    struct stage_config stage;
    struct error error = {0};
    char value[61];
    int option, index, r;

    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--suite"))
            return eval_suite(argc, argv);
    if (!c || stage_config_parse(defaults, strlen(defaults), &stage, &error) < 0)
        return CLI_FAILED;
    c->ask.stage = stage.eval;
    c->ask.at = -1;
    c->frames = 200;
    while ((option = getopt_long(argc, argv, "", options, &index)) >= 0) {
        if (option == HELP)
            return usage(stdout, CLI_OK);
        if (option == '?')
            return usage(stderr, CLI_USAGE);
        snprintf(value, sizeof value, "%s", optarg ? optarg : "");     /* whole: lists are taken apart where they lie */
        c->given |= bit(option);
        r = take_option(c, option, optarg);
        if (r == -EINVAL)
            fprintf(stderr, "gantry eval: --%s: '%s' is not right here; expected: %s\n", options[index].name, value,
                    expected(option));
        if (r < 0)
            return CLI_USAGE;
    }
    if (check_together(c) < 0)
        return CLI_USAGE;
    if (optind + 1 != argc || !(c->seeds || c->action_error) || !c->ask.n_policies) {
        fprintf(stderr, "gantry eval: %s; `gantry eval --help` says more\n",
                optind + 1 != argc ? "one RUN is to be named" :
                !c->ask.n_policies ? "--policies is missing: sft,last for example" :
                                     "--seeds A..B is missing: 1000..1099 for example, of which the run has played none");
        return CLI_USAGE;
    }
    c->run_dir = argv[optind];
    r = start(c, &error);
    if (r < 0) {
        fprintf(stderr, "gantry eval: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    return CLI_OK;
}
