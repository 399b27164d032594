#include "cli/report_health.h"

#include <errno.h>
#include <math.h>

#include "cli/json_at.h"
#include "cli/plot.h"
#include "cli/report_data.h"
#include "proto/control.pb-c.h"
#include "rl/stats.h"

/* ---- policies ------------------------------------------------------------------------------------------------ */

static void write_cell(double value, struct strbuf *out)
{
    if (isfinite(value))
        strbuf_addf(out, "<td>%.1f&nbsp;%%</td>", 100 * value);
    else
        strbuf_adds(out, "<td>&ndash;</td>");
}

static void write_interval(const json_t *row, struct strbuf *out)
{
    double low, high;

    write_cell(number_at(row, "success"), out);
    if (interval_at(row, "interval95", &low, &high))
        strbuf_addf(out, "<td>%.1f to %.1f</td>", 100 * low, 100 * high);
    else
        strbuf_adds(out, "<td></td>");
}

static void write_search(json_t *search, struct strbuf *out)
{
    const char *policy, *width;
    json_t *rows, *row;

    json_object_foreach(search, policy, rows) json_object_foreach(rows, width, row)
    {
        if (!strcmp(width, "n1"))
            strbuf_addf(out, "<tr><td>%s, N = 1</td>", policy);
        else
            strbuf_addf(out, "<tr><td>%s with look-ahead, N = %s</td>", policy, width + (width[0] == 'n'));
        write_interval(row, out);
        strbuf_addf(out, "<td></td><td></td><td></td><td>%.1f</td></tr>", number_at(row, "mean_steps"));
    }
}

/* Task by task, the policies side by side; the interval is Wilson's. */
static void write_tasks(json_t *policies, struct strbuf *out)
{
    json_t *tasks = json_object_get(json_object_iter_value(json_object_iter(policies)), "tasks"), *ignored, *policy;
    const char *name, *task;

    if (json_object_size(tasks) < 2)
        return;
    strbuf_adds(out, "<table><tr><th>task</th>");
    json_object_foreach(policies, name, policy) strbuf_addf(out, "<th>%s</th>", name);
    strbuf_adds(out, "</tr>");
    json_object_foreach(tasks, task, ignored)
    {
        strbuf_adds(out, "<tr><td>");
        html_escape(out, task);
        strbuf_adds(out, "</td>");
        json_object_foreach(policies, name, policy)
        {
            const json_t *row = json_object_get(json_object_get(policy, "tasks"), task);
            double n = number_at(row, "episodes"), success = number_at(row, "success");
            struct interval interval;

            if (!(n > 0)) {
                strbuf_adds(out, "<td>&ndash;</td>");
                continue;
            }
            interval = wilson(llround(success * n), llround(n), 1.959963984540054);
            strbuf_addf(out, "<td>%.0f %% <span class='note'>%.0f to %.0f</span></td>", 100 * success, 100 * interval.low,
                        100 * interval.high);
        }
        strbuf_adds(out, "</tr>");
    }
    strbuf_adds(out, "</table>");
}

/* Not where the run file says at which. */
static bool are_chosen_on_val(json_t *policies)
{
    const char *name;
    json_t *policy;

    json_object_foreach(policies, name, policy)
        if (json_object_size(json_object_get(policy, "val")) > 0)
            return true;
    return false;
}

void report_policies_write(const struct report_data *d, struct strbuf *out)
{
    json_t *policies = json_object_get(d->summary, "policies"), *policy;
    const char *name;

    if (json_object_size(policies) == 0)
        return;
    strbuf_addf(out, "<h2>Policies on test states</h2><table><tr><th>policy</th><th>success</th><th>95 %% interval</th>"
                     "<th>temperature%s</th><th>greedy</th><th>T 1</th><th>mean steps</th></tr>",
                are_chosen_on_val(policies) ? " (chosen on val)" : "");
    json_object_foreach(policies, name, policy)
    {
        double temperature = number_at(policy, "temperature");

        strbuf_addf(out, "<tr><td>%s</td>", name);
        write_interval(policy, out);
        if (isfinite(temperature))
            strbuf_addf(out, "<td>%.2g</td>", temperature);
        else
            strbuf_adds(out, "<td></td>");
        write_cell(number_at(policy, "greedy"), out);
        write_cell(number_at(policy, "t1"), out);
        strbuf_addf(out, "<td>%.1f</td></tr>", number_at(policy, "mean_steps"));
    }
    write_search(json_object_get(d->summary, "search"), out);
    strbuf_adds(out, "</table>");
    write_tasks(policies, out);
}

/* ---- curves of the rl stages ---------------------------------------------------------------------------------------- */

struct chart { /* one or two series of the ledger; one alone is told by the title */
    const char *title, *names[2], *shown[2];
    bool of_updates;
};

