/* deploy_slurm.c - from a run's configuration to two sbatch commands: the core job, and the array of env workers. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "cli/beside.h"
#include "cli/deploy.h"
#include "cli/shell_word.h"

enum { ARGUMENTS = 16, MORE = 32, DEVICES = 64 };

struct sbatch {
    char name[96], environment[3 * PATH_MAX], array[48], cpus[32], gpus[32], tasks[32], script[PATH_MAX], output[PATH_MAX];
    const char *arguments[ARGUMENTS + 2 * MORE];
    bool actor_gpus;
};

/* A heterogeneous job: what follows : is its second component's, whose tasks are actors. */
static int add_actors(struct sbatch *s, int a, char *const *more)
{
    s->arguments[a++] = s->environment, s->arguments[a++] = ":", s->arguments[a++] = s->tasks;
    if (s->actor_gpus)
        s->arguments[a++] = "--gpus-per-task=1";
    while (*more && a < ARGUMENTS + 2 * MORE - 3)
        s->arguments[a++] = *more++;
    return a;
}

static void finish(struct sbatch *s, char *const *more)
{
    char *const *again = more;
    int a = 0;

    s->arguments[a++] = "sbatch", s->arguments[a++] = "--parsable";
    s->arguments[a++] = s->name, s->arguments[a++] = s->output, s->arguments[a++] = s->cpus;
    if (s->array[0])
        s->arguments[a++] = s->array;
    if (s->gpus[0])
        s->arguments[a++] = s->gpus;
    while (*more && a < ARGUMENTS + MORE - 3)
        s->arguments[a++] = *more++;
    if (s->tasks[0])
        a = add_actors(s, a, again);
    s->arguments[a++] = s->environment, s->arguments[a++] = s->script;
}

static void print_word(const char *word, const char *end)
{
    _cleanup_free_ char *quoted = shell_word(word);

    printf("%s%s", quoted ?: word, end);
}

