#include "cli/report.h"

#include <errno.h>
#include <math.h>

#include "base/atomic_file.h"
#include "base/figure.h"
#include "cli/json_at.h"
#include "cli/plot.h"
#include "cli/report_builds.h"
#include "cli/report_curriculum.h"
#include "cli/report_data.h"
#include "cli/report_films.h"
#include "cli/report_health.h"
#include "cli/report_names.h"
#include "cli/report_prm.h"
#include "cli/report_series.h"
#include "cli/report_sources.h"
#include "cli/report_style.h"
#include "daemon/run_config.h"
#include "proto/control.pb-c.h"
#include "version.h"

enum { TASK_CURVES = 16 };

/* ---- curves ------------------------------------------------------------------------------------------- */

static int write_success_plot(const struct report_data *d, const char *task, struct strbuf *out)
{
    _cleanup_free_ struct report_point *points = NULL;
    _cleanup_free_ double *x = NULL, *y = NULL, *smooth = NULL;
    struct plot plot = {.x_label = "iteration", .y_min = 0, .y_max = 1};
    char title[96], name[64] = "";
    int n, r = report_train_points(d, task, &points, &n), ended = 0;

    if (r < 0)
        return r;
    for (int i = 0; i < n; i++)
        ended += isfinite(points[i].success);
    if (!ended)
        return 0;
    x = calloc((size_t)n, sizeof *x);
    y = calloc((size_t)n, sizeof *y);
    smooth = calloc((size_t)n, sizeof *smooth);
    if (!x || !y || !smooth)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        x[i] = points[i].iteration;
        y[i] = points[i].success;
    }
    report_smooth(y, n, 10, smooth);
    report_spaced(task ?: "", name, sizeof name);
    snprintf(title, sizeof title, "Training success%s%s", task ? ": " : " (all tasks)", name);
    plot.title = title;
    if ((r = plot_line(&plot, "each iteration", x, y, n, PLOT_THIN)) == 0 &&
        (r = plot_line(&plot, "mean of 10", x, smooth, n, PLOT_THICK)) == 0)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

static int write_curves(const struct report_data *d, struct strbuf *out)
{
    const char *tasks[RUN_MAX_TASKS];
    int n = report_tasks(d, tasks, ARRAY_SIZE(tasks)), r;

    strbuf_adds(out, "<h2>Learning</h2><div class='plots'>");
    r = write_success_plot(d, NULL, out);
    for (int i = 0; i < MIN(n, TASK_CURVES) && n > 1 && r >= 0; i++)
        r = write_success_plot(d, tasks[i], out);
    if (r >= 0)
        r = report_health_write(d, out);
    strbuf_adds(out, "</div>");
    if (n > TASK_CURVES)
        strbuf_addf(out, "<p class='note'>Training success of %d more tasks is among all series.</p>", n - TASK_CURVES);
    return r >= 0 ? report_series_write(d, out) : r;
}

/* ---- tables -------------------------------------------------------------------------------------------- */

static void write_json_value(const json_t *value, struct strbuf *out)
{
    if (json_is_string(value))
        html_escape(out, json_string_value(value));
    else if (json_is_integer(value))
        strbuf_addf(out, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        strbuf_addf(out, "%.4g", json_real_value(value) == 0 ? 0 : json_real_value(value));     /* -0 is 0, too */
    else if (json_is_boolean(value))
        strbuf_adds(out, json_is_true(value) ? "yes" : "no");
    else if (json_is_array(value)) {
        size_t i;
        json_t *item;

        json_array_foreach(value, i, item) {
            strbuf_adds(out, i ? ", " : "");
            write_json_value(item, out);
        }
    } else {
        strbuf_adds(out, "&ndash;");
    }
}

/* An object as a table; objects inside become rows "outer.inner". */
static void write_json_rows(const char *prefix, json_t *object, struct strbuf *out)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value) {
        char path[160];

        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            write_json_rows(path, value, out);
            continue;
        }
        strbuf_adds(out, "<tr><td>");
        html_escape(out, path);
        strbuf_adds(out, "</td><td>");
        write_json_value(value, out);
        strbuf_adds(out, "</td></tr>");
    }
}

