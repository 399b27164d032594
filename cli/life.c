#include "cli/life.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/atomic_file.h"

static unsigned long number(const char *variable)
{
    const char *text = getenv(variable);

    return text ? strtoul(text, NULL, 10) : 0;
}

static bool later(const struct life *a, const struct life *b)
{
    return a->job > b->job || (a->job == b->job && a->restart > b->restart);
}

/* -> false: there is none, or it cannot be read. */
static bool read_life(const char *run_dir, struct life *ret)
{
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX];
    size_t n;

    snprintf(path, sizeof path, "%s/life", run_dir);
    return file_read(path, 256, &text, &n) == 0 && sscanf(text, "%lu %lu", &ret->job, &ret->restart) == 2;
}

int life_claim(const char *run_dir, struct life *ret, struct error *error)
{
    struct life ours = {number("SLURM_JOB_ID"), number("SLURM_RESTART_COUNT")}, known;
    char path[PATH_MAX], text[64];
    int r;

    if (ours.job && read_life(run_dir, &known) && later(&known, &ours))
        return error_set(error, ESTALE, "%s belongs to life %lu of job %lu; this is life %lu of job %lu and ends", run_dir,
                         known.restart, known.job, ours.restart, ours.job);
    if (ours.job) {
        snprintf(path, sizeof path, "%s/life", run_dir);
        snprintf(text, sizeof text, "%lu %lu\n", ours.job, ours.restart);
        r = atomic_file_write(path, text, strlen(text));
        if (r < 0)
            return error_set(error, -r, "cannot write %s: %s", path, strerror(-r));
    }
    *ret = ours;
    return 0;
}

bool life_may_come_back(const char *run_dir, struct life *ret)
{
    char ended[PATH_MAX];

    snprintf(ended, sizeof ended, "%s/ended", run_dir);
    return read_life(run_dir, ret) && access(ended, F_OK) < 0;
}

bool life_holds(const char *run_dir, const struct life *life)
{
    struct life known;

    return !life->job || !read_life(run_dir, &known) || !later(&known, life);
}
