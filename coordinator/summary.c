#include "coordinator/summary.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "base/atomic_file.h"
#include "base/json_write.h"
#include "coordinator/summary_internal.h"
#include "rl/stats.h"
#include "run/rundir.h"
#include "version.h"

static const double Z95 = 1.959963984540054;

/* ---- what was measured ------------------------------------------------------------------------------ */

bool measure(const struct summary *s, const char *tag, const char *task, struct measured *ret)
{
    struct measured m = {0};

    for (size_t i = 0; i < s->n_episodes; i++) {
        const struct ledger_episode *e = &s->episodes[i];

        if (e->state != EPISODE_EVALUATED || e->stage != s->eval_stage || strcmp(e->tag, tag) || (task && strcmp(e->task, task)))
            continue;
        m.episodes++;
        m.successes += e->success;
        m.steps += e->steps;
    }
    *ret = m;
    return m.episodes > 0;
}

/* Mean over the tasks, each weighing the same; NaN: not played. */
double success_of(const struct summary *s, const char *tag)
{
    struct measured m;
    double sum = 0;
    int tasks = 0;

    for (int t = 0; t < s->config->n_tasks; t++)
        if (measure(s, tag, s->config->tasks[t], &m)) {
            sum += (double)m.successes / (double)m.episodes;
            tasks++;
        }
    return tasks ? sum / tasks : NAN;
}

void policy_tag(const char *split, const char *policy, double temperature, char ret[TAG_SIZE])
{
    snprintf(ret, TAG_SIZE, "%s %s t=%.3g", split, policy, (double)(float)temperature);
}

/* The temperature with most successes on val, of equals the first in the list: the conductor's rule (stage_plan_learn). One that
 * was settled before (eval.at) stands. */
bool best_temperature(const struct summary *s, const char *policy, double *ret)
{
    int settled = s->eval->n_at ? policy_index(s, policy) : -1;
    struct measured m;
    char tag[TAG_SIZE];
    double best = -1;

    if (settled >= 0) {
        *ret = s->eval->at[settled];
        return true;
    }
    for (int i = 0; i < s->eval->n_temperatures; i++) {
        policy_tag("val", policy, s->eval->temperatures[i], tag);
        if (measure(s, tag, NULL, &m) && (double)m.successes / (double)m.episodes > best) {
            best = (double)m.successes / (double)m.episodes;
            *ret = s->eval->temperatures[i];
        }
    }
    return best >= 0;
}

/* Its test rows at the temperature chosen on val; the demonstrator has none to choose. */
bool best_tag(const struct summary *s, int policy, char ret[TAG_SIZE])
{
    const char *name = s->eval->policies[policy];
    struct measured m;
    double temperature;

    if (!strcmp(name, "demonstrator"))
        snprintf(ret, TAG_SIZE, "test demonstrator");
    else if (best_temperature(s, name, &temperature))
        policy_tag("test", name, temperature, ret);
    else
        return false;
    return measure(s, ret, NULL, &m);
}

int policy_index(const struct summary *s, const char *name)
{
    for (int i = 0; i < s->eval->n_policies; i++)
        if (!strcmp(s->eval->policies[i], name))
            return i;
    return -1;
}

/* ---- paired differences ------------------------------------------------------------------------------ */

static const struct ledger_episode *partner(const struct summary *s, const struct ledger_episode *of, const char *tag)
{
    struct ledger_episode wanted = *of;
    const struct ledger_episode *key = &wanted, **found;

    snprintf(wanted.tag, sizeof wanted.tag, "%s", tag);
    found = s->n_evaluated ? bsearch(&key, s->evaluated, s->n_evaluated, sizeof key, summary_by_state) : NULL;
    return found ? *found : NULL;
}

int compare(const struct summary *s, const char *after, const char *before, struct paired *ret)
{
    _cleanup_free_ double *a = calloc(s->n_episodes + 1, sizeof *a), *b = calloc(s->n_episodes + 1, sizeof *b);
    int n = 0;

    if (!a || !b)
        return -ENOMEM;
    for (size_t i = 0; i < s->n_episodes; i++) {
        const struct ledger_episode *e = &s->episodes[i], *other;

        if (e->state != EPISODE_EVALUATED || e->stage != s->eval_stage || strcmp(e->tag, after) ||
            !(other = partner(s, e, before)))
            continue;
        a[n] = e->success;
        b[n++] = other->success;
    }
    return paired_compare(a, b, n, s->config->seed, ret);
}

