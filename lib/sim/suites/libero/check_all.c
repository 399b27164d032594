/* check_all.c - everything in a folder of reference data, task by task. */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "sim/check.h"
#include "sim/suites/libero/check.h"

struct run {
    const struct sim_options *options;
    const char *folder;
    struct sim_renderer *renderers[2];  /* opened for the first pictures */
    int device;
    sim_check_report *report;
    void *user;
    struct sim_check_counts counts;
    struct error *error;
};

static void tell(struct run *run, const char *file, const char *what, const struct check_result *result)
{
    const bool agrees = check_passed(result);
    const char *verdict = agrees ? "agrees" : result->compared ? "DIFFERS" : "HOLDS NOTHING TO COMPARE";
    char line[600], figures[200] = "";

    if (result->qpos > 0)
        snprintf(figures, sizeof(figures), "largest difference qpos %.1e, observations %.1e, torques %.1e", result->qpos,
                 result->observation, result->ctrl);
    if (result->pixels > 0 && result->compared)
        snprintf(figures, sizeof(figures), "%.3f %% of the pixels within 1", 100 * result->pixels);
    snprintf(line, sizeof(line), "%s %s: %s (%d compared)%s%s%s%s", file, what, verdict, result->compared,
             figures[0] ? ", " : "", figures, result->where[0] ? "; " : "", result->where);
    run->counts.files++;
    run->counts.failed += !agrees;
    run->report(run->user, line, agrees);
}

static int check_rollout(struct run *run, const struct libero_task *task, const char *name, const char *path)
{
    struct check_result result;
    int r = 0;

    if (run->options->substeps != SIM_SUBSTEPS_ONEPASS) {
        r = check_physics(task, path, LIBERO_REFERENCE, &result, run->error);
        if (r == 0)
            tell(run, name, "reference", &result);
    }
    if (r == 0 && run->options->substeps != SIM_SUBSTEPS_REFERENCE) {
        r = check_physics(task, path, LIBERO_ONEPASS, &result, run->error);
        if (r == 0)
            tell(run, name, "onepass", &result);
    }
    return r;
}

static int check_pictures(struct run *run, const struct libero_task *task, const char *name, const char *path)
{
    struct check_result result;
    int r = 0;

    if (!strstr(name, "_states.npz"))
        return 0;
    for (int i = 0; i < 2 && r == 0; i++)
        if (!run->renderers[i])
            r = sim_renderer_open(run->device, 128 << i, 128 << i, &run->renderers[i], run->error);
    if (r == 0)
        r = check_images(task, path, run->renderers, &result, run->error);
    if (r == 0)
        tell(run, name, "images", &result);
    return r;
}

static int check_one(struct run *run, const struct libero_task *task, const char *kind, const char *name)
{
    struct check_result result;
    char path[4096];
    int r;

    snprintf(path, sizeof(path), "%s/%s/%s", run->folder, kind, name);
    if (strcmp(kind, "physics") == 0)
        return check_rollout(run, task, name, path);
    if (strcmp(kind, "images") == 0)
        return check_pictures(run, task, name, path);
    r = strcmp(kind, "models") == 0 ? check_model(task, path, &result, run->error)
                                    : check_predicates(task, path, &result, run->error);
    if (r == 0)
        tell(run, name, kind, &result);
    return r;
}

/* Is "libero_10_9_row7.npz" of task libero_10_9 (not of libero_10_90)? */
static bool is_of_task(const char *name, const char *task)
{
    size_t n = strlen(task);

    return strncmp(name, task, n) == 0 && (name[n] == '_' || name[n] == '.');
}

static int visit(struct run *run, const char *kind, const char *task_name, const struct libero_task *task, int *files)
{
    struct dirent **names;
    char folder[4096];
    int n, r = 0;

    snprintf(folder, sizeof(folder), "%s/%s", run->folder, kind);
    n = scandir(folder, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (is_of_task(names[i]->d_name, task_name)) {
            ++*files;
            if (task && r == 0)
                r = check_one(run, task, kind, names[i]->d_name);
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return r;
}

static int check_task(struct run *run, struct sim_suite *opened, const struct libero_suite *suite, int index)
{
    static const char *const kinds[] = { "models", "physics", "predicates", "images" };
    struct sim_task *task;
    char name[64];
    int files = 0, r = 0;

    snprintf(name, sizeof(name), "%s_%d", suite->name, index);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
        visit(run, kinds[k], name, NULL, &files);
    if (!files)
        return 0;
    r = sim_task_open(opened, suite->tasks[index], &task, run->error);
    if (r < 0)
        return r;
    for (size_t k = 0; k < ARRAY_SIZE(kinds) && r == 0; k++)
        r = visit(run, kinds[k], name, (const struct libero_task *)task, &files);
    sim_task_close(task);
    return r;
}

static int check_suite(struct run *run, const struct libero_suite *suite)
{
    struct sim_suite *opened;
    int r = sim_suite_open(suite->name, run->options, &opened, run->error);

    if (r < 0)
        return r;
    for (int i = 0; i < suite->n_tasks && r == 0; i++)
        r = check_task(run, opened, suite, i);
    sim_suite_close(opened);
    return r;
}

int sim_check_libero(const char *suite, const struct sim_options *options, int device, const char *folder,
                     sim_check_report *report, void *user, struct sim_check_counts *ret, struct error *error)
{
    static const struct sim_options defaults;
    struct run run = {.options = options ? options : &defaults,
                      .device = device,
                      .folder = folder,
                      .report = report,
                      .user = user,
                      .error = error};
    int r = 0;

    for (int s = 0; s < LIBERO_SUITES && r == 0; s++)
        if (strcmp(suite, "libero") == 0 || strcmp(suite, libero_suites[s].name) == 0)
            r = check_suite(&run, &libero_suites[s]);
    for (int i = 0; i < 2; i++)
        sim_renderer_close(run.renderers[i]);
    if (r == 0 && !run.counts.files)
        r = error_set(error, ENOENT, "%s: no models, physics, predicates or images of suite %s in it", folder, suite);
    if (r == 0)
        *ret = run.counts;
    return r;
}
