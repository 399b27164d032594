/* deploy.h - what `gantry deploy` writes, printed first and installed when asked: a list of files and links. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "daemon/run_config.h"

struct deploy {
    const struct run_config *config;    /* resolved: absolute run.dir and paths of models */
    const char *root;                   /* below which files go, "" for /; NULL: print them */
    unsigned written;
};

int deploy_file(struct deploy *deploy, const char *path, const struct strbuf *text, struct error *error);
int deploy_link(struct deploy *deploy, const char *path, const char *target, struct error *error);

/* The directories that `make install` filled, beside this program: "lib/systemd/system", "share/gantry". */
int deploy_beside(const char *what, char *ret, size_t size, struct error *error);

int deploy_systemd(struct deploy *deploy, struct error *error);
/* Prints the two sbatch commands; submit: runs them. more: further arguments of both, ends with NULL. */
int deploy_slurm(struct deploy *deploy, const char *config_path, char *const *more, bool submit, struct error *error);