static int run(const struct sbatch *s, struct error *error)
{
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        execvp("sbatch", (char *const *)s->arguments);
        fprintf(stderr, "sbatch: %s\n", strerror(errno));
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return error_set(error, errno, "sbatch: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(error, EIO, "sbatch failed; the command was printed above it");
    return 0;
}

static int core_cpus(const struct run_config *c)
{
    int n = 1;

    for (int i = 0; i < c->n_learners; i++)
        n += MAX(c->learners[i].threads, 1);
    for (int i = 0; i < c->n_actors; i++)
        n += MAX(c->actors[i].threads, 1);
    for (int i = 0; i < c->n_prm_servers; i++)
        n += MAX(c->prm_servers[i].threads, 1);
    return n;
}

/* How many GPUs the core job's daemons use: Slurm numbers what it gives from 0. */
static int core_gpus(const struct run_config *c)
{
    bool used[DEVICES] = {false};
    int n = 0, number;

#define USE(list, count)                                                                                                \
    for (int i = 0; i < (count); i++)                                                                                   \
        if (sscanf((list)[i].device, "cuda:%d", &number) == 1 && number >= 0 && number < DEVICES)                       \
            used[number] = true
    USE(c->learners, c->n_learners);
    USE(c->actors, c->n_actors);
    USE(c->prm_servers, c->n_prm_servers);
#undef USE
    for (int i = 0; i < DEVICES; i++)
        if (used[i])
            n = i + 1;
    return n;
}

/* Slurm opens a job's output before the job runs, and fails it silently where that is not possible. RUN/ended is a word of the
 * submission before: new workers, which may start before the core job, would take it for theirs. */
static int prepare_dir(const struct run_config *c, bool submit, struct error *error)
{
    char path[PATH_MAX];
    int r;

    snprintf(path, sizeof path, "%s/log", c->dir);
    printf("mkdir -p ");
    print_word(path, "\n");
    snprintf(path, sizeof path, "%s/ended", c->dir);
    printf("rm -f ");
    print_word(path, "\n");
    snprintf(path, sizeof path, "%s/log", c->dir);
    r = submit ? mkdir_p(path, 0700) : 0;
    if (r < 0)
        return error_set(error, -r, "%s: cannot be made: %s", path, strerror(-r));
    snprintf(path, sizeof path, "%s/ended", c->dir);
    if (submit && unlink(path) < 0 && errno != ENOENT)
        return error_set(error, errno, "%s: cannot be removed: %s", path, strerror(errno));
    return 0;
}

/* What both jobs say. kind: "core" or "workers". */
static int fill_job(const struct run_config *c, const char *kind, const char *output, const char *config, const char *bin,
                    struct sbatch *s, struct error *error)
{
    char share[PATH_MAX];
    int r = beside_find("slurm", share, sizeof share, error);

    if (r < 0)
        return r;
    snprintf(s->script, sizeof s->script, "%s/gantry-%s.sbatch", share, kind);
    snprintf(s->name, sizeof s->name, "--job-name=gantry-%s-%s", c->name, kind);
    snprintf(s->output, sizeof s->output, "--output=%s/log/slurm-%s.log", c->dir, output);
    snprintf(s->environment, sizeof s->environment,
             "--export=ALL,GANTRY_CONFIG=%s,GANTRY_RUN=%s,GANTRY_BIN=%s,GANTRY_SLOTS=%d", config, c->dir, bin, c->slots);
    return 0;
}

static void fill_core(const struct run_config *c, int actors, struct sbatch *s)
{
    size_t n = strlen(s->environment);

    snprintf(s->cpus, sizeof s->cpus, "--cpus-per-task=%d", core_cpus(c));
    if (core_gpus(c))
        snprintf(s->gpus, sizeof s->gpus, "--gpus=%d", core_gpus(c));
    if (actors <= 0)
        return;
    snprintf(s->tasks, sizeof s->tasks, "--ntasks=%d", actors);
    s->actor_gpus = c->n_actors > 0 && !strncmp(c->actors[0].device, "cuda", 4);
    if (s->actor_gpus)
        snprintf(s->environment + n, sizeof s->environment - n, ",GANTRY_ACTOR_ARGS=--device=cuda:0");
}

/* As many at once as the configuration has, of max_workers in all. */
static void fill_workers(const struct run_config *c, int max_workers, struct sbatch *s)
{
    int at_once = MAX(c->env_workers, 1);

    snprintf(s->cpus, sizeof s->cpus, "--cpus-per-task=1");
    snprintf(s->array, sizeof s->array, "--array=0-%d%%%d", MAX(max_workers, at_once) - 1, at_once);
}

static int print_and_submit(struct sbatch *s, const struct deploy_slurm_options *options, struct error *error)
{
    finish(s, options->more);
    for (const char **a = s->arguments; *a; a++)
        print_word(*a, a[1] ? " " : "\n");
    return options->submit ? run(s, error) : 0;
}

int deploy_slurm(struct deploy *d, const char *config_path, const struct deploy_slurm_options *options, struct error *error)
{
    const struct run_config *c = d->config;
    _cleanup_free_ struct sbatch *core = calloc(1, sizeof *core), *workers = calloc(1, sizeof *workers);
    char bin[PATH_MAX], config[PATH_MAX];
    int r = core && workers ? beside_find("bin", bin, sizeof bin, error) : -ENOMEM;

    if (r == 0 && (strchr(c->dir, ',') || strchr(config_path, ',')))
        r = error_set(error, EINVAL, "%s, %s: sbatch parts what it exports at commas; choose paths without", config_path, c->dir);
    if (r == 0 && !realpath(config_path, config))
        r = error_set(error, errno, "%s: %s", config_path, strerror(errno));
    if (r == 0)
        r = fill_job(c, "core", "core", config, bin, core, error);
    if (r == 0)
        r = fill_job(c, "workers", "worker-%a", config, bin, workers, error);
    if (r < 0)
        return r;
    fill_core(c, options->actors, core);
    fill_workers(c, options->max_workers, workers);
    r = prepare_dir(c, options->submit, error);
    if (r == 0)
        r = print_and_submit(core, options, error);
    return r < 0 ? r : print_and_submit(workers, options, error);
}
