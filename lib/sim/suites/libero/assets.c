#include "sim/suites/libero/assets.h"

#include <errno.h>
#include <string.h>

/* First of root/<below[i]> that holds `file`, as an absolute name: MuJoCo looks for relative ones elsewhere. Caller frees. */
static char *find_root(const char *root, const char *const *below, const char *file)
{
    for (; *below; below++) {
        _cleanup_free_ char *folder = NULL, *path = NULL;

        if (asprintf(&folder, "%s%s", root, *below) < 0)
            return folder = NULL;
        if (asprintf(&path, "%s/%s", folder, file) < 0)
            return path = NULL;
        if (access(path, R_OK) == 0)
            return realpath(folder, NULL);
    }
    return NULL;
}

int libero_assets_find(const struct sim_options *options, struct libero_assets *ret, struct error *error)
{
    static const char *const below_libero[] = { "/libero/libero", "/libero", "", NULL };
    static const char *const below_robosuite[] = { "/robosuite", "", NULL };
    const char *libero = options->libero_root ? options->libero_root : getenv("LIBERO_ROOT");
    const char *robosuite = options->robosuite_root ? options->robosuite_root : getenv("ROBOSUITE_ROOT");
    _cleanup_(libero_assets_release) struct libero_assets assets = {0};

    if (options->robosuite && strcmp(options->robosuite, "1.4.0") != 0 && strcmp(options->robosuite, "1.4.1") != 0)
        return error_set(error, EINVAL, "suite.robosuite: '%s'; there are 1.4.0 and 1.4.1", options->robosuite);
    assets.version = options->robosuite && strcmp(options->robosuite, "1.4.1") == 0 ? ROBOSUITE_1_4_1 : ROBOSUITE_1_4_0;
    assets.libero = libero ? find_root(libero, below_libero, "assets/scenes/libero_tabletop_base_style.xml") : NULL;
    if (!assets.libero)
        return error_set(error, ENOENT, "LIBERO's files are not here (LIBERO_ROOT%s%s). Get them: git clone "
                         "https://github.com/Lifelong-Robot-Learning/LIBERO && export LIBERO_ROOT=$PWD/LIBERO",
                         libero ? " = " : " is not set", libero ? libero : "");
    assets.robosuite = robosuite ? find_root(robosuite, below_robosuite, "models/assets/robots/panda/robot.xml") : NULL;
    if (!assets.robosuite && !robosuite)
        assets.robosuite = find_root(".deps/robosuite", below_robosuite, "models/assets/robots/panda/robot.xml");
    if (!assets.robosuite)
        return error_set(error, ENOENT,
                         "robosuite's files are not here (ROBOSUITE_ROOT%s%s). Get them: make libero-assets && "
                         "export ROBOSUITE_ROOT=$PWD/.deps/robosuite",
                         robosuite ? " = " : " is not set", robosuite ? robosuite : "");
    *ret = TAKE_STRUCT(assets);
    return 0;
}

void libero_assets_release(struct libero_assets *assets)
{
    free(assets->libero);
    free(assets->robosuite);
    *assets = (struct libero_assets) {0};
}

void libero_cache_folder(const struct sim_options *options, char *ret, size_t n)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (options->cache)
        snprintf(ret, n, "%s", options->cache);
    else if (cache && *cache)
        snprintf(ret, n, "%s/gantry/libero", cache);
    else if (home && *home)
        snprintf(ret, n, "%s/.cache/gantry/libero", home);
    else
        ret[0] = '\0';
}
