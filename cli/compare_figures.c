/* compare_figures.c - row by row, in what runs differ and what came of them: a column for each run, or for each arm, over whose
 * runs figures are averaged. */
#include <inttypes.h>
#include <math.h>

#include "base/figure.h"
#include "cli/compare.h"
#include "cli/json_at.h"
#include "cli/report_series.h"
#include "proto/control.pb-c.h"

enum { CELL = 96, NUMBERS = 5, LAST = 10 };

struct quantity {
    int decimals; /* of an arm's mean */
    /* Of a run; numbers[0] is what an arm's runs are averaged by. false: it has none. */
    bool (*read)(const struct comparison *c, const struct compared *run, const char *of, double numbers[NUMBERS]);
    void (*write)(const double *numbers, char ret[CELL]); /* a run's */
};

/* ---- reading and writing one --------------------------------------------------------------------------------------------- */

static bool read_episodes(const struct comparison *c _unused_, const struct compared *run, const char *of _unused_,
                          double numbers[NUMBERS])
{
    numbers[0] = 0;
    for (size_t i = 0; i < run->data.n_episodes; i++)
        numbers[0] +=
            run->data.episodes[i].purpose == GANTRY__PURPOSE__PURPOSE_TRAIN && run->data.episodes[i].state != EPISODE_OPEN;
    return numbers[0] > 0;
}

static bool read_wall(const struct comparison *c _unused_, const struct compared *run, const char *of, double numbers[NUMBERS])
{
    numbers[0] = 0;
    for (size_t i = 0; i < run->data.n_stages; i++)
        if (!of || !strcmp(run->data.stages[i].kind, of))
            numbers[0] += run->data.stages[i].wall_s;
    return numbers[0] > 0;
}

static void write_count(const double *numbers, char ret[CELL]) { snprintf(ret, CELL, "%.0f", numbers[0]); }

/* The mean of the last ten iterations, and the first. */
static bool read_training(const struct comparison *c _unused_, const struct compared *run, const char *of _unused_,
                          double numbers[NUMBERS])
{
    _cleanup_free_ struct report_point *points = NULL;
    double sums[2] = {0}, counts[2] = {0};
    int n;

    if (report_train_points(&run->data, NULL, &points, &n) < 0)
        return false;
    for (int i = 0; i < n; i++)
        if (isfinite(points[i].success) && (i == 0 || i >= n - LAST)) {
            sums[i > 0] += points[i].success;
            counts[i > 0]++;
        }
    numbers[1] = sums[0] / counts[0];
    numbers[0] = counts[1] > 0 ? sums[1] / counts[1] : numbers[1];
    numbers[2] = counts[1];
    return counts[0] > 0;
}

static void write_training(const double *numbers, char ret[CELL])
{
    if (numbers[2] > 0)
        snprintf(ret, CELL, "%.3f -> %.3f", numbers[1], numbers[0]);
    else
        snprintf(ret, CELL, "%.3f", numbers[1]);
}

static bool read_val(const struct comparison *c _unused_, const struct compared *run, const char *of _unused_,
                     double numbers[NUMBERS])
{
    _cleanup_free_ double *x = calloc(run->data.n_scalars + 1, sizeof *x), *y = calloc(run->data.n_scalars + 1, sizeof *y);
    int n = x && y ? report_series_points(&run->data, "success/val", x, y) : 0, best = 0;

    for (int i = 1; i < n; i++)
        if (y[i] > y[best])
            best = i;
    if (n > 0) {
        numbers[0] = y[best];
        numbers[1] = x[best];
    }
    return n > 0;
}

static void write_val(const double *numbers, char ret[CELL]) { snprintf(ret, CELL, "%.3f after %.0f", numbers[0], numbers[1]); }

static bool read_test(const struct comparison *c _unused_, const struct compared *run, const char *of, double numbers[NUMBERS])
{
    struct compared_test test;

    if (!compared_test(run, of, &test))
        return false;
    memcpy(numbers, (double[]){test.success, test.low, test.high, test.episodes, test.temperature}, NUMBERS * sizeof(double));
    return true;
}

static void write_test(const double *numbers, char ret[CELL])
{
    char temperature[24] = "";

    if (isfinite(numbers[4]))
        snprintf(temperature, sizeof temperature, ", T %.3g", numbers[4]);
    snprintf(ret, CELL, "%.3f [%.3f %.3f] of %.0f%s", numbers[0], numbers[1], numbers[2], numbers[3], temperature);
}

static bool read_task(const struct comparison *c, const struct compared *run, const char *of, double numbers[NUMBERS])
{
    json_t *policy = json_object_get(compared_policies(run), c->policy);
    json_t *task = json_object_get(json_object_get(policy, "tasks"), of);

    if (!task)
        return false;
    numbers[0] = number_at(task, "success");
    numbers[1] = number_at(task, "episodes");
    return true;
}

