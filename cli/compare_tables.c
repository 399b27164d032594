/* The tables of a comparison: row by row, as text, as JSON. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/figure.h"
#include "base/json_write.h"
#include "cli/compare.h"
#include "cli/report_series.h"
#include "proto/control.pb-c.h"

enum { CELL = 96, SHOWN = 44, SMOOTHED = 10 }; /* SHOWN: characters of a cell in a terminal */

const char *compared_letter(int run)
{
    static const char *const letters[COMPARE_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h"};

    return letters[run];
}

/* ---- rows -------------------------------------------------------------------------------------------------------------- */

int comparison_differences(const struct comparison *c, run_config_row_fn row, void *arg)
{
    const struct run_config *configs[COMPARE_MAX];

    for (int i = 0; i < c->n; i++)
        configs[i] = c->runs[i].config;
    return run_config_compare(configs, c->n, row, arg);
}

/* One cell's text; false: this run has nothing to say. */
typedef bool (*cell_fn)(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL]);

static bool cell_state(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    (void)c;
    (void)of;
    if (run_stages_all(&run->stages))
        snprintf(ret, CELL, "finished");
    else
        snprintf(ret, CELL, "%s%s%s, %d of %d stages", run->stages.stopped[0] ? "stopped" : "down",
                 run->stages.next[0] ? " in " : "", run->stages.next, run->stages.done, run->stages.of);
    return true;
}

static bool cell_episodes(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    int n = 0;

    (void)c;
    (void)of;
    for (size_t i = 0; i < run->data.n_episodes; i++)
        n += run->data.episodes[i].purpose == GANTRY__PURPOSE__PURPOSE_TRAIN && run->data.episodes[i].state != EPISODE_OPEN;
    snprintf(ret, CELL, "%d", n);
    return n > 0;
}

static bool cell_wall(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    double wall = 0;

    (void)c;
    for (size_t i = 0; i < run->data.n_stages; i++)
        if (!of || !strcmp(run->data.stages[i].kind, of))
            wall += run->data.stages[i].wall_s;
    snprintf(ret, CELL, "%.0f", wall);
    return wall > 0;
}

static bool cell_training(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    _cleanup_free_ struct report_point *points = NULL;
    double sums[2] = {0}, counts[2] = {0};
    int n;

    (void)c;
    (void)of;
    if (report_train_points(&run->data, NULL, &points, &n) < 0)
        return false;
    for (int i = 0; i < n; i++)
        if (isfinite(points[i].success) && (i == 0 || i >= n - SMOOTHED)) {
            sums[i > 0] += points[i].success;
            counts[i > 0]++;
        }
    snprintf(ret, CELL, counts[1] > 0 ? "%.3f -> %.3f" : "%.3f", sums[0] / counts[0], sums[1] / counts[1]);
    return counts[0] > 0;
}

static bool cell_val(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    _cleanup_free_ double *x = calloc(run->data.n_scalars + 1, sizeof *x), *y = calloc(run->data.n_scalars + 1, sizeof *y);
    int n = x && y ? report_series_points(&run->data, "success/val", x, y) : 0, best = 0;

    (void)c;
    (void)of;
    for (int i = 1; i < n; i++)
        if (y[i] > y[best])
            best = i;
    if (n > 0)
        snprintf(ret, CELL, "%.3f after %.0f", y[best], x[best]);
    return n > 0;
}

static bool cell_test(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    struct compared_test test;
    char temperature[24] = "";

    (void)c;
    if (!compared_test(run, of, &test))
        return false;
    if (isfinite(test.temperature))
        snprintf(temperature, sizeof temperature, ", T %.3g", test.temperature);
    snprintf(ret, CELL, "%.3f [%.3f %.3f] of %d%s", test.success, test.low, test.high, test.episodes, temperature);
    return true;
}

static bool cell_task(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    json_t *policy = json_object_get(compared_policies(run), c->policy);
    json_t *task = json_object_get(json_object_get(policy, "tasks"), of);

    if (!task)
        return false;
    snprintf(ret, CELL, "%.3f of %lld", json_number_value(json_object_get(task, "success")),
             (long long)json_integer_value(json_object_get(task, "episodes")));
    return true;
}

