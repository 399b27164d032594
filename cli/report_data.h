/* report_data.h - what report.html shows, as arrays: read once from the run directory, then only drawn. */
#pragma once

#include <jansson.h>

#include "run/builds.h"

struct report_data {
    struct ledger_run run;
    struct ledger_stage *stages;            size_t n_stages;
    struct ledger_iteration *iterations;    size_t n_iterations;
    struct ledger_episode *episodes;        size_t n_episodes;      /* all of the run, by id */
    struct ledger_scalar *scalars;          size_t n_scalars;
    struct ledger_version *versions;        size_t n_versions;
    struct run_builds builds;
    char stopped[400];                      /* why the run stopped by itself; "": it did not */
    json_t *summary;                        /* summary.json, or NULL */
    char *config;                           /* config.yaml as text, or NULL */
};

/* One iteration of an rl stage as a point of the curves. */
struct report_point {
    double iteration;           /* counted over the run's rl stages, from 1 */
    double success, reward, steps;      /* means over the iteration's train episodes; NaN: none ended */
};

int report_data_load(const char *run_dir, struct report_data *ret, struct error *error);
/* What the ledger alone knows: neither summary nor config. */
int report_data_read(struct ledger *ledger, struct report_data *ret);
void report_data_release(struct report_data *data);

/* Points of all rl iterations in order; caller frees. `task` NULL: all tasks. */
int report_train_points(const struct report_data *data, const char *task, struct report_point **ret, int *ret_n);

/* Its place among the train iterations of all rl stages, from 1: the x of their curves. 0: it is none. A look at val states in
 * between is an iteration of its own. */
int report_train_iteration(const struct report_data *data, uint32_t stage, uint32_t iteration);
int report_trained_before(const struct report_data *data, uint32_t stage, uint32_t iteration);         /* so many lie before it */

/* An iteration that trained the critic alone says 0 of everything that only an update of the policy can measure. */
bool report_had_update(const struct report_data *data, uint32_t stage, uint32_t iteration);

/* Mean of the last `window` values up to each i (fewer at the start); NaN values are left out. */
void report_smooth(const double *values, int n, int window, double *ret);

/* The tasks that occur, in order of appearance; pointers into the episodes. */
int report_tasks(const struct report_data *data, const char *ret_tasks[], int capacity);