static void write_task(const double *numbers, char ret[CELL]) { snprintf(ret, CELL, "%.3f of %.0f", numbers[0], numbers[1]); }

static const struct quantity episodes = {0, read_episodes, write_count}, wall = {0, read_wall, write_count},
                             training = {3, read_training, write_training}, val = {3, read_val, write_val},
                             test = {3, read_test, write_test}, task = {3, read_task, write_task};

/* ---- columns ------------------------------------------------------------------------------------------------------------- */

/* Of runs, or of arms. */
struct sink {
    const struct comparison *c;
    bool arms;
    run_config_row_fn row;
    void *arg;
};

struct cells {
    char texts[COMPARE_MAX][CELL];
    bool there[COMPARE_MAX];
};

static int columns(const struct sink *sink) { return sink->arms ? sink->c->n_arms : sink->c->n; }

/* A row that no column has anything to say in is left out. */
static void add_row(const struct sink *sink, const char *label, const struct cells *cells)
{
    const char *texts[COMPARE_MAX];
    bool any = false;

    for (int i = 0; i < columns(sink); i++) {
        texts[i] = cells->there[i] ? cells->texts[i] : NULL;
        any |= cells->there[i];
    }
    if (any)
        sink->row(label, texts, sink->arg);
}

static bool write_of_run(const struct comparison *c, int run, const struct quantity *what, const char *of, char ret[CELL])
{
    double numbers[NUMBERS];
    bool there = what->read(c, &c->runs[run], of, numbers);

    if (there)
        what->write(numbers, ret);
    return there;
}

/* "0.712, 0.701 to 0.733": the mean over its runs, the least and the most. */
static bool write_of_arm(const struct comparison *c, const struct comparison_arm *arm, const struct quantity *what,
                         const char *of, char ret[CELL])
{
    double numbers[NUMBERS], sum = 0, least = INFINITY, most = -INFINITY;
    int n = 0, length;

    for (int i = 0; i < arm->n; i++)
        if (what->read(c, &c->runs[arm->runs[i]], of, numbers)) {
            sum += numbers[0];
            least = fmin(least, numbers[0]);
            most = fmax(most, numbers[0]);
            n++;
        }
    if (!n)
        return false;
    length = snprintf(ret, CELL, "%.*f", what->decimals, sum / n);
    if (most > least)
        length += snprintf(ret + length, (size_t)(CELL - length), ", %.*f to %.*f", what->decimals, least, what->decimals, most);
    if (n < arm->n)
        snprintf(ret + length, (size_t)(CELL - length), " (%d of %d)", n, arm->n);
    return true;
}

static void add_quantity(const struct sink *sink, const char *label, const struct quantity *what, const char *of)
{
    struct cells cells;

    for (int i = 0; i < columns(sink); i++)
        cells.there[i] = sink->arms ? write_of_arm(sink->c, &sink->c->arms[i], what, of, cells.texts[i])
                                    : write_of_run(sink->c, i, what, of, cells.texts[i]);
    add_row(sink, label, &cells);
}

/* Names of one level of a run's test, each once, those of earlier runs first. */
static void add_each(const struct sink *sink, json_t *(*names)(const struct comparison *, const struct compared *),
                     const char *before, const struct quantity *what)
{
    for (int i = 0; i < sink->c->n; i++) {
        json_t *object = names(sink->c, &sink->c->runs[i]), *value;
        const char *name;

        json_object_foreach(object, name, value)
        {
            char label[CELL];
            bool added = false;

            for (int k = 0; k < i; k++)
                added |= json_object_get(names(sink->c, &sink->c->runs[k]), name) != NULL;
            snprintf(label, sizeof label, "%s%s", before, name);
            if (!added)
                add_quantity(sink, label, what, name);
        }
    }
}

static json_t *policies_of(const struct comparison *c _unused_, const struct compared *run) { return compared_policies(run); }

static json_t *tasks_of(const struct comparison *c, const struct compared *run)
{
    json_t *tasks = json_object_get(json_object_get(compared_policies(run), c->policy), "tasks");

    return json_object_size(tasks) > 1 ? tasks : NULL;
}

static void add_tested(const struct sink *sink)
{
    char before[CELL];

    add_each(sink, policies_of, "test: ", &test);
    snprintf(before, sizeof before, "%s, ", sink->c->policy);
    add_each(sink, tasks_of, before, &task);
}

/* ---- what is not averaged ------------------------------------------------------------------------------------------------ */

typedef bool (*cell_fn)(const struct comparison *c, int column, char ret[CELL]);

static void add_cells(const struct sink *sink, const char *label, cell_fn cell)
{
    struct cells cells;

    for (int i = 0; i < columns(sink); i++)
        cells.there[i] = cell(sink->c, i, cells.texts[i]);
    add_row(sink, label, &cells);
}

