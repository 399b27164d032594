/* Policies beside one another: success with Wilson intervals, task by task, and paired differences. */
#include <errno.h>
#include <math.h>

#include "base/figure.h"
#include "cli/episode_film.h"
#include "cli/eval.h"
#include "cli/run_open.h"
#include "rl/stats.h"
#include "run/trajectory.h"

/* Successes of the outcomes of one task (below 0: all). */
static int64_t count(const struct eval *eval, const double *outcomes, int task, int64_t *ret_n)
{
    int64_t n = 0, successes = 0;

    for (int i = 0; i < eval->states; i++)
        if (!isnan(outcomes[i]) && (task < 0 || eval_task_of(eval, i) == task)) {
            n++;
            successes += outcomes[i] > 0;
        }
    *ret_n = n;
    return successes;
}

static void write_success(const struct eval *eval, const double *outcomes, int task, struct json_writer *w)
{
    int64_t n, successes = count(eval, outcomes, task, &n);
    struct interval interval = wilson(successes, n, EVAL_Z95);

    json_signed(w, "episodes", n);
    json_number(w, "success", n ? (double)successes / (double)n : NAN);
    json_interval(w, "interval", interval.low, interval.high);
}

void eval_write_difference(const struct paired *d, struct json_writer *w)
{
    json_signed(w, "pairs", d->pairs);
    json_number(w, "mean", d->mean);
    json_interval(w, "interval", d->low, d->high);
    json_signed(w, "gained", d->gained);
    json_signed(w, "lost", d->lost);
    json_number(w, "mcnemar_p", d->p);
}

/* With temperatures chosen here, greedy and T 1 were played beside the chosen one. */
static int write_other_temperatures(const struct eval *eval, int policy, double *outcomes, struct json_writer *w)
{
    static const struct {
        const char *key;
        double t;
    } others[] = {{"greedy", 0}, {"t1", 1}};
    char tag[EVAL_TAG];

    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        snprintf(tag, sizeof tag, "test %s t=%.3g", eval->ask->policies[policy], others[i].t);
        if (eval_outcomes(eval, tag, outcomes) == 0)
            continue;
        json_open(w, others[i].key, '{');
        write_success(eval, outcomes, -1, w);
        json_close(w, '}');
    }
    return 0;
}

/* Which one `last` or `best` was, as it was played. */
static void write_version(const struct eval *eval, const char *policy, const char *tag, struct json_writer *w)
{
    if (!strcmp(policy, "demonstrator"))
        return;
    for (size_t i = 0; i < eval->n_episodes; i++)
        if (!strcmp(eval->episodes[i].tag, tag)) {
            json_unsigned(w, "version", eval->episodes[i].policy_version);
            return;
        }
}

int eval_write_policies(const struct eval *eval, struct json_writer *w)
{
    _cleanup_free_ double *first = calloc((size_t)eval->states, sizeof *first),
                          *outcomes = calloc((size_t)eval->states, sizeof *outcomes);
    int last = eval->ask->n_policies - 1, r = 0;
    struct paired d;
    char tag[EVAL_TAG];

    if (!first || !outcomes)
        return -ENOMEM;
    json_open(w, "policies", '{');
    for (int i = 0; i <= last && r == 0; i++) {
        eval_test_tag(eval, i, tag);
        (void)eval_outcomes(eval, tag, outcomes);
        json_open(w, eval->ask->policies[i], '{');
        write_version(eval, eval->ask->policies[i], tag, w);
        json_number(w, "temperature", eval->temperature[i]);
        write_success(eval, outcomes, -1, w);
        json_open(w, "tasks", '{');
        for (int t = 0; t < eval->config.n_tasks; t++) {
            json_open(w, eval->config.tasks[t], '{');
            write_success(eval, outcomes, t, w);
            json_close(w, '}');
        }
        json_close(w, '}');
        if (eval->ask->choose)
            r = write_other_temperatures(eval, i, outcomes, w);
        json_close(w, '}');
    }
    json_close(w, '}');
    if (r < 0 || last == 0)
        return r;
    eval_test_tag(eval, 0, tag);
    (void)eval_outcomes(eval, tag, first);
    eval_test_tag(eval, last, tag);
    (void)eval_outcomes(eval, tag, outcomes);
    r = paired_compare(outcomes, first, eval->states, eval->config.seed, &d);
    if (r < 0)
        return r == -ENODATA ? 0 : r;
    json_open(w, "difference", '{');
    json_text(w, "of", eval->ask->policies[last]);
    json_text(w, "over", eval->ask->policies[0]);
    eval_write_difference(&d, w);
    json_close(w, '}');
    return 0;
}

