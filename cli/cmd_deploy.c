/* cmd_deploy.c - `gantry deploy`: hand a run over to systemd or Slurm. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/deploy.h"
#include "cli/up_config.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry deploy systemd --config RUN.yaml [--install [--root DIR]]\n"
                 "       gantry deploy slurm   --config RUN.yaml [--submit] [--actors N] [--max-workers N]\n"
                 "                             [-- --partition=P --time=8:00:00 ...]\n"
                 "systemd: what gantry.target needs for that run, printed; --install writes it (/etc/gantry,\n"
                 "/etc/systemd/system; --root DIR: below DIR).\n"
                 "slurm: the sbatch commands of the core job and of the env workers' array, printed; --submit runs\n"
                 "them.\n"
                 "--max-workers N: how far the array may be scaled up while the run is on; cluster.env_workers run at\n"
                 "first.\n"
                 "--actors N: N actors more on other nodes, as a second component of the core job.\n"
                 "What follows -- is given to sbatch.\n");
    return status;
}

/* The directory of PATH below root, made if need be. */
static int target_of(const struct deploy *d, const char *path, char ret[PATH_MAX], struct error *error)
{
    char dir[PATH_MAX];
    int r;

    snprintf(ret, PATH_MAX, "%s%s", d->root, path);
    snprintf(dir, sizeof dir, "%s", ret);
    *strrchr(dir, '/') = '\0';
    r = mkdir_p(dir, 0755);
    return r < 0 ? error_set(error, -r, "%s: cannot be made: %s", dir, strerror(-r)) : 0;
}

int deploy_file(struct deploy *d, const char *path, const struct strbuf *text, struct error *error)
{
    char target[PATH_MAX];
    int r;

    if (!d->root) {
        printf("# ---- %s\n%s\n", path, text->text);
        return 0;
    }
    r = target_of(d, path, target, error);
    if (r == 0 && (r = atomic_file_write(target, text->text, text->length)) < 0)
        r = error_set(error, -r, "%s: cannot be written: %s", target, strerror(-r));
    d->written += r == 0;
    return r;
}

int deploy_link(struct deploy *d, const char *path, const char *to, struct error *error)
{
    char target[PATH_MAX];
    int r;

    if (!d->root) {
        printf("# ---- %s -> %s\n", path, to);
        return 0;
    }
    r = target_of(d, path, target, error);
    if (r == 0 && symlink(to, target) && errno != EEXIST)
        r = error_set(error, errno, "%s: cannot be linked: %s", target, strerror(errno));
    d->written += r == 0;
    return r;
}

/* Daemons start in another directory than we: paths become absolute. A relative run.dir under systemd lies in its state
 * directory. */
static int resolve(struct run_config *config, bool systemd, struct error *error)
{
    char here[PATH_MAX], path[2 * PATH_MAX];

    if (!getcwd(here, sizeof here))
        return error_set(error, errno, "current directory: %s", strerror(errno));
    if (config->dir[0] != '/') {
        snprintf(path, sizeof path, "%s/%s", systemd ? "/var/lib/gantry" : here, config->dir);
        if (strlen(path) >= sizeof config->dir)
            return error_set(error, ENAMETOOLONG, "run.dir: %s is too long", path);
        memcpy(config->dir, path, strlen(path) + 1);
    }
    beside_find_model(config->policy_init, sizeof config->policy_init);
    return run_config_anchor(config, here, error);
}

/* The token is its owner's alone, and the units have a user of their own: systemd reads it for them. */
static void pass_token(struct run_config *config, struct deploy *deploy)
{
    if (!config->token_file[0])
        return;
    snprintf(deploy->token_file, sizeof deploy->token_file, "%s", config->token_file);
    snprintf(config->token_file, sizeof config->token_file, DEPLOY_CREDENTIALS "/page.token");
}

int cmd_deploy(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", 1, NULL, 'c'}, {"install", 0, NULL, 'i'}, {"root", 1, NULL, 'r'}, {"submit", 0, NULL, 's'},
        {"actors", 1, NULL, 'a'}, {"max-workers", 1, NULL, 'w'}, {"help", 0, NULL, 'h'}, {0}};
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    const char *path = NULL, *root = "", *target;
    struct deploy deploy = {.config = config};
    struct deploy_slurm_options slurm = {0};
    bool install = false, bad = false, systemd;
    char *end;
    struct error error = {0};
    int option, r;

    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) >= 0)
        switch (option) {
        case 'c': path = optarg; break;
        case 'i': install = true; break;
        case 'r': root = optarg; break;
        case 's': slurm.submit = true; break;
        case 'a': slurm.actors = (int)strtol(optarg, &end, 10); bad |= *end; break;
        case 'w': slurm.max_workers = (int)strtol(optarg, &end, 10); bad |= *end; break;
        case 'h': return usage(stdout, CLI_OK);
        default: return usage(stderr, CLI_USAGE);
        }
    target = optind < argc ? argv[optind] : "";
    systemd = !strcmp(target, "systemd");
    if (!path || !config || (!systemd && strcmp(target, "slurm")) || (systemd && optind + 1 < argc))
        return usage(stderr, CLI_USAGE);
    if (bad || slurm.actors < 0 || slurm.actors > 1000 || slurm.max_workers < 0 || slurm.max_workers > 1000) {
        fprintf(stderr, "gantry deploy: --actors and --max-workers take a number up to 1000\n");
        return CLI_USAGE;
    }
    slurm.more = argv + optind + 1;
    deploy.root = install ? root : NULL;
    r = up_config_load(path, config, &error);
    if (r == 0)
        r = resolve(config, systemd, &error);
    if (r == 0 && systemd)
        pass_token(config, &deploy);
    if (r == 0)
        r = systemd ? deploy_systemd(&deploy, &error) : deploy_slurm(&deploy, path, &slurm, &error);
    if (r < 0)
        fprintf(stderr, "gantry deploy: %s\n", error_text(&error, r));
    return r < 0 ? CLI_FAILED : CLI_OK;
}
