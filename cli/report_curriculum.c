#include "cli/report_curriculum.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/plot.h"
#include "cli/report_names.h"

static bool begins_with(const char *name, const char *prefix)
{
    return !strncmp(name, prefix, strlen(prefix));
}

/* The series "PREFIX/..." by name, in order of appearance. */
static int names_of(const struct report_data *d, const char *prefix, const char *ret[], int capacity)
{
    int n = 0, k;

    for (size_t i = 0; i < d->n_scalars && n < capacity; i++) {
        if (!begins_with(d->scalars[i].name, prefix) || !strcmp(d->scalars[i].name, "curriculum/level"))
            continue;
        for (k = 0; k < n && strcmp(ret[k], d->scalars[i].name); k++)
            ;
        if (k == n)
            ret[n++] = d->scalars[i].name;
    }
    return n;
}

/* Points of one series; x counts the run's train iterations, whatever lies between them. */
static int points_of(const struct report_data *d, const char *name, double *x, double *y)
{
    int n = 0;

    for (size_t i = 0; i < d->n_scalars; i++)
        if (!strcmp(d->scalars[i].name, name)) {
            x[n] = n + 1;
            y[n++] = d->scalars[i].value;
        }
    return n;
}

static int draw(const struct report_data *d, const char *title, const char *prefix, double y_max, struct strbuf *out)
{
    _cleanup_free_ double *x = calloc(d->n_scalars + 1, sizeof *x), *y = calloc(d->n_scalars + 1, sizeof *y);
    struct plot plot = {.title = title, .x_label = "iteration", .y_min = 0, .y_max = y_max};
    const char *names[PLOT_MAX_SERIES];
    int count = names_of(d, prefix, names, ARRAY_SIZE(names)), longest = 0, r = x && y ? 0 : -ENOMEM;

    for (int i = 0; i < count && r == 0; i++) {
        int n = points_of(d, names[i], x, y);
        char task[64];

        report_spaced(names[i] + strlen(prefix), task, sizeof task);
        r = plot_line(&plot, task, x, y, n, PLOT_THICK);
        longest = MAX(longest, n);
    }
    if (r == 0 && longest > 1)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

static int draw_level(const struct report_data *d, struct strbuf *out)
{
    _cleanup_free_ double *x = calloc(d->n_scalars + 1, sizeof *x), *y = calloc(d->n_scalars + 1, sizeof *y);
    struct plot plot = {.title = "Curriculum: level", .x_label = "iteration"};
    int n, r;

    if (!x || !y)
        return -ENOMEM;
    n = points_of(d, "curriculum/level", x, y);
    r = n > 1 ? plot_line(&plot, "", x, y, n, PLOT_THICK) : 0;
    if (r == 0 && n > 1)
        plot_write(&plot, out);
    plot_release(&plot);
    return r;
}

int report_curriculum_write(const struct report_data *d, struct strbuf *out)
{
    const char *names[2];
    int r;

    if (names_of(d, "curriculum/", names, 2) < 2)
        return 0;               /* one task: there is nothing to schedule */
    strbuf_adds(out, "<h2>Curriculum</h2><div class='plots'>");
    r = draw(d, "Curriculum: share of the draws", "curriculum/", 1, out);
    if (r == 0)
        r = draw(d, "Curriculum: estimated success", "estimate/", 1, out);
    if (r == 0)
        r = draw_level(d, out);
    strbuf_adds(out, "</div>");
    return r;
}