void eval_print(const struct eval *eval)
{
    _cleanup_free_ double *first = calloc((size_t)eval->states, sizeof *first),
                          *outcomes = calloc((size_t)eval->states, sizeof *outcomes);
    struct paired d;
    char tag[EVAL_TAG];

    for (int i = 0; first && outcomes && i < eval->ask->n_policies; i++) {
        eval_test_tag(eval, i, tag);
        (void)eval_outcomes(eval, tag, i ? outcomes : first);
        for (int t = eval->config.n_tasks > 1 ? -1 : 0; t < eval->config.n_tasks; t++) {
            int64_t n, successes = count(eval, i ? outcomes : first, t, &n);
            struct interval interval = wilson(successes, n, EVAL_Z95);

            printf("%-14s T %-4.2g  %-18s success %.3f [%.3f %.3f] of %lld episodes\n", eval->ask->policies[i],
                   eval->temperature[i], t < 0 ? "all tasks" : eval->config.tasks[t], n ? (double)successes / (double)n : NAN,
                   interval.low, interval.high, (long long)n);
        }
        if (i > 0 && paired_compare(outcomes, first, eval->states, eval->config.seed, &d) == 0)
            printf("%-14s - %s: %+.1f points [%+.1f %+.1f], %d pairs, McNemar p %.2g\n", eval->ask->policies[i],
                   eval->ask->policies[0], figure(100 * d.mean, 1), figure(100 * d.low, 1), figure(100 * d.high, 1), d.pairs,
                   d.p);
    }
}

/* ---- what it took ---------------------------------------------------------------------------------------------------- */

struct tally {
    double n[2], chosen[2], x, xx;
};

static void add_trajectory(const Gantry__Trajectory *t, struct eval_cost *cost, struct tally *tally)
{
    double worth = (double)t->search_chosen;

    cost->episodes++;
    cost->policy_steps += t->policy_steps;
    cost->steps += t->steps;
    cost->slot_us += (double)t->act_us + (double)t->sim_us;
    cost->perturbed += t->perturbed_at > 0;
    if (worth > 0 || t->search_all > 0) {
        cost->decisions++;
        cost->chosen += worth;
        cost->all += (double)t->search_all;
        tally->n[t->success]++;
        tally->chosen[t->success] += worth;
        tally->x += worth;
        tally->xx += worth * worth;
    }
}

int eval_costs(const struct eval *eval, const char *tag, struct eval_cost *ret, struct error *error)
{
    _cleanup_(journal_closep) struct journal *journal = NULL;
    struct eval_cost cost = {0};
    struct tally tally = {0};
    double n, variance, covariance, share;
    int r = run_open_journal(eval->run_dir, eval->run_id, &journal, error);

    for (size_t i = 0; i < eval->n_episodes && r == 0; i++) {
        _cleanup_(trajectory_freep) Gantry__Trajectory *t = NULL;

        if (eval->episodes[i].state != EPISODE_EVALUATED || strcmp(eval->episodes[i].tag, tag))
            continue;
        r = trajectory_load(journal, eval->episodes[i].episode, &t, NULL, NULL, error);
        if (r == 0)
            add_trajectory(t, &cost, &tally);
    }
    if (r < 0)
        return r;
    n = tally.n[0] + tally.n[1];
    share = tally.n[1] / n;
    variance = tally.xx / n - tally.x / n * tally.x / n;
    covariance = tally.chosen[1] / n - tally.x / n * share;
    cost.chosen /= cost.decisions;
    cost.all /= cost.decisions;
    cost.chosen_success = tally.chosen[1] / tally.n[1];
    cost.chosen_failure = tally.chosen[0] / tally.n[0];
    cost.correlation = covariance / sqrt(variance * share * (1 - share));
    *ret = cost;
    return 0;
}
