/* preflight.h - will the run fit this machine? Memory, disk and ports, added up before anything starts.
 *
 * Estimates on the high side, by a factor at most 2 on what has been measured. A refusal says what is needed, what there is, and
 * which line of the configuration to change. */
#pragma once

#include "base/error.h"
#include "daemon/config.h"
#include "daemon/run_config.h"

struct preflight {
    uint64_t memory_bytes, memory_available;    /* all daemons of this host together */
    uint64_t disk_bytes, disk_available;        /* journal, checkpoints; what the run directory holds already counts as spent */
    char fit[256];              /* what the run settles for its checkpoint (nn/models/openvla_fit.h); "": nothing */
};

/* The most steps of an episode in task i where `given` (suite.max_steps, demos.max_steps) is 0 or says; 0: only the suite's
 * simulator knows. Needs no files. */
int preflight_limit(const struct run_config *config, int i, int given);
/* Observations in all episodes of a data set that a stage names; 0: it cannot be read. */
double preflight_dataset(const char *from);

/* Numbers of the suite's actions and of its robot's state; 0: not known here. */
struct suite_numbers { int action, state; };

/* The suite, its tasks by name (those that gantry knows need no files), its cameras, and what stages want of it. Suite remote:
 * starts its simulator. All that is wrong is added to *faults: -EINVAL: no such task, no such camera; -ENOENT: no such suite, or its
 * files are not on this host, and *ret is untouched. */
void preflight_tasks(const struct run_config *config, struct suite_numbers *ret, struct config_faults *faults);

/* The data sets that stages name, and the critics that they ask; start: the policy's directory. -EINVAL, -ENOENT. */
int preflight_stages(const struct run_config *config, const char *start, struct error *error);

/* Addresses by their form, whoever may listen there: of members (each that is wrong is added to *faults), of the page. -EINVAL,
 * -EADDRINUSE: two are the same. */
void preflight_addresses(const struct run_config *config, struct config_faults *faults);
int preflight_page(const struct run_config *config, struct error *error);
/* The page's token: -ENOENT: its file is not on this host; without it the coordinator would end. */
int preflight_token(const struct run_config *config, struct error *error);

/* -ENOENT: no checkpoint; -ENODEV: no such GPU; -ENOMEM (of this host or of a GPU), -ENOSPC, -EADDRINUSE: would not fit. *ret
 * (may be NULL) is filled whenever the sums could be made. */
int preflight_check(const struct run_config *config, const char *run_dir, struct preflight *ret, struct error *error);
