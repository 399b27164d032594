/* The added stage: asked for, played, read back. */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "cli/cli.h"
#include "cli/eval.h"
#include "cli/run_open.h"
#include "cli/run_stages.h"
#include "cli/shell_word.h"
#include "cli/up.h"
#include "daemon/run_later.h"
#include "rl/stats.h"
#include "run/manifest.h"

#define STAGE_LINE "  - eval:\n"

enum { STATES_MOST = 10000000 };        /* eval.episodes' limit */

/* A name that the coordinator knows, or a version that is there. */
static int check_policy(const struct eval *eval, const char *name, struct error *error)
{
    static const char *const names[] = {"demonstrator", "sft", "sft-earlier", "best", "last"};
    char dir[VERSION_PATH];
    char *end;
    uint64_t number = strtoull(name, &end, 10);

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(name, names[i]))
            return 0;
    if (end == name || *end)
        return error_set(error, EINVAL, "--policies: there is no '%s'; there are sft, best, last, demonstrator and version "
                         "numbers", name);
    if (version_path(eval->run_dir, KIND_POLICY, number, dir) < 0 || access(dir, F_OK) < 0)
        return error_set(error, ENOENT, "--policies: version %s is not in %s/policies", name, eval->run_dir);
    return 0;
}

static int read_temperatures(struct eval *eval, struct error *error)
{
    char path[PATH_MAX];
    json_t *summary, *policies;
    int r = 0;

    snprintf(path, sizeof path, "%s/summary.json", eval->run_dir);
    summary = json_load_file(path, 0, NULL);
    if (!summary)
        return error_set(error, ENOENT,
                         "%s: not there; the run's own eval stage must have ended (it chooses the temperatures), or say "
                         "--temperatures or --at",
                         path);
    policies = json_object_get(summary, "policies");
    for (int i = 0; i < eval->ask->n_policies && r == 0; i++) {
        json_t *value = json_object_get(json_object_get(policies, eval->ask->policies[i]), "temperature");

        if (json_is_number(value))
            eval->temperature[i] = json_number_value(value);
        else
            r = error_set(
                error, ENOENT,
                "%s: no temperature for policy '%s'; it was not in the run's eval stage: say --temperatures .3,.6,1 or --at T",
                path, eval->ask->policies[i]);
    }
    json_decref(summary);
    return r;
}

/* The stage as it is asked for, with this run's temperatures. */
static void fill_stage(const struct eval *eval, struct stage_config *ret)
{
    const struct eval_ask *ask = eval->ask;

    *ret = (struct stage_config){.kind = STAGE_EVAL, .name = "later", .eval = ask->stage};
    memcpy(ret->eval.policies, ask->policies, sizeof ask->policies);
    ret->eval.n_policies = ask->n_policies;
    ret->eval.episodes = ret->eval.search_episodes = eval->states;
    ret->eval.first_state = ask->first;
    ret->eval.n_at = ask->choose ? 0 : ask->n_policies;
    for (int i = 0; i < ask->n_policies; i++)
        ret->eval.at[i] = eval->temperature[i];
}

/* Whether the coordinator ever opened this stage: then its episodes are in the ledger, and it stays. One that cannot be read (the
 * run is up) may have. */
static bool has_begun(struct ledger *ledger, uint32_t stage)
{
    struct ledger_episode *episodes = NULL;
    size_t n = 0;
    bool begun = !ledger || ledger_episodes(ledger, stage, LEDGER_ALL, &episodes, &n) < 0 || n > 0;

    free(episodes);
    return begun;
}

