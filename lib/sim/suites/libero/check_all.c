/* check_all.c - everything in a folder of reference data, task by task. */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "sim/check.h"
#include "sim/suites/libero/assets.h"
#include "sim/suites/libero/check.h"

struct run {
    const struct libero_assets *assets;
    const char *cache, *folder;
    enum sim_substeps substeps;
    sim_check_report *report;
    void *user;
    struct sim_check_counts counts;
    struct error *error;
};

static void tell(struct run *run, const char *file, const char *what, const struct check_result *result)
{
    const bool agrees = check_passed(result);
    char line[600], figures[200] = "";

    if (result->qpos > 0)
        snprintf(figures, sizeof(figures), "largest difference qpos %.1e, observations %.1e, torques %.1e", result->qpos,
                 result->observation, result->ctrl);
    snprintf(line, sizeof(line), "%s %s: %s (%d compared)%s%s%s%s", file, what, agrees ? "agrees" : "DIFFERS", result->compared,
             figures[0] ? ", " : "", figures, result->where[0] ? "; " : "", result->where);
    run->counts.files++;
    run->counts.failed += !agrees;
    run->report(run->user, line, agrees);
}

static int check_rollout(struct run *run, const struct libero_task *task, const char *name, const char *path)
{
    struct check_result result;
    int r = 0;

    if (run->substeps != SIM_SUBSTEPS_ONEPASS) {
        r = check_physics(task, path, LIBERO_REFERENCE, &result, run->error);
        if (r == 0)
            tell(run, name, "reference", &result);
    }
    if (r == 0 && run->substeps != SIM_SUBSTEPS_REFERENCE) {
        r = check_physics(task, path, LIBERO_ONEPASS, &result, run->error);
        if (r == 0)
            tell(run, name, "onepass", &result);
    }
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
    r = strcmp(kind, "models") == 0 ? check_model(task, path, &result, run->error) : check_predicates(task, path, &result, run->error);
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

static int check_task(struct run *run, const struct libero_suite *suite, int index)
{
    static const char *const kinds[] = { "models", "physics", "predicates" };
    _cleanup_(libero_task_closep) struct libero_task *task = NULL;
    char name[64];
    int files = 0, r = 0;

    snprintf(name, sizeof(name), "%s_%d", suite->name, index);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
        visit(run, kinds[k], name, NULL, &files);
    if (!files)
        return 0;
    r = libero_task_open(run->assets, run->cache, suite, index, &task, run->error);
    for (size_t k = 0; k < ARRAY_SIZE(kinds) && r == 0; k++)
        r = visit(run, kinds[k], name, task, &files);
    return r;
}

int sim_check_libero(const char *suite, const struct sim_options *options, const char *folder, sim_check_report *report, void *user,
                     struct sim_check_counts *ret, struct error *error)
{
    static const struct sim_options defaults;
    _cleanup_(libero_assets_release) struct libero_assets assets = {0};
    char cache[4096];
    struct run run = { .assets = &assets, .cache = cache, .folder = folder, .report = report, .user = user, .error = error };
    int r;

    options = options ? options : &defaults;
    run.substeps = options->substeps;
    r = libero_assets_find(options, &assets, error);
    if (r < 0)
        return r;
    libero_cache_folder(options, cache, sizeof(cache));
    for (int s = 0; s < LIBERO_SUITES && r == 0; s++)
        for (int i = 0; i < libero_suites[s].n_tasks && r == 0; i++)
            if (strcmp(suite, "libero") == 0 || strcmp(suite, libero_suites[s].name) == 0)
                r = check_task(&run, &libero_suites[s], i);
    if (r == 0 && !run.counts.files)
        r = error_set(error, ENOENT, "%s: no models, physics or predicates of suite %s in it", folder, suite);
    if (r == 0)
        *ret = run.counts;
    return r;
}