/* Success of one state's rows under `policy`, averaged over the temperatures tried on val; NaN: one is missing. */
static double val_mean(const struct summary *s, const struct ledger_episode *state, const char *policy)
{
    double sum = 0;

    for (int i = 0; i < s->eval->n_temperatures; i++) {
        const struct ledger_episode *row;
        char tag[TAG_SIZE];

        policy_tag("val", policy, s->eval->temperatures[i], tag);
        row = partner(s, state, tag);
        sum += row ? row->success : NAN;
    }
    return sum / s->eval->n_temperatures;
}

int compare_on_val(const struct summary *s, const char *after, const char *before, struct paired *ret)
{
    _cleanup_free_ double *a = calloc(s->n_episodes + 1, sizeof *a), *b = calloc(s->n_episodes + 1, sizeof *b);
    char tag[TAG_SIZE];
    int n = 0;

    if (!a || !b)
        return -ENOMEM;
    policy_tag("val", after, s->eval->temperatures[0], tag);
    for (size_t i = 0; i < s->n_episodes; i++) {
        const struct ledger_episode *e = &s->episodes[i];

        if (e->state != EPISODE_EVALUATED || e->stage != s->eval_stage || strcmp(e->tag, tag))
            continue;
        a[n] = val_mean(s, e, after);
        b[n++] = val_mean(s, e, before);
    }
    return paired_compare(a, b, n, s->config->seed, ret);
}

static int write_difference(const struct summary *s, const char *key, const char *after, const char *before,
                            struct json_writer *w)
{
    struct paired d;
    int r = compare(s, after, before, &d);

    if (r == -ENODATA) {
        json_text(w, key, NULL);
        return 0;
    }
    if (r < 0)
        return r;
    json_open(w, key, '{');
    json_number(w, "difference", d.mean);
    json_interval(w, "interval95", d.low, d.high);
    json_signed(w, "pairs", d.pairs);
    json_signed(w, "gained", d.gained);
    json_signed(w, "lost", d.lost);
    json_number(w, "mcnemar_p", d.p);
    json_close(w, '}');
    return 0;
}

/* ---- sections ---------------------------------------------------------------------------------------- */

static void write_measured(const struct summary *s, const char *tag, struct json_writer *w)
{
    struct interval interval;
    struct measured m;

    if (!measure(s, tag, NULL, &m))
        return;
    interval = wilson(m.successes, m.episodes, Z95);
    json_number(w, "success", success_of(s, tag));
    json_interval(w, "interval95", interval.low, interval.high);
    json_signed(w, "episodes", m.episodes);
    json_number(w, "mean_steps", (double)m.steps / (double)m.episodes);
    json_open(w, "tasks", '{');
    for (int t = 0; t < s->config->n_tasks; t++)
        if (measure(s, tag, s->config->tasks[t], &m)) {
            json_open(w, s->config->tasks[t], '{');
            json_number(w, "success", (double)m.successes / (double)m.episodes);
            json_signed(w, "episodes", m.episodes);
            json_close(w, '}');
        }
    json_close(w, '}');
}

static void write_by_temperature(const struct summary *s, const char *split, const char *name, struct json_writer *w)
{
    const double extra[] = {0, 1};      /* greedy and T = 1 stand beside the chosen one, whatever was tried */
    char tag[TAG_SIZE], key[16];

    json_open(w, split, '{');
    for (int i = 0; i < s->eval->n_temperatures + (int)ARRAY_SIZE(extra); i++) {
        double t = i < s->eval->n_temperatures ? s->eval->temperatures[i] : extra[i - s->eval->n_temperatures];
        bool again = false;

        for (int j = 0; j < s->eval->n_temperatures && j < i; j++)
            again |= s->eval->temperatures[j] == t;
        policy_tag(split, name, t, tag);
        if (again || isnan(success_of(s, tag)))
            continue;
        snprintf(key, sizeof key, "%.3g", t);
        json_number(w, key, success_of(s, tag));
    }
    json_close(w, '}');
}

static void write_policies(const struct summary *s, struct json_writer *w)
{
    char tag[TAG_SIZE];
    double temperature;

    json_open(w, "policies", '{');
    for (int i = 0; i < s->eval->n_policies; i++) {
        const char *name = s->eval->policies[i];

        if (!best_tag(s, i, tag))
            continue;
        json_open(w, name, '{');
        if (strcmp(name, "demonstrator") && best_temperature(s, name, &temperature)) {
            json_unsigned(w, "version", version_of(s, tag));
            json_number(w, "temperature", temperature);
        }
        write_measured(s, tag, w);
        if (strcmp(name, "demonstrator")) {
            policy_tag("test", name, 0, tag);
            json_number(w, "greedy", success_of(s, tag));
            policy_tag("test", name, 1, tag);
            json_number(w, "t1", success_of(s, tag));
            write_by_temperature(s, "test", name, w);
            write_by_temperature(s, "val", name, w);
        }
        json_close(w, '}');
    }
    json_close(w, '}');
}

