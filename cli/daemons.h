/* daemons.h - the processes a run's configuration asks for on one host: names, programs, arguments.
 *
 * What `gantry up` starts as children, and what `gantry deploy` writes into units and job scripts. Where a key is needed
 * (cluster.listen is set) the pair is made the first time. */
#pragma once

#include "cli/run_keys.h"
#include "daemon/run_config.h"
#include "wire/address.h"

enum { DAEMON_ARGUMENTS = 24 };

struct daemon_command {
    char name[48];                      /* env-worker-3: of the log file, unit, socket */
    const char *program;                /* gantry-env-worker */
    const char *arguments[DAEMON_ARGUMENTS];    /* NULL at the end; point into this struct and what it was made from */
    char number[16], threads[16], render[16], address[ADDRESS_MAX], key[RUN_KEYS_PATH];
};

struct daemons_of {             /* borrowed by commands */
    const struct run_config *config;
    const char *run_dir, *join;     /* run_dir NULL: only what sets this one apart: no --join, --run-dir, --key */
};

/* How many of a role the configuration asks for. */
int daemons_count(const struct run_config *config, Gantry__Role role);

/* The index-th of its role. Beyond the configured ones (gantry scale): like the last, on an address of its own. */
int daemons_command(const struct daemons_of *of, Gantry__Role role, int index, struct daemon_command *ret, struct error *error);

/* env-worker-3 and the like. */
void daemons_name(Gantry__Role role, int index, char *ret, size_t size);
