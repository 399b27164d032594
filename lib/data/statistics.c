#include "data/statistics.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int grow(double **array, size_t n)
{
    double *larger = realloc(*array, MAX(n, (size_t)1) * sizeof *larger);

    if (!larger)
        return -ENOMEM;
    *array = larger;
    return 0;
}

int statistics_add(struct statistics *s, const double *action, const double *state)
{
    if (s->steps == s->room) {
        size_t room = MAX((size_t)1024, 2 * s->room);

        if (grow(&s->actions, room * (size_t)s->dims) < 0 || grow(&s->states, room * (size_t)s->state) < 0)
            return -ENOMEM;
        s->room = room;
    }
    memcpy(s->actions + s->steps * (size_t)s->dims, action, (size_t)s->dims * sizeof *action);
    if (s->state)
        memcpy(s->states + s->steps * (size_t)s->state, state, (size_t)s->state * sizeof *state);
    s->steps++;
    return 0;
}

void statistics_release(struct statistics *s)
{
    free(s->actions);
    free(s->states);
    *s = (struct statistics){0};
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t below = (size_t)floor(at), above = MIN(below + 1, n - 1);

    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

enum { MEAN, STD, MAXIMUM, MINIMUM, Q01, Q99, FIGURES };
static const char *const names[FIGURES] = {"mean", "std", "max", "min", "q01", "q99"};

/* Figures of each of `width` columns of (n, width). */
static int figures(const double *values, size_t n, int width, double *ret)
{
    _cleanup_free_ double *column = malloc(MAX(n, (size_t)1) * sizeof *column);

    if (!column || !n)
        return column ? -ENODATA : -ENOMEM;
    for (int k = 0; k < width; k++) {
        double sum = 0, squares = 0;

        for (size_t i = 0; i < n; i++) {
            column[i] = values[i * (size_t)width + (size_t)k];
            sum += column[i];
        }
        for (size_t i = 0; i < n; i++)
            squares += (column[i] - sum / (double)n) * (column[i] - sum / (double)n);
        qsort(column, n, sizeof *column, compare);
        ret[MEAN * width + k] = sum / (double)n;
        ret[STD * width + k] = sqrt(squares / (double)n);
        ret[MAXIMUM * width + k] = column[n - 1];
        ret[MINIMUM * width + k] = column[0];
        ret[Q01 * width + k] = quantile(column, n, .01);
        ret[Q99 * width + k] = quantile(column, n, .99);
    }
    return 0;
}

static int write_part(const char *name, const double *values, size_t n, int width, bool mask, bool gripper, struct strbuf *out)
{
    _cleanup_free_ double *all = calloc((size_t)(FIGURES * width) + 1, sizeof *all);
    int r = all ? figures(values, n, width, all) : -ENOMEM;

    if (r < 0)
        return r;
    strbuf_addf(out, "    \"%s\": {\n", name);
    for (int f = 0; f < FIGURES; f++) {
        strbuf_addf(out, "      \"%s\": [", names[f]);
        for (int k = 0; k < width; k++)
            strbuf_addf(out, "%s%.17g", k ? ", " : "", all[f * width + k]);
        strbuf_addf(out, "]%s\n", f + 1 < FIGURES || mask ? "," : "");
    }
    if (mask) {
        strbuf_adds(out, "      \"mask\": [");
        for (int k = 0; k < width; k++)
            strbuf_addf(out, "%s%s", k ? ", " : "", gripper && k == width - 1 ? "false" : "true");
        strbuf_adds(out, "]\n");
    }
    strbuf_adds(out, "    },\n");
    return 0;
}

int statistics_write(const struct statistics *s, const char *name, struct strbuf *out)
{
    int r;

    strbuf_addf(out, "{\n  \"%s\": {\n", name);
    r = write_part("action", s->actions, s->steps, s->dims, true, s->gripper, out);
    if (r >= 0 && s->state)
        r = write_part("proprio", s->states, s->steps, s->state, false, false, out);
    if (r < 0)
        return r;
    strbuf_addf(out, "    \"num_transitions\": %zu,\n    \"num_trajectories\": %d\n  }\n}\n", s->steps, s->episodes);
    return out->failed ? -ENOMEM : 0;
}