static bool is_done(struct ledger *ledger, uint32_t stage)
{
    _cleanup_free_ struct ledger_stage *stages = NULL;
    size_t n = 0;

    if (ledger_stages(ledger, &stages, &n) < 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (stages[i].stage == stage)
            return stages[i].state == PROGRESS_DONE;
    return false;
}

/* The stages before, of which at least one episode was ever dealt out: who was killed before that leaves nothing that would stand
 * before every evaluation after it. Stages are played in their order, so what never began is at the end. *ret is NULL where there
 * are none. A file without a stage of ours is left to the parser; one that lacks what the ledger has is refused: its rows would
 * be taken for those of another question. */
static int read_stages(const struct eval *eval, char **ret, size_t *ret_length, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX], *end;
    uint32_t first = (uint32_t)eval->config.n_stages, stage = first;
    struct error unread;
    size_t length = 0;
    int r;

    if ((r = run_later_path(eval->run_dir, eval->config.n_stages, path, sizeof path, error)) < 0)
        return r;
    r = file_read(path, 1 << 20, &text, &length);
    if (r < 0 && r != -ENOENT)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    (void)run_open_ledger(eval->run_dir, &ledger, &unread);
    end = r == 0 ? strstr(text, STAGE_LINE) : NULL;
    if (end || !length) {
        for (; end && has_begun(ledger, stage); stage++)
            end = strstr(end + strlen(STAGE_LINE), STAGE_LINE);
        if (!end && ledger && has_begun(ledger, stage))
            return error_set(error, EINVAL, "%s: the ledger has an evaluation that is not in this file; put it back as it was",
                             path);
        if (stage == first)
            return 0;
        if (end)
            *end = '\0';
    }
    *ret_length = strlen(text);
    *ret = TAKE_PTR(text);
    return 0;
}

/* What follows the evaluation's first line once nothing more of it is played (eval.dropped); stage_config_write has `false` in a
 * line, too, which is left out of the file: without it an evaluation is found by its words, whoever wrote them when. */
#define DROPPED_LINE "      dropped: true\n"
#define KEPT_LINE "dropped: false"

/* Those of *text that were begun and have not ended are dropped. */
static int drop_stopped(const struct eval *eval, char **text, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    uint32_t stage = (uint32_t)eval->config.n_stages;
    char *from = *text, *next;
    int r = run_open_ledger(eval->run_dir, &ledger, error);

    if (r < 0)
        return r;
    for (; (next = strstr(from, STAGE_LINE)); from = next, stage++) {
        next += strlen(STAGE_LINE);
        strbuf_add(&out, from, (size_t)(next - from));
        if (!is_done(ledger, stage) && strncmp(next, DROPPED_LINE, strlen(DROPPED_LINE)) != 0)
            strbuf_adds(&out, DROPPED_LINE);
    }
    strbuf_adds(&out, from);
    if (out.failed)
        return error_set(error, ENOMEM, "out of memory");
    free(*text);
    *text = strbuf_detach(&out);
    return 0;
}

/* Where in RUN/evals.yaml this very stage is: its number among them, or -1. */
static int find_stage(const char *stages, const char *stage)
{
    const char *at = strstr(stages, stage), *line = stages;
    int n = 0;

    if (!at)
        return -1;
    while ((line = strstr(line, STAGE_LINE)) < at) {
        n++;
        line += strlen(STAGE_LINE);
    }
    return n;
}

/* RUN/evals.yaml with the stage at its end, checked as the run's next one: what does not fit is said in one line. A stage that is
 * there is not added: the same states would be played in the same way with the same keys. */
static int write_stage(struct eval *eval, struct strbuf *text, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf settings = STRBUF_INIT, block = STRBUF_INIT;
    _cleanup_free_ struct run_config *check = malloc(sizeof *check);
    _cleanup_free_ char *old = NULL;
    struct stage_config stage;
    char path[PATH_MAX], *save = NULL;
    size_t length = 0;
    int r, there;

    if (!check)
        return error_set(error, ENOMEM, "out of memory");
    if ((r = read_stages(eval, &old, &length, error)) < 0)
        return r;
    if (old && eval->ask->drop_stopped && (r = drop_stopped(eval, &old, error)) < 0)
        return r;
    if ((r = run_later_path(eval->run_dir, eval->config.n_stages, path, sizeof path, error)) < 0)
        return r;
    fill_stage(eval, &stage);
    if (stage_config_write(&stage, &settings) < 0)
        return error_set(error, ENOMEM, "out of memory");
    strbuf_adds(&block, STAGE_LINE);
    for (char *line = strtok_r(settings.text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (strncmp(line, "kind:", 5) != 0 && strncmp(line, "name:", 5) != 0 && strcmp(line, KEPT_LINE) != 0)
            strbuf_addf(&block, "      %s\n", line);
    if (block.failed)
        return error_set(error, ENOMEM, "out of memory");
    there = old ? find_stage(old, block.text) : -1;
    strbuf_adds(text, old ? old : "# evaluations after the run, by gantry eval\nstages:\n");
    if (there < 0)
        strbuf_adds(text, block.text);
    r = run_config_parse_later(text->text, text->length, path, &eval->config, check, error);
    if (r < 0)
        return r;
    eval->stage = (uint32_t)(eval->config.n_stages + (there < 0 ? check->n_stages - 1 : there));
    if (eval->stage >= RUN_MAX_STAGES)
        return error_set(error, ENOSPC, "%s: more than %d stages in this run; evaluate a copy of the run directory", path,
                         RUN_MAX_STAGES);
    return 0;
}

/* Writes RUN/evals.yaml, or removes it where text is NULL. */
static int put_stages(const struct eval *eval, const char *text, size_t length, struct error *error)
{
    char path[PATH_MAX];
    int r = run_later_path(eval->run_dir, eval->config.n_stages, path, sizeof path, error);

    if (r < 0)
        return r;
    if (text)
        r = atomic_file_write(path, text, length);
    else
        r = unlink(path) < 0 && errno != ENOENT ? -errno : 0;
    return r < 0 ? error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r)) : 0;
}

