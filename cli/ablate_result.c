/* What a ladder came to: every rung with its interval, every step from rung to rung, and what each cost. */
#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "base/figure.h"
#include "base/json_write.h"
#include "cli/ablate.h"
#include "cli/eval.h"
#include "cli/plot_png.h"
#include "cli/run_branch.h"
#include "cli/run_open.h"
#include "rl/stats.h"

static const struct eval_config *eval_of(const struct run_config *config) { return &config->stages[config->n_stages - 1].eval; }

static bool is_training(const struct run_config *config, uint32_t stage, int start_stages)
{
    return (int)stage >= start_stages && (int)stage < config->n_stages && config->stages[stage].kind != STAGE_EVAL;
}

/* The rung's own training: its stages behind the start, without the tests. */
static int read_cost(const struct run_config *config, int start_stages, double *steps, double *wall_s, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_free_ struct ledger_stage *stages = NULL;
    _cleanup_free_ struct ledger_episode *episodes = NULL;
    size_t n;
    int r = run_open_ledger(config->dir, &ledger, error);

    if (r < 0)
        return r;
    r = ledger_stages(ledger, &stages, &n);
    for (size_t i = 0; r == 0 && i < n; i++)
        if (is_training(config, stages[i].stage, start_stages))
            *wall_s += stages[i].wall_s;
    if (r == 0)
        r = ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &episodes, &n);
    for (size_t i = 0; r == 0 && i < n; i++)
        if (is_training(config, episodes[i].stage, start_stages))
            *steps += episodes[i].steps;
    return r < 0 ? error_set(error, -r, "%s/ledger.sqlite: %s", config->dir, ledger_error(ledger)) : 0;
}

/* One seed of a rung: -ENOENT when its run has not ended. */
static int read_seed(const struct ablate *a, int seed, enum ablate_rung rung, struct ablate_measured *m, int *states,
                     struct error *error)
{
    _cleanup_free_ struct run_config *start = malloc(sizeof *start);
    struct eval_ask ask = {.policies = {"last"}, .n_policies = 1, .choose = true};
    struct eval eval = {.ask = &ask};
    bool search = rung == RUNG_F || rung == RUNG_F_ANEW;
    char tag[EVAL_TAG];
    double *larger, steps = 0, wall_s = 0;
    bool ended;
    int r = start ? ablate_start_config(a, seed, start, error) : error_set(error, ENOMEM, "out of memory");

    if (r == 0)
        r = ablate_rung_config(a, seed, rung, &eval.config, error);
    if (r == 0)
        r = run_ended(&eval.config, &ended, error);
    if (r < 0 || !ended)
        return r < 0 ? r : -ENOENT;
    eval.run_dir = eval.config.dir;
    eval.stage = (uint32_t)eval.config.n_stages - 1;
    ask.stage = *eval_of(&eval.config);
    ask.first = ask.stage.first_state;
    eval.states = ask.stage.episodes / eval.config.n_tasks * eval.config.n_tasks;
    *states = eval.states;
    r = eval_read(&eval, error);
    larger = r < 0 ? NULL : realloc(m->outcomes, sizeof *larger * (size_t)(m->seeds + 1) * (size_t)eval.states);
    if (larger) {
        m->outcomes = larger;
        if (search)
            snprintf(tag, sizeof tag, "search last n=%d", a->search_n);
        else
            eval_test_tag(&eval, 0, tag);
        if (eval_outcomes(&eval, tag, larger + (size_t)m->seeds * (size_t)eval.states) < eval.states)
            r = error_set(error, ENODATA, "%s: not every state of the test was played to its end", eval.run_dir);
        m->temperature[m->seeds] = search ? ask.stage.search_temperature : eval.temperature[0];
    } else if (r == 0) {
        r = error_set(error, ENOMEM, "out of memory");
    }
    if (r == 0)
        r = read_cost(&eval.config, start->n_stages, &steps, &wall_s, error);
    if (r == 0) {
        m->env_steps += steps;
        m->wall_s += wall_s;
        m->seeds++;
    }
    eval_release(&eval);
    return r;
}

static int interval_of(const double *a, const double *b, int seeds, int states, uint64_t seed, struct interval *ret)
{
    return seeds > 1 ? hierarchical_bootstrap(a, b, seeds, states, BOOTSTRAP_RESAMPLES, .95, seed, ret)
                     : paired_bootstrap(a, b, states, BOOTSTRAP_RESAMPLES, .95, seed, ret);
}