/* A difference of shares, for one decimal. */
static double points(double difference) { return figure(100 * difference, 1); }

static void write_plateau(json_t *plateau, struct strbuf *out)
{
    double low, high;

    if (!json_is_true(json_object_get(plateau, "checked")) || !interval_at(plateau, "gain_interval95", &low, &high))
        return;
    strbuf_addf(out, "<p class='note'>Imitation %s: from step %.0f to step %.0f success on val states changed by %+.1f points "
                "(95 %% interval %+.1f to %+.1f).</p>",
                json_is_true(json_object_get(plateau, "at_plateau")) ? "was at its plateau" : "was still rising",
                number_at(plateau, "earlier_steps"), number_at(plateau, "steps"), points(number_at(plateau, "gain")),
                points(low), points(high));
}

static void write_stopped(const struct report_data *d, struct strbuf *out)
{
    if (!d->stopped[0])
        return;
    strbuf_adds(out, "<p class='big bad'>The run stopped before its end: ");
    html_escape(out, d->stopped);
    strbuf_adds(out, ".</p>");
}

static void write_headline(const struct report_data *d, struct strbuf *out)
{
    double before = number_at(d->summary, "success_before"), after = number_at(d->summary, "success_after"), low, high;
    size_t trained = 0;

    for (size_t i = 0; i < d->n_episodes; i++)
        trained += d->episodes[i].state == EPISODE_TRAINED;
    if (isfinite(before) && isfinite(after)) {
        strbuf_addf(out, "<p class='big'>Success on held-out test states: <b>%.1f %%</b> after imitation, <b>%.1f %%</b> after "
                    "reinforcement learning (%+.1f points", 100 * before, 100 * after, points(after - before));
        if (interval_at(d->summary, "difference_interval", &low, &high))
            strbuf_addf(out, "; 95 %% interval of the paired difference %+.1f to %+.1f", points(low), points(high));
        strbuf_addf(out, ").</p>");
    } else if (isfinite(after)) {
        strbuf_addf(out, "<p class='big'>Success on held-out test states: <b>%.1f %%</b>.</p>", 100 * after);
    } else if (isfinite(before)) {
        strbuf_addf(out, "<p class='big'>Success on held-out test states: <b>%.1f %%</b> after imitation.</p>", 100 * before);
    } else if (!json_object_size(json_object_get(d->summary, "policies"))) {
        strbuf_adds(out, "<p class='big'>No evaluation on held-out states has ended yet: no test figures.</p>");
    }
    write_plateau(json_object_get(d->summary, "sft_plateau"), out);
    strbuf_addf(out, "<p class='note'>%zu episodes played, %zu trained on by reinforcement; seed %llu; ", d->n_episodes, trained,
                (unsigned long long)d->run.seed);
    report_builds(d, GANTRY_BUILD, out);
    strbuf_adds(out, "</p>");
}

static void write_stages(const struct report_data *d, struct strbuf *out)
{
    strbuf_adds(out, "<h2>Stages</h2><table><tr><th>stage</th><th>kind</th><th>state</th><th>wall s</th><th>policy</th></tr>");
    for (size_t i = 0; i < d->n_stages; i++) {
        const struct ledger_stage *s = &d->stages[i];

        strbuf_addf(out, "<tr><td>%s</td><td>%s</td><td>%s</td>", s->name, s->kind, progress_state_name(s->state));
        if (s->state == PROGRESS_DONE)
            strbuf_addf(out, "<td>%.1f</td><td>v%llu &rarr; v%llu</td></tr>", s->wall_s, (unsigned long long)s->policy_in,
                        (unsigned long long)s->policy_out);
        else if (s->wall_s > 0)     /* what it took, and leads to, is known when it has ended */
            strbuf_addf(out, "<td>%.1f</td><td>v%llu &rarr;</td></tr>", s->wall_s, (unsigned long long)s->policy_in);
        else
            strbuf_addf(out, "<td>&ndash;</td><td>v%llu &rarr;</td></tr>", (unsigned long long)s->policy_in);
    }
    strbuf_adds(out, "</table>");
}

