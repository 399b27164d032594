/* deploy.h - what `gantry deploy` writes, printed first and installed when asked: a list of files and links. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "daemon/run_config.h"

struct deploy {
    const struct run_config *config;    /* resolved: absolute run.dir and paths of models */
    const char *root;                   /* below which files go, "" for /; NULL: print them */
    char token_file[256];               /* systemd: where the page's token lies (`config` names the copy that the unit sees); "": none */
    unsigned written;
};

int deploy_file(struct deploy *deploy, const char *path, const struct strbuf *text, struct error *error);
int deploy_link(struct deploy *deploy, const char *path, const char *target, struct error *error);

/* What a unit's LoadCredential= brings lies there, readable for whoever the unit runs as. */
#define DEPLOY_CREDENTIALS "/run/credentials/gantry-coordinator.service"
int deploy_systemd(struct deploy *deploy, struct error *error);
struct deploy_slurm_options {
    bool submit;                /* run the commands that are printed */
    int max_workers;            /* size of the workers' array, of which cluster.env_workers run; 0: as many as run */
    int actors;                 /* beside those of the configuration, as a second component of the core job */
    char *const *more;          /* further arguments of sbatch, ends with NULL */
};
/* Prints the two sbatch commands. */
int deploy_slurm(struct deploy *deploy, const char *config_path, const struct deploy_slurm_options *options, struct error *error);