static int conclude(const struct ablate *a, struct ablate_measured *m, int states)
{
    _cleanup_free_ double *zeros = calloc((size_t)m->seeds * (size_t)states, sizeof *zeros);
    int n = m->seeds * states, tasks = a->config.n_tasks, r;
    struct interval interval;

    if (!zeros)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        m->success += m->outcomes[i] / n;
        if (i % states % tasks < ABLATE_TASKS_MAX)
            m->tasks[i % states % tasks] += m->outcomes[i] / ((double)n / tasks);
    }
    r = interval_of(m->outcomes, zeros, m->seeds, states, a->first_seed, &interval);
    m->low = interval.low;
    m->high = interval.high;
    m->env_steps /= m->seeds;
    m->wall_s /= m->seeds;
    m->there = r == 0;
    return r;
}

int ablate_measure(const struct ablate *a, struct ablate_result *ret, struct error *error)
{
    *ret = (struct ablate_result){0};
    for (int rung = 0; rung < RUNGS; rung++) {
        struct ablate_measured *m = &ret->rungs[rung];
        int r = 0;

        for (int seed = 0; a->wanted[rung] && seed < a->seeds && r == 0; seed++)
            r = read_seed(a, seed, (enum ablate_rung)rung, m, &ret->states, error);
        if (r == -ENOENT)
            r = 0; /* not played yet: with the seeds there are */
        if (r == 0 && m->seeds && (r = conclude(a, m, ret->states)) < 0)
            r = error_set(error, -r, "the intervals: %s", strerror(-r));
        if (r < 0)
            return r;
    }
    return 0;
}

void ablate_result_release(struct ablate_result *result)
{
    for (int rung = 0; rung < RUNGS; rung++)
        free(result->rungs[rung].outcomes);
}

/* ---- differences -------------------------------------------------------------------------------------------------------- */

struct step {
    int seeds;
    double mean, low, high;
};

/* false: one of the two is not there. */
static bool difference(const struct ablate *a, const struct ablate_result *result, int after, int before, struct step *ret)
{
    const struct ablate_measured *x = &result->rungs[after], *y = &result->rungs[before];
    struct step step = {.seeds = MIN(x->seeds, y->seeds)};
    struct interval interval;
    int n = step.seeds * result->states;

    if (after == before || !x->there || !y->there ||
        interval_of(x->outcomes, y->outcomes, step.seeds, result->states, a->first_seed, &interval) < 0)
        return false;
    for (int i = 0; i < n; i++)
        step.mean += (x->outcomes[i] - y->outcomes[i]) / n;
    step.low = interval.low;
    step.high = interval.high;
    *ret = step;
    return true;
}

static void write_step(const char *key, const char *over, const struct step *step, struct json_writer *w)
{
    json_open(w, key, '{');
    json_text(w, "over", over);
    json_number(w, "mean", step->mean);
    json_interval(w, "interval", step->low, step->high);
    json_signed(w, "seeds", step->seeds);
    json_close(w, '}');
}

static double success_of_seed(const struct ablate_measured *m, int seed, int states)
{
    double sum = 0;

    for (int i = 0; i < states; i++)
        sum += m->outcomes[seed * states + i] / states;
    return sum;
}

static void write_rung(const struct ablate *a, const struct ablate_result *result, int rung, struct json_writer *w)
{
    const struct ablate_measured *m = &result->rungs[rung];
    struct step step;

    json_open(w, ablate_rungs[rung].name, '{');
    json_text(w, "what", ablate_rungs[rung].title);
    json_signed(w, "seeds", m->seeds);
    json_number(w, "success", m->success);
    json_interval(w, "interval", m->low, m->high);
    json_open(w, "by_seed", '[');
    for (int s = 0; s < m->seeds; s++)
        json_number(w, NULL, success_of_seed(m, s, result->states));
    json_close(w, ']');
    json_open(w, "temperatures", '[');
    for (int s = 0; s < m->seeds; s++)
        json_number(w, NULL, m->temperature[s]);
    json_close(w, ']');
    json_open(w, "tasks", '{');
    for (int t = 0; t < a->config.n_tasks && t < ABLATE_TASKS_MAX; t++)
        json_number(w, a->config.tasks[t], m->tasks[t]);
    json_close(w, '}');
    if (difference(a, result, rung, (int)ablate_rungs[rung].over, &step))
        write_step("step", ablate_rungs[ablate_rungs[rung].over].name, &step, w);
    if (difference(a, result, rung, RUNG_A, &step))
        write_step("from_A", "A", &step, w);
    json_number(w, "env_steps", m->env_steps);
    json_number(w, "wall_s", m->wall_s);
    json_number(w, "core_hours", m->wall_s * (double)sysconf(_SC_NPROCESSORS_ONLN) / 3600);
    json_close(w, '}');
}

