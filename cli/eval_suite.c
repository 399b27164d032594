/* eval_suite.c - `gantry eval MODEL --suite NAME`: a benchmark's published protocol, for a checkpoint alone.
 *
 * Every task, `trials` test states each (LIBERO: the 50 rows of its .pruned_init file), one episode a state, the suite's own step
 * limit after its wait steps. It is a run of one eval stage in a directory of its own: the same daemons, a ledger, and the same
 * command again goes on where it stopped. Pictures are made as the checkpoint says that it was taught; one that does not say so
 * is shown LIBERO as OpenVLA's evaluations do. */
#include "cli/eval_suite.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json_write.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/run_open.h"
#include "cli/sim.h"
#include "cli/up.h"
#include "image/tf_image.h"
#include "nn/models/openvla.h"
#include "nn/models/openvla_start.h"
#include "rl/stats.h"

static const double Z95 = 1.959963984540054;

struct eval_suite {
    const char *model, *suite, *tasks, *dir, *device, *robosuite, *temperature, *remote, *unnorm_key, *center_crop;
    long trials, env_workers, slots;
    bool json;
    struct run_config config;
    struct ledger_episode *episodes;
    size_t n_episodes;
};

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry eval MODEL --suite NAME [--tasks N,NAME,...] [--trials N] [--json]\n"
                 "Plays a checkpoint on a suite's test states, every task and state once, as the benchmark's\n"
                 "evaluations do. The same command again goes on where it stopped.\n"
                 "  --tasks        numbers or names, separated by commas (default: all; gantry sim list --suite NAME)\n"
                 "  --trials       test states of each task (default: all of them; 50 where there are any number)\n"
                 "  --temperature  of sampling (default: 0, greedy)\n"
                 "  --unnorm-key   whose statistics un-normalise its actions, of several (default: SUITE,\n"
                 "                 SUITE_no_noops)\n"
                 "  --center-crop  share of each picture that it sees: .9, or 1: all of it (default: what it says;\n"
                 "                 where it says nothing, .9 on libero suites, as OpenVLA's evaluations do)\n"
                 "  --remote       suite remote: the command that is the simulator, or unix:PATH\n"
                 "  --robosuite    1.4.1 (default: what OpenVLA's and OFT's evaluations pin) or 1.4.0\n"
                 "  --env-workers, --slots   processes, and episodes each plays at once (default: 2, 4)\n"
                 "  --device       of the policy: cpu (default) or cuda:N\n"
                 "  --dir          the run directory (default: runs/eval-MODEL-SUITE)\n"
                 "  --json         the result as one JSON object on stdout (progress goes to stderr)\n");
    return status;
}

/* ---- what the checkpoint wants to see --------------------------------------------------------------------- */

struct wants {
    int image, images;
    bool state;
    char chain[64];
};

static int read_wants(const char *dir, bool libero, struct wants *ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    const struct openvla_config *c;
    char base[PATH_MAX];
    bool oft, adapter = openvla_start_is_adapter(dir);
    int r = adapter ? openvla_start_base(dir, "", base, error) : 0;

    if (r >= 0)
        r = openvla_open(adapter ? base : dir, NULL, &model, NULL, error);
    if (r < 0)
        return error_prefix(error, r, "expected an OpenVLA checkpoint's directory");
    c = &model->config;
    oft = c->oft.kind != OFT_NONE;
    *ret = (struct wants) {.image = c->image_width, .images = oft ? c->oft.images : 1, .state = oft && c->oft.proprio};
    snprintf(ret->chain, sizeof ret->chain, "%s", c->image_chain[0] ? c->image_chain : libero ? TF_EVALUATION_CHAIN : "render");
    return 0;
}

/* ---- the run ---------------------------------------------------------------------------------------------- */

/* 'text' as YAML takes it. */
static void add_quoted(struct strbuf *yaml, const char *text)
{
    strbuf_addc(yaml, '\'');
    for (; *text; text++) {
        strbuf_addc(yaml, *text);
        if (*text == '\'')
            strbuf_addc(yaml, '\'');
    }
    strbuf_addc(yaml, '\'');
}

/* Adds the chosen tasks to a YAML list. *ret_n: how many. */
static int choose_tasks(const struct eval_suite *eval, const struct sim_task_info *infos, int n, struct strbuf *yaml, int *ret_n,
                        struct error *error)
{
    _cleanup_free_ char *copy = strdup(eval->tasks ? eval->tasks : "");
    char *save = NULL;
    int chosen = 0;

    if (!copy)
        return error_set(error, ENOMEM, "out of memory");
    for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        char *end;
        long number = strtol(word, &end, 10);
        int i = 0;