/* Evaluation rows grouped by their tag ("test last t=0.3"): episodes, success, steps. */
static int write_evaluations(const struct report_data *d, struct strbuf *out)
{
    _cleanup_free_ const char **tags = calloc(d->n_episodes + 1, sizeof *tags);
    int n = 0, k;

    for (size_t i = 0; tags && i < d->n_episodes; i++) {
        const struct ledger_episode *e = &d->episodes[i];

        if (e->purpose != GANTRY__PURPOSE__PURPOSE_EVAL || e->state != EPISODE_EVALUATED)
            continue;
        for (k = 0; k < n && strcmp(tags[k], e->tag); k++)
            ;
        if (k == n)
            tags[n++] = e->tag;
    }
    if (!tags || !n)
        return tags ? 0 : -ENOMEM;
    strbuf_adds(out, "<details><summary>Every evaluation</summary>"
                     "<table><tr><th>what</th><th>episodes</th><th>success</th><th>mean steps</th></tr>");
    for (k = 0; k < n; k++) {
        double count = 0, success = 0, steps = 0;

        for (size_t i = 0; i < d->n_episodes; i++)
            if (d->episodes[i].state == EPISODE_EVALUATED && !strcmp(d->episodes[i].tag, tags[k])) {
                count++;
                success += d->episodes[i].success;
                steps += d->episodes[i].steps;
            }
        strbuf_adds(out, "<tr><td>");
        html_escape(out, tags[k]);
        strbuf_addf(out, "</td><td>%.0f</td><td>%.1f %%</td><td>%.1f</td></tr>", count, 100 * success / count, steps / count);
    }
    strbuf_adds(out, "</table></details>");
    return 0;
}

int report_write(const char *run_dir, const char *path, struct error *error)
{
    _cleanup_(report_data_release) struct report_data d = {0};
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    int r = report_data_load(run_dir, &d, error);

    if (r < 0)
        return r;
    strbuf_addf(&out, "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
                "<title>gantry report</title><style>%s</style><h1>gantry: ", REPORT_STYLE);
    html_escape(&out, json_string_value(json_object_get(d.summary, "run")) ?: "a run");
    strbuf_adds(&out, "</h1>");
    strbuf_adds(&out, "<p class='note'>Report of the run in ");
    html_escape(&out, run_dir);
    strbuf_adds(&out, "</p>");
    write_stopped(&d, &out);
    write_headline(&d, &out);
    report_policies_write(&d, &out);
    r = write_curves(&d, &out);
    if (r >= 0)
        r = report_curriculum_write(&d, &out);
    if (r < 0)
        return error_set(error, -r, "%s: curves could not be drawn", run_dir);
    strbuf_adds(&out, "<h2>What it looks like</h2>");
    report_films_write(run_dir, &d, &out);
    report_prm_write(run_dir, &d, &out);
    if (d.summary) {
        strbuf_adds(&out, "<h2>Figures</h2><table>");
        write_json_rows("", d.summary, &out);
        strbuf_adds(&out, "</table>");
    }
    if (write_evaluations(&d, &out) < 0)
        return error_set(error, ENOMEM, "%s: out of memory for the page", path);
    write_stages(&d, &out);
    report_sources_write(run_dir, &d, &out);
    report_versions_write(&d, &out);
    if (d.config) {
        strbuf_adds(&out, "<h2>Configuration</h2><details><summary>config.yaml as resolved</summary><pre>");
        html_escape(&out, d.config);
        strbuf_adds(&out, "</pre></details>");
    }
    strbuf_adds(&out, "</html>\n");
    if (out.failed)
        return error_set(error, ENOMEM, "%s: out of memory for the page", path);
    r = atomic_file_write_through(path, out.text, out.length);
    return r < 0 ? error_set(error, -r, "%s: cannot write: %s", path, strerror(-r)) : 0;
}
