/* A comparison as a page: every curve of all runs in one frame, and both tables. */
#include <errno.h>
#include <math.h>

#include "cli/compare.h"
#include "cli/plot.h"
#include "cli/report_names.h"
#include "cli/report_series.h"
#include "cli/report_style.h"
#include "proto/control.pb-c.h"

enum { MANY = 256, SMOOTHED = 10 };

static void name_run(const struct comparison *c, int run, char ret[64])
{
    const char *name = strrchr(c->runs[run].dir, '/');

    snprintf(ret, 64, "%s: %s", compared_letter(run), name && name[1] ? name + 1 : c->runs[run].dir);
}

/* ---- success by what it cost ------------------------------------------------------------------------------------------- */

enum cost { ITERATIONS, EPISODES, WALL };

/* What training had cost by the end of each train iteration: x (n). Iterations of rl alone: what lay between them is no cost. */
static void costs(const struct report_data *d, enum cost cost, double *x)
{
    double sum = 0;
    int n = 0;

    for (size_t i = 0; i < d->n_iterations; i++) {
        const struct ledger_iteration *it = &d->iterations[i];

        if (it->purpose != GANTRY__PURPOSE__PURPOSE_TRAIN)
            continue;
        if (cost == EPISODES)
            for (size_t k = 0; k < d->n_episodes; k++)
                sum += d->episodes[k].stage == it->stage && d->episodes[k].iteration == it->iteration &&
                       d->episodes[k].purpose == GANTRY__PURPOSE__PURPOSE_TRAIN;
        else
            sum += cost == ITERATIONS ? 1 : it->end_ms > it->start_ms ? (double)(it->end_ms - it->start_ms) / 60000 : 0;
        x[n++] = sum;
    }
}

static int add_success(const struct comparison *c, int run, enum cost cost, struct plot *plot)
{
    const struct report_data *d = &c->runs[run].data;
    _cleanup_free_ double *x = NULL, *y = NULL, *smooth = NULL;
    _cleanup_free_ struct report_point *points = NULL;
    char name[64];
    int n, r = report_train_points(d, NULL, &points, &n);

    if (r < 0 || n == 0)
        return r;
    x = calloc((size_t)n, sizeof *x);
    y = calloc((size_t)n, sizeof *y);
    smooth = calloc((size_t)n, sizeof *smooth);
    if (!x || !y || !smooth)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        y[i] = points[i].success;
    costs(d, cost, x);
    report_smooth(y, n, SMOOTHED, smooth);
    name_run(c, run, name);
    return plot_line(plot, name, x, smooth, n, PLOT_THICK);
}

