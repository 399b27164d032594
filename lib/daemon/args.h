/* args.h - the command line all daemons share, as one argp block.
 *
 *   gantry-actor --join ipc:///run/sock/coordinator.ipc [--device cpu] [--threads 1] ...
 *
 * A daemon says which of the options it takes; the others are refused like any unknown option. --help, --usage and
 * --version print and exit; a mistake prints one line and exits with 64 (EX_USAGE), as argp does. */
#pragma once

#include <stdbool.h>

#include "base/log.h"

enum args_takes {
    ARGS_JOIN = 1,          /* --join ENDPOINT      the coordinator: ipc://... or tcp://host:port; or where its address
                             * stands, file:PATH or a run directory (wire/member.h) */
    ARGS_RUN_DIR = 2,       /* --run-dir DIR */
    ARGS_CONFIG = 4,        /* --config FILE        coordinator: instead of RUN/config.yaml */
    ARGS_DEVICE = 8,        /* --device cpu|cuda:N */
    ARGS_THREADS = 16,      /* --threads N          compute threads */
    ARGS_SLOTS = 32,        /* --slots K            episodes at once */
    ARGS_LISTEN = 64,       /* --listen ADDRESS     where a server listens; default: ipc in the run directory */
    ARGS_RANK = 128,        /* --rank R */
    ARGS_NAME = 256,        /* --name NAME          tells two of a kind apart: log lines, socket names, workers started again */
    ARGS_KEY = 1024,        /* --key FILE           our secret key, for tcp */
    ARGS_CACHE = 2048,      /* --cache DIR          where versions from the learner are kept, when the run directory is not
                             * seen */
    ARGS_RENDER = 512,      /* --render WHERE       software, auto, or the number of an EGL device */
    ARGS_SIMULATOR = 4096,  /* --simulator COMMAND  suite remote: instead of the configuration's suite.remote */
    /* always: --log-level error|warn|info|debug, --die-with-parent, --version, --help */
};

struct args {
    /* point into argv or constants; NULL: not given */
    const char *join, *run_dir, *config, *device, *listen, *name, *render, *simulator, *key, *cache;
    unsigned threads, slots, rank;      /* 0: not given (rank: 0) */
    enum log_level log_level;           /* default info, or $GANTRY_LOG_LEVEL */
    bool die_with_parent;
};

struct args_about {
    const char *role;       /* "actor": log lines say role=actor */
    const char *doc;        /* one paragraph for --help */
    unsigned takes;         /* enum args_takes, or-ed */
    unsigned needs;         /* those that must be given */
};

/* Parse, open the log, install the crash report and, if asked for, die_with_parent. Exits on --help and mistakes
 * (the one function of lib/daemon that does). */
void args_parse(int argc, char **argv, const struct args_about *about, struct args *ret);