/* It would be trained to its end first, which may take days: that is `gantry up`'s to do. */
static int check_finished(const char *run_dir, const struct run_config *config, struct error *error)
{
    _cleanup_free_ char *where = shell_word(run_dir);
    const char *run = where ?: run_dir;
    struct run_stages stages;

    if (run_stages_read(run_dir, config, &stages, NULL) < 0 || run_stages_all(&stages))
        return 0;
    return error_set(error, EAGAIN, "%s: the run is not finished; `gantry up %s` goes on with it, `gantry model export "
                     "%s:VERSION DIR` makes a policy.init of what it has, for a run that has an eval stage alone", run_dir,
                     run, run);
}

int eval_open(const char *run_dir, const struct eval_ask *ask, struct eval *ret, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    struct error held = {0};
    char path[PATH_MAX];
    int r;

    *ret = (struct eval){.ask = ask, .run_dir = run_dir};
    snprintf(path, sizeof path, "%s/config.yaml", run_dir);
    r = run_config_load(path, &ret->config, error);
    if (r == 0 && run_open_ledger(run_dir, &ledger, &held) == -EBUSY)
        r = error_set(error, EBUSY, "%s", held.text);
    ledger = ledger_close(ledger);
    if (r >= 0)
        r = check_finished(run_dir, &ret->config, error);
    if (r < 0)
        return r;
    if (((int64_t)ask->last - ask->first + 1) * ret->config.n_tasks > STATES_MOST)
        return error_set(error, EINVAL, "--seeds %d..%d: more than %d episodes of each policy over %d tasks", ask->first,
                         ask->last, STATES_MOST, ret->config.n_tasks);
    ret->states = (ask->last - ask->first + 1) * ret->config.n_tasks;
    for (int i = 0; i < ask->n_policies && r == 0; i++) {
        ret->temperature[i] = ask->at >= 0 ? ask->at : 0;
        r = check_policy(ret, ask->policies[i], error);
    }
    if (r == 0 && !ask->choose && ask->at < 0)
        r = read_temperatures(ret, error);
    return r < 0 ? r : write_stage(ret, &text, error);
}

void eval_release(struct eval *eval)
{
    free(eval->episodes);
    eval->episodes = NULL;
}

static size_t count_open(const struct ledger_episode *episodes, size_t n)
{
    size_t open = 0;

    for (size_t i = 0; i < n; i++)
        open += episodes[i].state == EPISODE_OPEN;
    return open;
}

/* Stages are played in their order: one of ours that was begun and stopped comes before what is asked for now. */
static void say_first(const struct eval *eval)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    struct error unread;

    if (run_open_ledger(eval->run_dir, &ledger, &unread) < 0)
        return;
    for (uint32_t stage = (uint32_t)eval->config.n_stages; stage < eval->stage; stage++) {
        _cleanup_free_ struct ledger_episode *episodes = NULL;
        size_t n = 0;

        if (is_done(ledger, stage) || ledger_episodes(ledger, stage, LEDGER_ALL, &episodes, &n) < 0)
            continue;
        if (eval->ask->drop_stopped)
            fprintf(stderr, "note: %s: an evaluation that was begun before and stopped is dropped; what was played of it counts for "
                    "nothing\n", eval->run_dir);
        else
            fprintf(stderr, "note: %s: an evaluation that was begun before and stopped is played to its end first, at least %zu "
                    "episodes more; --drop-stopped gives it up\n", eval->run_dir, count_open(episodes, n));
    }
}