static bool cell_over(const struct comparison *c, const struct compared *run, const char *of, char ret[CELL])
{
    const struct paired *d = &run->over;

    (void)c;
    (void)of;
    if (d->pairs)
        snprintf(ret, CELL, "%+.1f [%+.1f %+.1f], %d pairs, p %.2g", figure(100 * d->mean, 1), figure(100 * d->low, 1),
                 figure(100 * d->high, 1), d->pairs, d->p);
    return d->pairs > 0;
}

struct sink {
    const struct comparison *c;
    run_config_row_fn row;
    void *arg;
};

/* A row that no run has anything to say in is left out. */
static void add(const struct sink *sink, const char *label, cell_fn cell, const char *of)
{
    char texts[COMPARE_MAX][CELL];
    const char *cells[COMPARE_MAX];
    bool any = false;

    for (int i = 0; i < sink->c->n; i++) {
        cells[i] = cell(sink->c, &sink->c->runs[i], of, texts[i]) ? texts[i] : NULL;
        any |= cells[i] != NULL;
    }
    if (any)
        sink->row(label, cells, sink->arg);
}

/* Names of one level of a run's test, each once, those of earlier runs first. */
static void each_name(const struct sink *sink, json_t *(*names)(const struct comparison *, const struct compared *),
                      const char *what, cell_fn cell)
{
    for (int i = 0; i < sink->c->n; i++) {
        json_t *object = names(sink->c, &sink->c->runs[i]), *value;
        const char *name;

        json_object_foreach(object, name, value)
        {
            char label[CELL];
            bool before = false;

            for (int k = 0; k < i; k++)
                before |= json_object_get(names(sink->c, &sink->c->runs[k]), name) != NULL;
            snprintf(label, sizeof label, "%s%s", what, name);
            if (!before)
                add(sink, label, cell, name);
        }
    }
}

static json_t *policies_of(const struct comparison *c, const struct compared *run)
{
    (void)c;
    return compared_policies(run);
}

static json_t *tasks_of(const struct comparison *c, const struct compared *run)
{
    json_t *tasks = json_object_get(json_object_get(compared_policies(run), c->policy), "tasks");

    return json_object_size(tasks) > 1 ? tasks : NULL;
}

void comparison_figures(const struct comparison *c, run_config_row_fn row, void *arg)
{
    const struct sink sink = {c, row, arg};
    char label[CELL];

    add(&sink, "state", cell_state, NULL);
    add(&sink, "episodes of rl", cell_episodes, NULL);
    add(&sink, "wall of rl, s", cell_wall, "rl");
    add(&sink, "wall of all stages, s", cell_wall, NULL);
    add(&sink, "success in training, first iteration -> last ten", cell_training, NULL);
    add(&sink, "best on val, after iteration", cell_val, NULL);
    each_name(&sink, policies_of, "test: ", cell_test);
    snprintf(label, sizeof label, "%s, ", c->policy);
    each_name(&sink, tasks_of, label, cell_task);
    snprintf(label, sizeof label, "%s over a's, points", c->policy);
    add(&sink, label, cell_over, NULL);
}

/* ---- as text ----------------------------------------------------------------------------------------------------------- */

struct text {
    int n;
    size_t widths[COMPARE_MAX + 1];
    struct strbuf *out; /* NULL: widths are measured */
};

static void text_row(const char *label, const char *const *cells, void *arg)
{
    struct text *t = arg;

    for (int i = 0; i <= t->n; i++) {
        const char *cell = i == 0 ? label : cells[i - 1] ?: "-";
        size_t most = i == 0 ? CELL : SHOWN, length = strlen(cell);

        t->widths[i] = MAX(t->widths[i], MIN(length, most));
        if (t->out && length > most)
            strbuf_addf(t->out, "%s%.*s...", i ? "  " : "", (int)most - 3, cell);
        else if (t->out && i < t->n)
            strbuf_addf(t->out, "%s%-*s", i ? "  " : "", (int)t->widths[i], cell);
        else if (t->out)
            strbuf_addf(t->out, "  %s", cell);
    }
    if (t->out)
        strbuf_addc(t->out, '\n');
}

