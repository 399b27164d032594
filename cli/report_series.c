#include "cli/report_series.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/plot.h"
#include "cli/report_names.h"

enum { MANY = 256 };            /* series that are told apart */

/* A course of one series: over all rl stages, or over one stage of another kind. */
struct course { const char *series; const struct ledger_stage *stage; /* NULL: rl */ };

static const struct ledger_stage *stage_of(const struct report_data *d, uint32_t number)
{
    for (size_t i = 0; i < d->n_stages; i++)
        if (d->stages[i].stage == number)
            return &d->stages[i];
    return NULL;
}

static bool is_rl(const struct ledger_stage *stage) { return !strcmp(stage->kind, "rl"); }

/* An eval stage's rounds are conditions, one beside the other. */
static bool is_course(const struct ledger_stage *stage) { return stage && strcmp(stage->kind, "eval") != 0; }

static bool is_of(const struct report_data *d, const struct ledger_scalar *s, const struct course *course)
{
    const struct ledger_stage *stage = stage_of(d, s->stage);

    return !strcmp(s->name, course->series) && is_course(stage) && (course->stage ? stage == course->stage : is_rl(stage));
}

static int find_courses(const struct report_data *d, struct course *ret)
{
    int n = 0;

    for (size_t i = 0; i < d->n_scalars && n < MANY; i++) {
        const struct ledger_stage *stage = stage_of(d, d->scalars[i].stage);
        struct course here = {d->scalars[i].name, stage && !is_rl(stage) ? stage : NULL};
        int k = 0;

        while (k < n && (ret[k].stage != here.stage || strcmp(ret[k].series, here.series) != 0))
            k++;
        if (k == n && is_course(stage))
            ret[n++] = here;
    }
    return n;
}

/* Looks at val states in between say what training says, of something else: only their own series are of them. */
static int points_of(const struct report_data *d, const struct course *course, double *x, double *y)
{
    bool val = !strncmp(course->series, "success/val", 11);
    int n = 0;

    for (size_t i = 0; i < d->n_scalars; i++) {
        const struct ledger_scalar *s = &d->scalars[i];
        int at;

        if (!is_of(d, s, course))
            continue;
        at = course->stage ? (int)s->iteration + 1 : report_train_iteration(d, s->stage, s->iteration);
        if ((at == 0 && !val) || (s->value == 0 && !report_had_update(d, s->stage, s->iteration)))
            continue;
        x[n] = at == 0 ? report_trained_before(d, s->stage, s->iteration) : at;
        y[n++] = s->value;
    }
    return n;
}

int report_series_points(const struct report_data *d, const char *series, double *x, double *y)
{
    const struct course rl = {.series = series};

    return points_of(d, &rl, x, y);
}

/* Two points are no curve. */
static bool is_curve(const double *y, int n)
{
    for (int i = 1; i < n && n > 2; i++)
        if (y[i] != y[0])
            return true;
    return false;
}

static int draw(const struct course *course, const double *x, const double *y, int n, struct strbuf *out)
{
    char title[192], name[160];
    struct plot plot = {.title = title, .x_label = "iteration", .hint = course->series};
    int r;

    report_series_title(course->series, name, sizeof name);
    snprintf(title, sizeof title, "%s%s%s", name, course->stage ? ", stage " : "", course->stage ? course->stage->name : "");
    r = plot_line(&plot, "", x, y, n, PLOT_THICK);
    if (r == 0)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

int report_series_write(const struct report_data *d, struct strbuf *out)
{
    _cleanup_free_ struct course *courses = calloc(MANY, sizeof *courses);
    _cleanup_free_ double *x = calloc(d->n_scalars + 1, sizeof *x), *y = calloc(d->n_scalars + 1, sizeof *y);
    _cleanup_(strbuf_release) struct strbuf still = STRBUF_INIT;
    int n = courses ? find_courses(d, courses) : 0, r = courses && x && y ? 0 : -ENOMEM;

    if (r == 0)
        strbuf_adds(out, "<details><summary>All series</summary><div class='plots'>");
    for (int i = 0; i < n && r == 0; i++) {
        int points = points_of(d, &courses[i], x, y);

        if (is_curve(y, points)) {
            r = draw(&courses[i], x, y, points, out);
        } else if (points > 1 && !courses[i].stage) {
            char name[160];

            report_series_title(courses[i].series, name, sizeof name);
            strbuf_adds(&still, still.length ? "; " : "");
            html_escape(&still, name);
            strbuf_addf(&still, " %.4g", y[0] == 0 ? 0 : y[0]);
        }
    }
    if (r < 0)
        return r;
    strbuf_adds(out, "</div>");
    if (still.length)
        strbuf_addf(out, "<p class='note'>The same in every iteration of rl: %s.</p>", still.text);
    strbuf_adds(out, "</details>");
    return still.failed ? -ENOMEM : 0;
}