static int read_rows(struct eval *eval, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    int r = run_open_ledger(eval->run_dir, &ledger, error);

    if (r < 0)
        return r;
    eval_release(eval);
    eval->run_id = ledger_run(ledger)->id;
    if ((r = ledger_episodes(ledger, eval->stage, LEDGER_ALL, &eval->episodes, &eval->n_episodes)) < 0)
        return error_set(error, -r, "%s/ledger.sqlite: %s", eval->run_dir, ledger_error(ledger));
    if (is_done(ledger, eval->stage))
        return 0;
    return error_set(error, EAGAIN, "%zu episodes were played, more are wanted; the same command again goes on where it stopped",
                     eval->n_episodes - count_open(eval->episodes, eval->n_episodes));
}

/* The conductor's rule (stage_plan_learn): most successes on val, of equals the first in the list. */
static void read_choice(struct eval *eval)
{
    for (int p = 0; p < eval->ask->n_policies; p++) {
        double best = -1;

        for (int i = 0; i < eval->ask->stage.n_temperatures; i++) {
            double n = 0, successes = 0;
            char tag[EVAL_TAG];

            snprintf(tag, sizeof tag, "val %s t=%.3g", eval->ask->policies[p], (double)(float)eval->ask->stage.temperatures[i]);
            for (size_t k = 0; k < eval->n_episodes; k++)
                if (eval->episodes[k].state == EPISODE_EVALUATED && !strcmp(eval->episodes[k].tag, tag)) {
                    n++;
                    successes += eval->episodes[k].success;
                }
            if (n > 0 && successes / n > best) {
                best = successes / n;
                eval->temperature[p] = eval->ask->stage.temperatures[i];
            }
        }
    }
}

int eval_read(struct eval *eval, struct error *error)
{
    int r = read_rows(eval, error);

    if (r == 0 && eval->ask->choose)
        read_choice(eval);
    return r;
}

int eval_play(struct eval *eval, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ char *before = NULL, *now = NULL;
    size_t length = 0, n = 0;
    int r;

    if ((r = read_stages(eval, &before, &length, error)) < 0 || (r = write_stage(eval, &text, error)) < 0 ||
        (r = put_stages(eval, text.text, text.length, error)) < 0)
        return r;
    if (length && length == text.length && eval_read(eval, error) == 0)
        return 0; /* asked before, and played to its end */
    say_first(eval);
    snprintf(eval->config.dir, sizeof eval->config.dir, "%s", eval->run_dir);
    if (up_run_quietly(&eval->config) != CLI_OK) {
        if ((r = read_stages(eval, &now, &n, error)) < 0 || (r = put_stages(eval, now, n, error)) < 0)
            return r;
        return error_set(error, EIO, "the evaluation did not run to its end; the same command again goes on with it");
    }
    return eval_read(eval, error);
}

void eval_test_tag(const struct eval *eval, int policy, char ret[EVAL_TAG])
{
    if (!strcmp(eval->ask->policies[policy], "demonstrator"))
        snprintf(ret, EVAL_TAG, "test demonstrator");
    else
        snprintf(ret, EVAL_TAG, "test %s t=%.3g", eval->ask->policies[policy], (double)(float)eval->temperature[policy]);
}

int eval_outcomes(const struct eval *eval, const char *tag, double *ret)
{
    int n = 0;

    for (int i = 0; i < eval->states; i++)
        ret[i] = NAN;
    for (size_t i = 0; i < eval->n_episodes; i++) {
        const struct ledger_episode *e = &eval->episodes[i];
        int64_t state = (int64_t)e->state_seed - eval->ask->first;

        if (e->state != EPISODE_EVALUATED || strcmp(e->tag, tag) || state < 0 || state * eval->config.n_tasks >= eval->states)
            continue; /* a stand-in for a state that broke has a number of its own: it is nobody's pair */
        for (int t = 0; t < eval->config.n_tasks; t++)
            if (!strcmp(eval->config.tasks[t], e->task)) {
                n += isnan(ret[state * eval->config.n_tasks + t]);
                ret[state * eval->config.n_tasks + t] = e->success;
            }
    }
    return n;
}