static int write_chart(const struct report_data *d, const struct chart *chart, struct strbuf *out)
{
    _cleanup_free_ double *x = calloc(d->n_scalars + 1, sizeof *x), *y = calloc(d->n_scalars + 1, sizeof *y);
    struct plot plot = {.title = chart->title, .x_label = "iteration"};
    int r = x && y ? 0 : -ENOMEM;

    for (size_t k = 0; k < ARRAY_SIZE(chart->names) && chart->names[k] && r == 0; k++) {
        bool measured = false;      /* of a critic or a reference that the stage does without there are zeros */
        int n = 0;

        for (size_t i = 0; i < d->n_scalars; i++) {
            const struct ledger_scalar *s = &d->scalars[i];
            int at = !strcmp(s->name, chart->names[k]) ? report_train_iteration(d, s->stage, s->iteration) : 0;

            if (at > 0 && (!chart->of_updates || report_had_update(d, s->stage, s->iteration))) {
                x[n] = at;
                y[n++] = s->value;
                measured |= s->value != 0;
            }
        }
        if (n > 1 && measured)
            r = plot_line(&plot, chart->shown[k] ?: "", x, y, n, PLOT_THICK);
    }
    if (r == 0 && plot.count)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

/* Env steps a second: what an iteration's episodes came to, over the time from its opening to its end. */
static int write_throughput(const struct report_data *d, struct strbuf *out)
{
    _cleanup_free_ double *x = calloc(d->n_iterations + 1, sizeof *x), *y = calloc(d->n_iterations + 1, sizeof *y);
    _cleanup_free_ double *smooth = calloc(d->n_iterations + 1, sizeof *smooth);
    struct plot plot = {.title = "Env steps a second, update included", .x_label = "iteration"};
    size_t first = 0;
    int n = 0, r;

    if (!x || !y || !smooth)
        return -ENOMEM;
    for (size_t i = 0; i < d->n_iterations; i++) {
        const struct ledger_iteration *it = &d->iterations[i];
        double steps = 0;

        if (it->purpose != GANTRY__PURPOSE__PURPOSE_TRAIN || it->end_ms <= it->start_ms)
            continue;
        while (first < d->n_episodes && d->episodes[first].episode < it->first_episode)
            first++;
        for (size_t k = first; k < d->n_episodes && d->episodes[k].episode <= it->last_episode; k++)
            steps += d->episodes[k].steps;
        x[n] = n + 1;
        y[n++] = steps / ((double)(it->end_ms - it->start_ms) / 1000);
    }
    if (n < 2)
        return 0;
    report_smooth(y, n, 10, smooth);
    r = plot_line(&plot, "each iteration", x, y, n, PLOT_THIN);
    if (r == 0)
        r = plot_line(&plot, "mean of 10", x, smooth, n, PLOT_THICK);
    if (r == 0)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

int report_health_write(const struct report_data *d, struct strbuf *out)
{
    static const struct chart charts[] = {
        {"Return of an episode", {"return"}, {0}, false},
        {"Divergence, nats an action", {"reference_kl", "approx_kl"}, {"from the start policy", "from the policy that acted"},
         true},
        {"Entropy, nats a token", {"entropy"}, {0}, true},
        {"Explained variance of the critic", {"explained_variance"}, {0}, false},
        {"Share of ratios clipped", {"clip_fraction"}, {0}, true},
        {"Gradient norm before the clip", {"gradient_norm", "value_gradient_norm"}, {"policy", "value head"}, true},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(charts) && r == 0; i++)
        r = write_chart(d, &charts[i], out);
    if (r == 0)
        r = write_throughput(d, out);
    return r;
}

/* ---- versions --------------------------------------------------------------------------------------------------------- */

void report_versions_write(const struct report_data *d, struct strbuf *out)
{
    if (!d->n_versions)
        return;
    strbuf_adds(out, "<h2>Versions</h2><details><summary>Every policy and reward model that was committed</summary><table>"
                     "<tr><th>version</th><th>made by</th><th>parent</th><th>gate</th></tr>");
    for (size_t i = 0; i < d->n_versions; i++) {
        const struct ledger_version *v = &d->versions[i];
        const char *name = v->number == 0 ? "as it came" : "";

        for (size_t k = 0; k < d->n_iterations && v->number > 0; k++)
            if (d->iterations[k].stage == v->stage && d->iterations[k].iteration == v->iteration)
                name = d->iterations[k].name;
        strbuf_addf(out, "<tr><td>%s %llu</td><td>%s</td><td>%llu</td><td>", v->kind == KIND_PRM ? "reward model" : "policy",
                    (unsigned long long)v->number, name, (unsigned long long)v->parent);
        html_escape(out, v->gate_text);
        strbuf_adds(out, "</td></tr>");
    }
    strbuf_adds(out, "</table></details>");
}
