/* summary_internal.h - what summary.c (success figures) and summary_cost.c (what it took) share. */
#pragma once

#include "base/json_write.h"
#include "coordinator/summary.h"
#include "rl/stats.h"
#include "run/builds.h"

enum { TAG_SIZE = sizeof ((struct ledger_episode *)0)->tag };

struct summary {
    const struct run_config *config;
    struct ledger_run run;
    const struct eval_config *eval;     /* of the eval stage that is told of; NULL: the run has none */
    uint32_t eval_stage;
    struct ledger_stage *stages;
    struct ledger_iteration *iterations;
    struct ledger_episode *episodes;
    struct ledger_version *versions;
    struct run_builds builds;
    size_t n_stages, n_iterations, n_episodes, n_versions;
    const struct ledger_episode **evaluated;    /* of eval_stage, in order of summary_by_state */
    size_t n_evaluated;
    char *runtime;                      /* `"key":value,...` the coordinator left, or NULL */
};

struct measured { int64_t episodes, successes, steps; };

bool measure(const struct summary *s, const char *tag, const char *task, struct measured *ret);     /* false: not played */
double success_of(const struct summary *s, const char *tag);
void policy_tag(const char *split, const char *policy, double temperature, char ret[TAG_SIZE]);
bool best_temperature(const struct summary *s, const char *policy, double *ret);     /* false: not played on val */
bool best_tag(const struct summary *s, int policy, char ret[TAG_SIZE]);
int policy_index(const struct summary *s, const char *name);        /* -1: not evaluated */
int compare(const struct summary *s, const char *after, const char *before, struct paired *ret);    /* -ENODATA: no pair */
/* Two policies on val: per state the mean over the temperatures. -ENODATA. */
int compare_on_val(const struct summary *s, const char *after, const char *before, struct paired *ret);

/* summary_cost.c */
int summary_read(struct summary *s, struct ledger *ledger, struct error *error);
void summary_release(struct summary *s);
int summary_by_state(const void *a, const void *b);     /* of two pointers to episodes: by tag, task and state */
uint64_t version_of(const struct summary *s, const char *tag);
void summary_write_run(const struct summary *s, struct json_writer *w);
int summary_write_plateau(const struct summary *s, struct json_writer *w);
void summary_write_cost(const struct summary *s, struct json_writer *w);