        for (; i < n && strcmp(infos[i].name, word) != 0 && (*end || end == word || number != i); i++)
            ;
        if (i == n)
            return error_set(error, ENOENT, "--tasks: suite %s has no task '%s' (gantry sim list --suite %s)", eval->suite, word,
                             eval->suite);
        strbuf_adds(yaml, chosen++ ? ", " : "");
        add_quoted(yaml, infos[i].name);
    }
    for (int i = 0; i < n && !eval->tasks; i++) {
        strbuf_adds(yaml, chosen++ ? ", " : "");
        add_quoted(yaml, infos[i].name);
    }
    *ret_n = chosen;
    return chosen ? 0 : error_set(error, EINVAL, "--tasks: none is named");
}

static const char *base_name(const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] != '/')
        n--;
    return path[n ? n - 1 : 0] == '/' ? path + n : path;
}

/* What run.name takes of a directory's name. */
static void run_name(const char *model, const char *suite, char *ret, size_t size)
{
    snprintf(ret, size, "eval-%.30s-%.20s", model, suite);
    for (char *c = ret; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
            *c = '_';
}

static int write_yaml(struct eval_suite *eval, const struct sim_task_info *infos, int n, struct strbuf *yaml, struct error *error)
{
    const bool libero = !strncmp(eval->suite, "libero", 6);
    char model[PATH_MAX], name[64];
    struct wants wants;
    int n_tasks = 0, r;

    if (!realpath(eval->model, model))
        return error_set(error, errno, "%s: %s", eval->model, strerror(errno));
    r = read_wants(model, libero, &wants, error);
    if (r < 0)
        return r;
    if (!eval->trials)
        eval->trials = infos[0].test_states ? infos[0].test_states : 50;
    if (infos[0].test_states && eval->trials > infos[0].test_states)
        return error_set(error, EINVAL, "--trials: suite %s has %d test states of each task, not %ld", eval->suite,
                         infos[0].test_states, eval->trials);
    run_name(base_name(model), eval->suite, name, sizeof name);
    strbuf_addf(yaml, "run: {name: '%s', dir: ", name);
    add_quoted(yaml, eval->dir ? eval->dir : "");
    strbuf_addf(yaml, "}\nsuite: {name: %s, image: %d, chain: %s, cameras: %d, state: %s, robosuite: %s, remote: ", eval->suite,
                wants.image, wants.chain, wants.images, wants.state ? "true" : "false", eval->robosuite);
    add_quoted(yaml, eval->remote ? eval->remote : "");
    strbuf_adds(yaml, ", tasks: [");
    r = choose_tasks(eval, infos, n, yaml, &n_tasks, error);
    strbuf_adds(yaml, "]}\npolicy: {init: ");
    add_quoted(yaml, model);
    strbuf_addf(yaml, ", center_crop: %s, unnorm_key: ", eval->center_crop);
    add_quoted(yaml, eval->unnorm_key);
    strbuf_addf(yaml, "}\nstages: [{eval: {episodes: %ld, policies: [last], at: [%s]}}]\n", eval->trials * n_tasks,
                eval->temperature);
    strbuf_addf(yaml, "cluster: {env_workers: %ld, slots: %ld, actors: [{device: '%s'}], prm_servers: []}\n", eval->env_workers,
                eval->slots, eval->device);
    return r < 0 ? r : yaml->failed ? error_set(error, ENOMEM, "out of memory") : 0;
}

static int make_config(struct eval_suite *eval, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf yaml = STRBUF_INIT;
    const struct sim_task_info *infos;
    struct sim_suite *suite;
    int n, r = sim_suite_open(eval->suite, &(struct sim_options){.remote = eval->remote}, &suite, error);

    if (r < 0)
        return r;
    n = sim_suite_tasks(suite, &infos);
    r = write_yaml(eval, infos, n, &yaml, error);
    sim_suite_close(suite);
    if (r == 0)
        r = run_config_parse(yaml.text, yaml.length, "gantry eval", &eval->config, error);
    if (r == 0 && !eval->config.dir[0])
        snprintf(eval->config.dir, sizeof eval->config.dir, "runs/%s", eval->config.name);
    return r;
}

/* ---- the result --------------------------------------------------------------------------------------------- */

struct tally {
    int64_t n, successes, steps;
};

static struct tally count_task(const struct eval_suite *eval, const char *task)
{
    struct tally tally = {0};

    for (size_t i = 0; i < eval->n_episodes; i++) {
        const struct ledger_episode *e = &eval->episodes[i];

        if (e->state != EPISODE_EVALUATED || (task && strcmp(task, e->task)))
            continue;
        tally.n++;
        tally.successes += e->success;
        tally.steps += e->success ? e->steps : 0;
    }
    return tally;
}

static void print_tally(const char *what, const struct tally *t)
{
    struct interval interval = wilson(t->successes, t->n, Z95);

    printf("%4" PRId64 "/%-4" PRId64 "  %.3f [%.3f %.3f]  ", t->successes, t->n, t->n ? (double)t->successes / (double)t->n : 0,
           interval.low, interval.high);
    if (t->successes)
        printf("%5.0f  %s\n", (double)t->steps / (double)t->successes, what);
    else
        printf("%5s  %s\n", "-", what);
}

static void print_table(const struct eval_suite *eval)
{
    struct tally all = count_task(eval, NULL);

    printf("success    rate  95 %% interval  steps  task\n");
    for (int t = 0; t < eval->config.n_tasks; t++) {
        struct tally tally = count_task(eval, eval->config.tasks[t]);

        print_tally(eval->config.tasks[t], &tally);
    }
    print_tally(eval->suite, &all);
}

static void write_tally(struct json_writer *w, const struct tally *t)
{
    struct interval interval = wilson(t->successes, t->n, Z95);

    json_signed(w, "episodes", t->n);
    json_signed(w, "successes", t->successes);
    json_number(w, "success", t->n ? (double)t->successes / (double)t->n : 0);
    json_interval(w, "interval", interval.low, interval.high);
    if (t->successes)
        json_number(w, "steps", (double)t->steps / (double)t->successes);
}

static int print_json(const struct eval_suite *eval)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};
    struct tally tally = count_task(eval, NULL);

    json_open(&w, NULL, '{');
    json_text(&w, "model", eval->model);
    json_text(&w, "suite", eval->suite);
    json_text(&w, "run", eval->config.dir);
    json_text(&w, "robosuite", eval->robosuite);
    json_number(&w, "temperature", eval->config.stages[0].eval.at[0]);
    json_signed(&w, "trials", eval->trials);
    write_tally(&w, &tally);
    json_open(&w, "tasks", '{');
    for (int t = 0; t < eval->config.n_tasks; t++) {
        tally = count_task(eval, eval->config.tasks[t]);
        json_open(&w, eval->config.tasks[t], '{');
        write_tally(&w, &tally);
        json_close(&w, '}');
    }
    json_close(&w, '}');
    json_close(&w, '}');
    if (out.failed)
        return -ENOMEM;
    printf("%s\n", out.text);
    return 0;
}

