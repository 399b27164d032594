#include "cli/up_config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
