#include "coordinator/status_tasks.h"

#include <math.h>

enum { PASSES = STATUS_TASKS_PASSES };

struct course { double last[PASSES], val, drawn; int n; };

static const struct ledger_iteration *iteration_of(const struct ledger_iteration *iterations, size_t n,
                                                   const struct ledger_scalar *point)
{
    for (size_t i = n; i-- > 0;)
        if (iterations[i].stage == point->stage && iterations[i].iteration == point->iteration)
            return &iterations[i];
    return NULL;
}

static void take(struct course *course, const struct ledger_iteration *it, double value)
{
    if (it->purpose == EPISODE_EVAL)
        course->val = value;
    else if (it->purpose == EPISODE_TRAIN)
        course->last[course->n++ % PASSES] = value;
}

/* Points of one series and stage, in order. */
static void read_course(struct ledger *ledger, const char *task, uint32_t stage, const struct ledger_iteration *iterations, size_t n,
                        struct course *ret)
{
    _cleanup_free_ struct ledger_scalar *points = NULL, *drawn = NULL;
    char name[EPISODE_TASK_MAX + 16];
    size_t n_points = 0, n_drawn = 0;

    *ret = (struct course) {.val = NAN, .drawn = NAN};
    snprintf(name, sizeof name, "success/%s", task);
    if (ledger_scalars(ledger, name, &points, &n_points) < 0)
        n_points = 0;
    for (size_t i = 0; i < n_points; i++) {
        const struct ledger_iteration *it = points[i].stage == stage ? iteration_of(iterations, n, &points[i]) : NULL;

        if (it)
            take(ret, it, points[i].value);
    }
    snprintf(name, sizeof name, "curriculum/%s", task);
    if (ledger_scalars(ledger, name, &drawn, &n_drawn) == 0 && n_drawn && drawn[n_drawn - 1].stage == stage)
        ret->drawn = drawn[n_drawn - 1].value;
}

/* The newest rl stage in which something was played. false: none yet. */
static bool newest_rl(const struct run_config *config, const struct ledger_iteration *iterations, size_t n, uint32_t *ret)
{
    bool any = false;

    for (size_t i = 0; i < n; i++)
        if (iterations[i].stage < (uint32_t)config->n_stages && config->stages[iterations[i].stage].kind == STAGE_RL) {
            *ret = iterations[i].stage;
            any = true;
        }
    return any;
}

void status_tasks_write(struct ledger *ledger, const struct run_config *config, struct json_writer *w)
{
    _cleanup_free_ struct ledger_iteration *iterations = NULL;
    uint32_t stage;
    size_t n = 0;

    if (config->n_tasks < 2 || ledger_iterations(ledger, &iterations, &n) < 0 || !newest_rl(config, iterations, n, &stage))
        return;
    for (int t = 0; t < config->n_tasks; t++) {
        struct course course;
        double sum = 0;
        int passes;

        read_course(ledger, config->tasks[t], stage, iterations, n, &course);
        passes = MIN(course.n, (int)PASSES);
        for (int i = 0; i < passes; i++)
            sum += course.last[i];
        if (passes == 0 && isnan(course.val))
            continue;
        json_open(w, NULL, '{');
        json_text(w, "task", config->tasks[t]);
        json_number(w, "success", passes ? sum / passes : NAN);
        json_signed(w, "passes", passes);
        json_number(w, "val", course.val);
        json_number(w, "drawn", course.drawn);
        json_close(w, '}');
    }
}
