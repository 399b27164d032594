#include "cli/report_data.h"

#include <errno.h>
#include <limits.h>
#include <math.h>

#include "base/atomic_file.h"
#include "cli/run_open.h"
#include "cli/run_stages.h"
#include "proto/control.pb-c.h"

int report_data_read(struct ledger *ledger, struct report_data *ret)
{
    struct report_data d = {.run = *ledger_run(ledger)};
    int r;

    if ((r = ledger_stages(ledger, &d.stages, &d.n_stages)) < 0 ||
        (r = ledger_iterations(ledger, &d.iterations, &d.n_iterations)) < 0 ||
        (r = ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &d.episodes, &d.n_episodes)) < 0 ||
        (r = ledger_scalars(ledger, NULL, &d.scalars, &d.n_scalars)) < 0 ||
        (r = ledger_versions(ledger, &d.versions, &d.n_versions)) < 0 || (r = run_builds_read(ledger, &d.builds)) < 0 ||
        (r = run_stopped(ledger, d.stopped, sizeof d.stopped)) < 0)
        report_data_release(&d);
    else
        *ret = d;
    return r;
}

int report_data_load(const char *run_dir, struct report_data *ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    char path[PATH_MAX];
    json_error_t where;
    int r = run_open_ledger(run_dir, &ledger, error);

    if (r < 0)
        return r;
    if ((r = report_data_read(ledger, ret)) < 0)
        return error_set(error, -r, "%s/ledger.sqlite: %s", run_dir, ledger_error(ledger));
    snprintf(path, sizeof path, "%s/summary.json", run_dir);
    ret->summary = json_load_file(path, 0, &where);     /* absent before the eval stage */
    snprintf(path, sizeof path, "%s/config.yaml", run_dir);
    (void)file_read(path, 1 << 20, &ret->config, NULL);
    return 0;
}

void report_data_release(struct report_data *d)
{
    free(d->stages);
    free(d->iterations);
    free(d->episodes);
    free(d->scalars);
    ledger_versions_free(d->versions, d->n_versions);
    if (d->summary)
        json_decref(d->summary);
    free(d->config);
    *d = (struct report_data) {0};
}

static bool counts(const struct ledger_episode *e, const struct ledger_iteration *it, const char *task)
{
    return e->stage == it->stage && e->iteration == it->iteration && e->purpose == GANTRY__PURPOSE__PURPOSE_TRAIN &&
           e->state != EPISODE_OPEN && e->state != EPISODE_FAILED && (!task || !strcmp(task, e->task));
}

int report_train_points(const struct report_data *d, const char *task, struct report_point **ret, int *ret_n)
{
    struct report_point *points = calloc(d->n_iterations + 1, sizeof *points);
    size_t first = 0;
    int n = 0;

    if (!points)
        return -ENOMEM;
    for (size_t i = 0; i < d->n_iterations; i++) {
        const struct ledger_iteration *it = &d->iterations[i];
        double success = 0, reward = 0, steps = 0, count = 0;

        if (it->purpose != GANTRY__PURPOSE__PURPOSE_TRAIN)
            continue;
        /* rows of an iteration lie together but for replacements, which come a little later */
        while (first < d->n_episodes && d->episodes[first].episode < it->first_episode)
            first++;
        for (size_t k = first; k < d->n_episodes && k < first + 8192; k++) {
            const struct ledger_episode *e = &d->episodes[k];

            if (!counts(e, it, task))
                continue;
            count++;
            success += e->success;
            reward += (double)e->reward;
            steps += e->steps;
        }
        points[n] = (struct report_point) {n + 1, success / count, reward / count, steps / count};
        n++;
    }
    *ret = points;
    *ret_n = n;
    return 0;
}

int report_train_iteration(const struct report_data *d, uint32_t stage, uint32_t iteration)
{
    int at = 0;

    for (size_t i = 0; i < d->n_iterations; i++) {
        if (d->iterations[i].purpose != GANTRY__PURPOSE__PURPOSE_TRAIN)
            continue;
        at++;
        if (d->iterations[i].stage == stage && d->iterations[i].iteration == iteration)
            return at;
    }
    return 0;
}

int report_trained_before(const struct report_data *d, uint32_t stage, uint32_t iteration)
{
    int n = 0;

    for (size_t i = 0; i < d->n_iterations; i++)
        n += d->iterations[i].purpose == GANTRY__PURPOSE__PURPOSE_TRAIN &&
             (d->iterations[i].stage < stage || (d->iterations[i].stage == stage && d->iterations[i].iteration < iteration));
    return n;
}

bool report_had_update(const struct report_data *d, uint32_t stage, uint32_t iteration)
{
    for (size_t i = 0; i < d->n_scalars; i++)
        if (d->scalars[i].stage == stage && d->scalars[i].iteration == iteration && !strcmp(d->scalars[i].name, "updates"))
            return d->scalars[i].value > 0;
    return true;
}

void report_smooth(const double *values, int n, int window, double *ret)
{
    for (int i = 0; i < n; i++) {
        double sum = 0;
        int count = 0;

        for (int k = MAX(0, i - window + 1); k <= i; k++)
            if (isfinite(values[k])) {
                sum += values[k];
                count++;
            }
        ret[i] = count ? sum / count : NAN;
    }
}

int report_tasks(const struct report_data *d, const char *ret_tasks[], int capacity)
{
    int n = 0, k;

    for (size_t i = 0; i < d->n_episodes && n < capacity; i++) {
        for (k = 0; k < n && strcmp(ret_tasks[k], d->episodes[i].task); k++)
            ;
        if (k == n)
            ret_tasks[n++] = d->episodes[i].task;
    }
    return n;
}