static int text_rows(const struct comparison *c, struct text *t, struct strbuf *out)
{
    const char *letters[COMPARE_MAX];
    size_t before;
    int r;

    for (int i = 0; i < c->n; i++)
        letters[i] = compared_letter(i);
    t->out = out;
    text_row("", letters, t);
    before = out ? out->length : 0;
    r = comparison_differences(c, text_row, t);
    if (out && out->length == before)
        strbuf_adds(out, "(the configurations differ in nothing but the run's name)\n");
    if (out)
        strbuf_addc(out, '\n');
    comparison_figures(c, text_row, t);
    return r;
}

int comparison_print(const struct comparison *c, struct strbuf *out)
{
    struct text t = {.n = c->n};
    int r = text_rows(c, &t, NULL);

    for (int i = 0; i < c->n; i++)
        strbuf_addf(out, "%s: %s\n", compared_letter(i), c->runs[i].dir);
    if (r == 0)
        r = text_rows(c, &t, out);
    for (int i = 0; i < c->n_arms && comparison_has_seeds(c); i++) {
        strbuf_addf(out, i ? "%d. " : "\n%d. ", i + 1);
        comparison_arm_words(c, i, out);
        strbuf_addc(out, '\n');
    }
    return r < 0 || out->failed ? -ENOMEM : 0;
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------------- */

struct json_rows {
    int n;
    struct json_writer *w;
};

static void json_row(const char *place, const char *const *values, void *arg)
{
    const struct json_rows *rows = arg;

    json_open(rows->w, NULL, '{');
    json_text(rows->w, "key", place);
    json_open(rows->w, "values", '[');
    for (int i = 0; i < rows->n; i++)
        json_text(rows->w, NULL, values[i]);
    json_close(rows->w, ']');
    json_close(rows->w, '}');
}

static void json_run(const struct comparison *c, const struct compared *run, struct json_writer *w)
{
    char *policies = json_dumps(compared_policies(run), JSON_COMPACT);

    json_open(w, NULL, '{');
    json_text(w, "dir", run->dir);
    json_bool(w, "finished", run_stages_all(&run->stages));
    json_raw(w, "policies", policies ?: "null");
    if (run != c->runs && run->over.pairs) {
        json_open(w, "over_first", '{');
        json_text(w, "policy", c->policy);
        json_signed(w, "pairs", run->over.pairs);
        json_number(w, "difference", run->over.mean);
        json_interval(w, "interval95", run->over.low, run->over.high);
        json_signed(w, "gained", run->over.gained);
        json_signed(w, "lost", run->over.lost);
        json_number(w, "mcnemar_p", run->over.p);
        json_close(w, '}');
    }
    json_close(w, '}');
    free(policies);
}

static void json_arm(const struct comparison_arm *arm, struct json_writer *w)
{
    json_open(w, NULL, '{');
    json_open(w, "runs", '[');
    for (int i = 0; i < arm->n; i++)
        json_signed(w, NULL, arm->runs[i]);
    json_close(w, ']');
    json_number(w, "success", arm->success);
    if (arm->over.seeds) {
        json_open(w, "over_first", '{');
        json_signed(w, "seeds", arm->over.seeds);
        json_signed(w, "states", arm->over.states);
        json_number(w, "difference", arm->over.mean);
        json_interval(w, "interval95", arm->over.low, arm->over.high);
        json_close(w, '}');
    }
    json_close(w, '}');
}

int comparison_json(const struct comparison *c, struct strbuf *out)
{
    struct json_writer w = {.out = out};
    struct json_rows rows = {c->n, &w};
    int r;

    json_open(&w, NULL, '{');
    json_open(&w, "runs", '[');
    for (int i = 0; i < c->n; i++)
        json_run(c, &c->runs[i], &w);
    json_close(&w, ']');
    json_open(&w, "arms", '[');
    for (int i = 0; i < c->n_arms; i++)
        json_arm(&c->arms[i], &w);
    json_close(&w, ']');
    json_open(&w, "differences", '[');
    r = comparison_differences(c, json_row, &rows);
    json_close(&w, ']');
    json_close(&w, '}');
    strbuf_addc(out, '\n');
    return r < 0 || out->failed ? -ENOMEM : 0;
}