int ablate_write(const struct ablate *a, const struct ablate_result *result, struct strbuf *out)
{
    struct json_writer w = {.out = out};

    json_open(&w, NULL, '{');
    json_text(&w, "ladder", a->config.name);
    json_unsigned(&w, "first_seed", a->first_seed);
    json_signed(&w, "seeds", a->seeds);
    json_signed(&w, "test_states", result->states);
    json_open(&w, "rungs", '{');
    for (int rung = 0; rung < RUNGS; rung++)
        if (result->rungs[rung].there)
            write_rung(a, result, rung, &w);
    json_close(&w, '}');
    json_close(&w, '}');
    strbuf_addc(out, '\n');
    return out->failed ? -ENOMEM : 0;
}

int ablate_print(const struct ablate *a, const struct ablate_result *result)
{
    struct step step;

    printf("%-6s %-58s %-5s %-26s %-30s %9s %8s\n", "rung", "what", "seeds", "success, 95 %", "difference in points, 95 %",
           "env steps", "wall s");
    for (int rung = 0; rung < RUNGS; rung++) {
        const struct ablate_measured *m = &result->rungs[rung];
        char text[48] = "";

        if (!m->there)
            continue;
        if (difference(a, result, rung, (int)ablate_rungs[rung].over, &step))
            snprintf(text, sizeof text, "%+.1f [%+.1f, %+.1f] over %s", figure(100 * step.mean, 1), figure(100 * step.low, 1),
                     figure(100 * step.high, 1), ablate_rungs[ablate_rungs[rung].over].name);
        printf("%-6s %-58s %-5d %.3f [%.3f, %.3f]%8s %-30s %9.0f %8.0f\n", ablate_rungs[rung].name, ablate_rungs[rung].title,
               m->seeds, m->success, m->low, m->high, "", text, m->env_steps, m->wall_s);
    }
    printf("%d test states; success and differences are paired state by state, intervals over %s\n", result->states,
           a->seeds > 1 ? "seeds, then states" : "states alone: one seed says nothing of others");
    return 0;
}

/* One column for each rung that is there: its seeds as dots, its interval as a whisker. */
int ablate_plot(const struct ablate_result *result, const char *path, struct error *error)
{
    const char *names[RUNGS];
    struct plot plot = {.title = "Success by rung: seeds, and 95 % intervals", .x_label = "rung", .y_min = 0, .y_max = 1,
                        .x_names = names};
    double at[2 * RUNGS], low[2 * RUNGS], high[2 * RUNGS]; /* with a gap between any two */
    int n = 0, r = 0;

    for (int rung = 0; rung < RUNGS && r == 0; rung++) {
        const struct ablate_measured *m = &result->rungs[rung];
        double x[ABLATE_SEEDS_MAX], y[ABLATE_SEEDS_MAX];
        char name[32];

        if (!m->there)
            continue;
        for (int s = 0; s < m->seeds; s++) {
            x[s] = plot.n_x_names;
            y[s] = 0;
            for (int i = 0; i < result->states; i++)
                y[s] += m->outcomes[s * result->states + i] / result->states;
        }
        snprintf(name, sizeof name, "%s %.2f", ablate_rungs[rung].name, m->success);
        r = plot_line(&plot, name, x, y, m->seeds, PLOT_DOTS);
        at[n] = at[n + 1] = plot.n_x_names;
        low[n] = m->low;
        high[n] = m->high;
        low[n + 1] = high[n + 1] = NAN;
        n += 2;
        names[plot.n_x_names++] = ablate_rungs[rung].name;
    }
    if (r == 0)
        r = plot_band(&plot, "", at, low, high, n);
    return plot_finish_png(&plot, r, path, error);
}
