#include "cli/up_config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/sim.h"

int up_config_name_tasks(const char *path, struct run_config *config, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    const struct sim_task_info *infos;
    char named[PATH_MAX + 32];
    int n, r;

    if (!run_config_all_tasks(config))
        return 0;
    snprintf(named, sizeof named, "%s, all tasks named", path);
    n = sim_suite_known_tasks(config->suite, &infos);
    if (n < 1 || n > RUN_MAX_TASKS)
        return error_set(error, EINVAL, "%s: suite.tasks: [all]: the tasks of suite %s are not known here: name them", path,
                         config->suite);
    for (int i = 0; i < n; i++)
        snprintf(config->tasks[i], sizeof config->tasks[i], "%s", infos[i].name);
    config->n_tasks = n;
    r = run_config_write(config, &text);
    return r < 0 ? error_set(error, ENOMEM, "%s: out of memory", path)
                 : run_config_parse(text.text, text.length, named, config, error);
}

int up_config_load(const char *path, struct run_config *ret, struct error *error)
{
    int r = run_config_load(path, ret, error);

    return r < 0 ? r : up_config_name_tasks(path, ret, error);
}

int up_config_find(const char *given, char ret[PATH_MAX], struct error *error)
{
    struct stat st;
    bool run = stat(given, &st) == 0 && S_ISDIR(st.st_mode);

    if (snprintf(ret, PATH_MAX, "%s%s", given, run ? "/config.yaml" : "") >= PATH_MAX)
        return error_set(error, ENAMETOOLONG, "%s: the path is too long", given);
    if (run && access(ret, F_OK) < 0)
        return errno == ENOENT ? error_set(error, ENOENT, "%s: no run is in this directory; name the run's YAML file", given)
                               : error_set(error, errno, "%s: %m", ret);
    return 0;
}

void up_config_own_dir(const char *path, struct run_config *config)
{
    static const char *const signs[] = {"ledger.sqlite", "up.lock", "policies"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char sign[PATH_MAX];
    int n = slash ? (int)(slash - path) : 1;

    if (strcmp(name, "config.yaml") != 0 || n == 0 || (size_t)n >= sizeof config->dir)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(signs); i++) {
        snprintf(sign, sizeof sign, "%.*s/%s", n, slash ? path : ".", signs[i]);
        if (access(sign, F_OK) == 0) {
            snprintf(config->dir, sizeof config->dir, "%.*s", n, slash ? path : ".");
            return;
        }
    }
}