static int write_success(const struct comparison *c, enum cost cost, const char *label, struct strbuf *out)
{
    struct plot plot = {.title = "Training success, mean of 10 iterations", .x_label = label, .y_min = 0, .y_max = 1};
    int r = 0;

    for (int i = 0; i < c->n && r == 0; i++)
        r = add_success(c, i, cost, &plot);
    if (r == 0 && plot.count)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

/* ---- every series ------------------------------------------------------------------------------------------------------ */

static bool varies(const double *y, int n)
{
    for (int i = 1; i < n; i++)
        if (y[i] != y[0])
            return true;
    return false;
}

/* Left out where it never changes in any run. */
static int write_series(const struct comparison *c, const char *series, struct strbuf *out)
{
    char title[160], name[64];
    struct plot plot = {.title = title, .x_label = "iteration", .hint = series};
    bool any = false;
    int r = 0;

    report_series_title(series, title, sizeof title);
    for (int i = 0; i < c->n && r == 0; i++) {
        size_t most = c->runs[i].data.n_scalars + 1;
        _cleanup_free_ double *x = calloc(most, sizeof *x), *y = calloc(most, sizeof *y);
        int n = x && y ? report_series_points(&c->runs[i].data, series, x, y) : -ENOMEM;

        name_run(c, i, name);
        r = n < 0 ? n : n < 2 ? 0 : plot_line(&plot, name, x, y, n, PLOT_THICK);
        any |= n > 0 && varies(y, n);
    }
    if (r == 0 && any)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

/* Names that rl stages have, each once; borrowed. */
static int list_series(const struct comparison *c, const char *ret[MANY])
{
    int n = 0;

    for (int i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->runs[i].data.n_scalars && n < MANY; k++) {
            const char *name = c->runs[i].data.scalars[k].name;
            int at = 0;

            while (at < n && strcmp(ret[at], name) != 0)
                at++;
            if (at == n)
                ret[n++] = name;
        }
    return n;
}

static int write_curves(const struct comparison *c, struct strbuf *out)
{
    static const char *const first[] = {"success/val", "return", "reference_kl", "entropy"};
    const char *series[MANY];
    int n = list_series(c, series), r;

    strbuf_adds(out, "<h2>Learning</h2><div class='plots'>");
    r = write_success(c, ITERATIONS, "iteration", out);
    if (r == 0)
        r = write_success(c, EPISODES, "episodes of rl", out);
    if (r == 0)
        r = write_success(c, WALL, "minutes of rl", out);
    for (size_t i = 0; i < ARRAY_SIZE(first) && r == 0; i++)
        r = write_series(c, first[i], out);
    strbuf_adds(out, "</div><details><summary>All series</summary><div class='plots'>");
    for (int i = 0; i < n && r == 0; i++)
        r = write_series(c, series[i], out);
    strbuf_adds(out, "</div></details>");
    return r;
}

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

struct html {
    int n;
    struct strbuf *out;
};

static void html_row(const char *label, const char *const *cells, void *arg)
{
    const struct html *html = arg;

    strbuf_adds(html->out, "<tr><td>");
    html_escape(html->out, label);
    strbuf_adds(html->out, "</td>");
    for (int i = 0; i < html->n; i++) {
        strbuf_adds(html->out, "<td>");
        html_escape(html->out, cells[i] ?: "\u2013");
        strbuf_adds(html->out, "</td>");
    }
    strbuf_adds(html->out, "</tr>");
}

static void open_table(const struct comparison *c, const char *title, struct strbuf *out)
{
    strbuf_addf(out, "<h2>%s</h2><table><tr><th></th>", title);
    for (int i = 0; i < c->n; i++) {
        char name[64];

        name_run(c, i, name);
        strbuf_adds(out, "<th>");
        html_escape(out, name);
        strbuf_adds(out, "</th>");
    }
    strbuf_adds(out, "</tr>");
}

int comparison_page(const struct comparison *c, struct strbuf *out)
{
    struct html html = {c->n, out};
    size_t before;
    int r;

    strbuf_adds(out, "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
                     "<title>gantry compare</title><style>" REPORT_STYLE "</style><h1>Runs beside one another</h1>");
    for (int i = 0; i < c->n; i++) {
        strbuf_addf(out, "%s%s: ", i ? ", " : "<p class='note'>", compared_letter(i));
        html_escape(out, c->runs[i].dir);
    }
    strbuf_adds(out, "</p>");
    open_table(c, "What came of them", out);
    comparison_figures(c, html_row, &html);
    strbuf_adds(
        out, "</table><p class='note'>Tests are of each run's own last eval stage, with Wilson's 95 % intervals; differences are "
             "paired over the states that both have played, with their bootstrap interval and McNemar's p.</p>");
    for (int i = 0; i < c->n_arms && comparison_has_seeds(c); i++) {
        strbuf_addf(out, "<p>%d. ", i + 1);
        comparison_arm_words(c, i, out);
        strbuf_adds(out, "</p>");
    }
    if (comparison_has_seeds(c))
        strbuf_adds(out, "<p class='note'>Runs that differ in their seed alone are taken together; intervals are a bootstrap over "
                    "seeds, then states.</p>");
    open_table(c, "In what they differ", out);
    before = out->length;
    r = comparison_differences(c, html_row, &html);
    strbuf_adds(out, out->length == before ? "</table><p>In nothing but the name.</p>" : "</table>");
    if (r == 0)
        r = write_curves(c, out);
    strbuf_adds(out, "</html>\n");
    return r < 0 || out->failed ? -ENOMEM : 0;
}
