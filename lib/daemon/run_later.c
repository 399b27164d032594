#include "daemon/run_later.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic_file.h"

#define FURTHER " (to go on further than the run went, put stages behind its last)"

enum { LATER_MAX_BYTES = 1 << 20 };

bool run_later_is(const struct stage_config *stage)
{
    int number, length = 0;

    return stage->kind == STAGE_EVAL && sscanf(stage->name, "later%d%n", &number, &length) == 1 && !stage->name[length];
}

static int path_of(const char *run_dir, const char *name, char *ret, size_t size, struct error *error)
{
    if ((size_t)snprintf(ret, size, "%s/%s", run_dir, name) >= size)
        return error_set(error, ENAMETOOLONG, "%s/%s: the path is too long", run_dir, name);
    return 0;
}

int run_later_path(const char *run_dir, int n_stages, char *ret, size_t size, struct error *error)
{
    char name[32];
    int r;

    snprintf(name, sizeof name, "evals-%d.yaml", n_stages);
    r = path_of(run_dir, name, ret, size, error);
    return r < 0 || access(ret, F_OK) == 0 ? r : path_of(run_dir, "evals.yaml", ret, size, error);
}

/* n stages into config, in front of its stage `at`. */
static int insert(struct run_config *config, int at, const struct stage_config *stages, int n, const char *where,
                  struct error *error)
{
    if (config->n_stages + n > RUN_MAX_STAGES)
        return error_set(error, E2BIG, "%s: more than %d stages; evaluate a copy of the run directory", where, RUN_MAX_STAGES);
    memmove(config->stages + at + n, config->stages + at, (size_t)(config->n_stages - at) * sizeof *stages);
    memcpy(config->stages + at, stages, (size_t)n * sizeof *stages);
    config->n_stages += n;
    return 0;
}

int run_later_append(const char *run_dir, struct run_config *config, struct error *error)
{
    _cleanup_free_ struct run_config *later = malloc(sizeof *later);
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX];
    int number = 0, r = run_later_path(run_dir, config->n_stages, path, sizeof path, error);
    size_t n;

    if (r < 0 || access(path, F_OK) < 0)
        return r;
    if (!later)
        return error_set(error, ENOMEM, "out of memory");
    if ((r = file_read(path, LATER_MAX_BYTES, &text, &n)) < 0)
        return error_set(error, -r, "%s: cannot be read: %s", path, strerror(-r));
    if ((r = run_config_parse_later(text, n, path, config, later, error)) < 0)
        return r;
    for (int i = 0; i < config->n_stages; i++)
        number += run_later_is(&config->stages[i]);
    for (int i = 0; i < later->n_stages; i++) {
        if (later->stages[i].kind != STAGE_EVAL)
            return error_set(error, EINVAL, "%s: stages[%d] is no eval stage; only those may be added to a run", path, i);
        snprintf(later->stages[i].name, sizeof later->stages[i].name, "later%d", ++number);
    }
    return insert(config, config->n_stages, later->stages, later->n_stages, path, error);
}

/* Evaluations that config.yaml has since an earlier time and the user's file has not. */
static int adopt(const struct run_config *old, struct run_config *config, struct error *error)
{
    int r = 0;

    for (int i = 0; r == 0 && i < old->n_stages && i <= config->n_stages; i++)
        if (run_later_is(&old->stages[i]) && (i == config->n_stages || !run_later_is(&config->stages[i])))
            r = insert(config, i, &old->stages[i], 1, "stages", error);
    return r;
}

/* The file's name for good, before anything says that there are more stages. */
static int keep_apart(const char *run_dir, int n_stages, struct error *error)
{
    char from[PATH_MAX], name[32], to[PATH_MAX];
    int r = run_later_path(run_dir, n_stages, from, sizeof from, error);

    snprintf(name, sizeof name, "evals-%d.yaml", n_stages);
    if (r < 0 || (r = path_of(run_dir, name, to, sizeof to, error)) < 0 || access(from, F_OK) < 0 || !strcmp(from, to))
        return r;
    r = rename_noreplace(from, to);
    return r < 0 ? error_set(error, -r, "%s: cannot be named %s: %s", from, name, strerror(-r)) : 0;
}

/* Paths of the stages from `first` on, absolute; the others are spelled as the run has them. */
static int anchor_added(int first, struct run_config *config, struct error *error)
{
    _cleanup_free_ struct run_config *anchored = malloc(sizeof *anchored);
    char here[PATH_MAX];
    int r;

    if (!anchored)
        return error_set(error, ENOMEM, "out of memory");
    if (!getcwd(here, sizeof here))
        return error_set(error, errno, "current directory: %s", strerror(errno));
    *anchored = *config;
    if ((r = run_config_anchor(anchored, here, error)) < 0)
        return r;
    memcpy(config->stages + first, anchored->stages + first, (size_t)(config->n_stages - first) * sizeof *config->stages);
    return 0;
}

int run_later_join(const char *run_dir, struct run_config *old, struct run_config *config, int *ret_added,
                   struct error *error)
{
    _cleanup_free_ struct run_config *whole = malloc(sizeof *whole);
    _cleanup_(strbuf_release) struct strbuf difference = STRBUF_INIT;
    int added, r;

    if (!whole)
        return error_set(error, ENOMEM, "out of memory");
    run_config_adopt_paths(config, old);
    if ((r = adopt(old, config, error)) < 0)
        return r;
    if (run_config_differ(old, config, &difference))
        return error_set(error, ESTALE, "%s was made with another configuration: %s; change it back, or choose another run.dir%s",
                         run_dir, difference.text, !strncmp(difference.text, "stages", 6) ? FURTHER : "");
    added = config->n_stages - old->n_stages;
    if (added) {
        *whole = *old;
        if ((r = anchor_added(old->n_stages, config, error)) < 0 || (r = run_later_append(run_dir, whole, error)) < 0 ||
            (r = keep_apart(run_dir, old->n_stages, error)) < 0 ||
            (r = insert(config, old->n_stages, whole->stages + old->n_stages, whole->n_stages - old->n_stages, "stages", error)) < 0)
            return r;
    }
    *ret_added = added;
    return 0;
}