static bool state_of_run(const struct comparison *c, int run, char ret[CELL])
{
    const struct run_stages *stages = &c->runs[run].stages;

    if (run_stages_all(stages))
        snprintf(ret, CELL, "finished");
    else
        snprintf(ret, CELL, "%s%s%s, %d of %d stages", stages->stopped[0] ? "stopped" : "down", stages->next[0] ? " in " : "",
                 stages->next, stages->done, stages->of);
    return true;
}

static bool over_of_run(const struct comparison *c, int run, char ret[CELL])
{
    const struct paired *d = &c->runs[run].over;

    if (d->pairs)
        snprintf(ret, CELL, "%+.1f [%+.1f %+.1f], %d pairs, p %.2g", figure(100 * d->mean, 1), figure(100 * d->low, 1),
                 figure(100 * d->high, 1), d->pairs, d->p);
    return d->pairs > 0;
}

void comparison_figures(const struct comparison *c, run_config_row_fn row, void *arg)
{
    const struct sink sink = {c, false, row, arg};
    char label[CELL];

    add_cells(&sink, "state", state_of_run);
    add_quantity(&sink, "episodes of rl", &episodes, NULL);
    add_quantity(&sink, "wall of rl, s", &wall, "rl");
    add_quantity(&sink, "wall of all stages, s", &wall, NULL);
    add_quantity(&sink, "success in training, first iteration -> last ten", &training, NULL);
    add_quantity(&sink, "best on val, after iteration", &val, NULL);
    add_tested(&sink);
    snprintf(label, sizeof label, "%s over a's, points", c->policy);
    add_cells(&sink, label, over_of_run);
}

static bool runs_of_arm(const struct comparison *c, int arm, char ret[CELL])
{
    for (int i = 0, n = 0; i < c->arms[arm].n && n < CELL; i++)
        n += snprintf(ret + n, (size_t)(CELL - n), "%s%s", i ? " " : "", compared_letter(c->arms[arm].runs[i]));
    return true;
}

static bool seeds_of_arm(const struct comparison *c, int arm, char ret[CELL])
{
    for (int i = 0, n = 0; i < c->arms[arm].n && n < CELL; i++)
        n += snprintf(ret + n, (size_t)(CELL - n), "%s%" PRIu64, i ? " " : "", c->runs[c->arms[arm].runs[i]].config->seed);
    return true;
}

static bool state_of_arm(const struct comparison *c, int which, char ret[CELL])
{
    const struct comparison_arm *arm = &c->arms[which];
    int finished = 0;

    for (int i = 0; i < arm->n; i++)
        finished += run_stages_all(&c->runs[arm->runs[i]].stages);
    snprintf(ret, CELL, "%d of %d finished", finished, arm->n);
    return true;
}

static bool over_of_arm(const struct comparison *c, int arm, char ret[CELL])
{
    const struct arm_over *over = &c->arms[arm].over;

    if (over->seeds)
        snprintf(ret, CELL, "%+.1f [%+.1f %+.1f], %d seeds, %d states", figure(100 * over->mean, 1), figure(100 * over->low, 1),
                 figure(100 * over->high, 1), over->seeds, over->states);
    return over->seeds > 0;
}

void comparison_arm_figures(const struct comparison *c, run_config_row_fn row, void *arg)
{
    const struct sink sink = {c, true, row, arg};
    char label[CELL];

    add_cells(&sink, "runs", runs_of_arm);
    add_cells(&sink, "seeds", seeds_of_arm);
    add_cells(&sink, "state", state_of_arm);
    add_quantity(&sink, "episodes of rl", &episodes, NULL);
    add_quantity(&sink, "wall of rl, s", &wall, "rl");
    add_quantity(&sink, "success in training, last ten iterations", &training, NULL);
    add_quantity(&sink, "best on val", &val, NULL);
    add_tested(&sink);
    snprintf(label, sizeof label, "%s over 1's, points", c->policy);
    add_cells(&sink, label, over_of_arm);
}

/* ---- in what they differ ------------------------------------------------------------------------------------------------- */

int comparison_differences(const struct comparison *c, run_config_row_fn row, void *arg)
{
    const struct run_config *configs[COMPARE_MAX];

    for (int i = 0; i < c->n; i++)
        configs[i] = c->runs[i].config;
    return run_config_compare(configs, c->n, row, arg);
}

/* An arm's runs are those that differ in what is left out here. */
static void say_unless_aside(const char *place, const char *const *values, void *arg)
{
    const struct sink *sink = arg;

    if (!comparison_is_aside(place))
        sink->row(place, values, sink->arg);
}

int comparison_arm_differences(const struct comparison *c, run_config_row_fn row, void *arg)
{
    struct sink sink = {c, true, row, arg};
    const struct run_config *configs[COMPARE_MAX];

    for (int i = 0; i < c->n_arms; i++)
        configs[i] = c->runs[c->arms[i].runs[0]].config;
    return run_config_compare(configs, c->n_arms, say_unless_aside, &sink);
}