static int read_episodes(struct eval_suite *eval, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    const int64_t want = (int64_t)eval->trials * eval->config.n_tasks;
    int r = run_open_ledger(eval->config.dir, &ledger, error);
    int64_t played;

    if (r == 0 && (r = ledger_episodes(ledger, 0, LEDGER_ALL, &eval->episodes, &eval->n_episodes)) < 0)
        r = error_set(error, -r, "%s/ledger.sqlite: %s", eval->config.dir, ledger_error(ledger));
    if (r < 0)
        return r;
    played = count_task(eval, NULL).n;
    if (played >= want)
        return 0;
    for (size_t i = 0; i < eval->n_episodes; i++)       /* they count when their pass is over */
        played += eval->episodes[i].state == EPISODE_JOURNALED;
    return error_set(error, EAGAIN, "%" PRId64 " of %" PRId64 " episodes were played; the same command goes on from there", played,
                     want);
}

static int run_eval(struct eval_suite *eval, struct error *error)
{
    int r = make_config(eval, error);

    if (r < 0)
        return r;
    if (up_run_quietly(&eval->config) != CLI_OK)
        return error_set(error, EIO, "the evaluation did not run to its end (%s/log); the same command goes on from there",
                         eval->config.dir);
    r = read_episodes(eval, error);
    if (r < 0)
        return r;
    if (eval->json)
        return print_json(eval);
    print_table(eval);
    return 0;
}

int eval_suite(int argc, char **argv)
{
    _cleanup_free_ struct eval_suite *eval = calloc(1, sizeof *eval);
    struct error error = {0};
    int r;

    if (!eval)
        return CLI_FAILED;
    argc--;
    argv++;
    if (model_flag(&argc, argv, "--help"))
        return usage(stdout, CLI_OK);
    eval->json = model_flag(&argc, argv, "--json");
    eval->suite = model_option(&argc, argv, "--suite");
    eval->tasks = model_option(&argc, argv, "--tasks");
    eval->dir = model_option(&argc, argv, "--dir");
    eval->device = model_option(&argc, argv, "--device") ?: "cpu";
    eval->remote = model_option(&argc, argv, "--remote");
    eval->robosuite = model_option(&argc, argv, "--robosuite") ?: "1.4.1";
    eval->unnorm_key = model_option(&argc, argv, "--unnorm-key") ?: "";
    eval->center_crop = model_option(&argc, argv, "--center-crop") ?: "0";
    eval->temperature = model_option(&argc, argv, "--temperature") ?: "0";
    r = sim_number(&argc, argv, "--trials", 1, 1000000, 0, &eval->trials, &error);
    if (r == 0)
        r = sim_number(&argc, argv, "--env-workers", 1, 1024, 2, &eval->env_workers, &error);
    if (r == 0)
        r = sim_number(&argc, argv, "--slots", 1, 64, 4, &eval->slots, &error);
    if (r == 0 && argc != 1)
        return usage(stderr, CLI_USAGE);
    eval->model = argv[0];
    if (r == 0)
        r = run_eval(eval, &error);
    free(eval->episodes);
    if (r < 0) {
        fprintf(stderr, "gantry eval: %s\n", error_text(&error, r));
        return CLI_FAILED;
    }
    return CLI_OK;
}