static int write_search(const struct summary *s, struct json_writer *w)
{
    char tag[TAG_SIZE], one[TAG_SIZE], key[32];
    struct measured m;
    int r = 0;

    json_open(w, "search", '{');
    for (int i = 0; r == 0 && i < s->eval->n_policies; i++) {
        snprintf(one, sizeof one, "search %s n=1", s->eval->policies[i]);
        if (!measure(s, one, NULL, &m))
            continue;
        json_open(w, s->eval->policies[i], '{');
        for (int k = 0; r == 0 && k < s->eval->n_n; k++) {
            snprintf(tag, sizeof tag, "search %s n=%d", s->eval->policies[i], s->eval->n[k]);
            if (!measure(s, tag, NULL, &m))
                continue;
            snprintf(key, sizeof key, "n%d", s->eval->n[k]);
            json_open(w, key, '{');
            write_measured(s, tag, w);
            if (s->eval->n[k] > 1)
                r = write_difference(s, "over_n1", tag, one, w);
            json_close(w, '}');
        }
        json_close(w, '}');
    }
    json_close(w, '}');
    return r;
}

/* Before and after, the way the report's headline has them. */
static int write_headline(const struct summary *s, struct json_writer *w)
{
    int before = policy_index(s, "sft"), after = policy_index(s, "last"), best = policy_index(s, "best");
    int expert = policy_index(s, "demonstrator");
    char sft[TAG_SIZE], last[TAG_SIZE], tag[TAG_SIZE], sft1[TAG_SIZE], last1[TAG_SIZE];
    bool have_sft = before >= 0 && best_tag(s, before, sft), have_last = after >= 0 && best_tag(s, after, last);
    struct measured m = {0};
    struct paired d;
    int r;

    json_number(w, "success_before", have_sft ? success_of(s, sft) : NAN);
    json_number(w, "success_after", have_last ? success_of(s, last) : NAN);
    json_number(w, "success_best", best >= 0 && best_tag(s, best, tag) ? success_of(s, tag) : NAN);
    json_number(w, "success_demonstrator", expert >= 0 && best_tag(s, expert, tag) ? success_of(s, tag) : NAN);
    if (have_last || have_sft)
        (void)measure(s, have_last ? last : sft, NULL, &m);
    json_signed(w, "eval_episodes", m.episodes);
    if (!have_sft || !have_last)
        return 0;
    r = compare(s, last, sft, &d);
    if (r < 0)
        return r == -ENODATA ? 0 : r;
    json_number(w, "difference", d.mean);
    json_interval(w, "difference_interval", d.low, d.high);
    r = write_difference(s, "paired", last, sft, w);
    policy_tag("test", "sft", 1, sft1);
    policy_tag("test", "last", 1, last1);
    return r < 0 ? r : write_difference(s, "paired_t1", last1, sft1, w);
}

int summary_make(struct ledger *ledger, const struct run_config *config, struct strbuf *out, struct error *error)
{
    _cleanup_(summary_release) struct summary s = {.config = config};
    struct json_writer w = {.out = out};
    int r = summary_read(&s, ledger, error);

    if (r < 0)
        return r;
    json_open(&w, NULL, '{');
    summary_write_run(&s, &w);
    if (s.eval) {
        r = write_headline(&s, &w);
        if (r == 0)
            write_policies(&s, &w);
        if (r == 0)
            r = write_search(&s, &w);
        if (r == 0)
            r = summary_write_plateau(&s, &w);
    }
    summary_write_cost(&s, &w);
    json_close(&w, '}');
    strbuf_addc(out, '\n');
    return r < 0 || out->failed ? error_set(error, r < 0 ? -r : ENOMEM, "summary: %s", strerror(r < 0 ? -r : ENOMEM)) : 0;
}

int summary_write(struct ledger *ledger, const struct run_config *config, const char *run_dir, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    char path[RUN_PATH];
    int r = summary_make(ledger, config, &text, error);

    if (r == 0)
        r = rundir_path(run_dir, "summary.json", path, error);
    if (r == 0 && (r = atomic_file_write(path, text.text, text.length)) < 0)
        r = error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r));
    return r;
}
