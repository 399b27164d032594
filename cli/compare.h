/* compare.h - several runs beside one another: in what their configurations differ, and what came of each.
 *
 *   comparison_load -> comparison_print | comparison_json | comparison_page -> comparison_release
 *
 * A policy's test figures are those of the run's own last eval stage, as in summary.json. The paired difference is over the first
 * run's policy of the same name, on the test states that both have played. Nothing is written into the runs.
 * Failure rule: -errno, *error names the run that cannot be read (-EBUSY: it is up). */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"
#include "cli/run_stages.h"
#include "rl/stats.h"

enum { COMPARE_MAX = RUN_COMPARE_MAX, COMPARE_COLUMNS = 8 };    /* runs; columns of a table that can still be read */

struct compared {
    const char *dir;            /* borrowed */
    struct run_config *config;
    struct report_data data;    /* of the ledger; its summary made anew */
    struct run_stages stages;
    struct paired over;         /* this run's policy over the first run's; pairs 0: nothing to pair */
};

/* Over the first arm, seed by seed, state by state; seeds 0: both have fewer than two, or no state is in all. */
struct arm_over { int seeds, states; double mean, low, high; };

/* Runs that differ in nothing but their seed (and in where and how they are run) are one arm of an experiment. */
struct comparison_arm {
    int runs[COMPARE_MAX], n;   /* ascending; the arms are in the order of their first runs */
    double success;             /* of the policy on test, mean over the runs; NaN: not all have tested it */
    struct arm_over over;
};

struct comparison {
    const char *policy;         /* borrowed: sft, best, last, ... */
    struct compared runs[COMPARE_MAX];
    int n;
    struct comparison_arm arms[COMPARE_MAX];
    int n_arms;
};

/* dirs: 2 to COMPARE_MAX. */
int comparison_load(const char *const *dirs, int n, const char *policy, struct comparison *ret, struct error *error);
/* -ENOENT: the first run has not tested the policy; the line says what it has. */
int comparison_has_policy(const struct comparison *comparison, struct error *error);
void comparison_release(struct comparison *comparison);

/* compare_arms.c, called by comparison_load: fills the arms. -ENOMEM. */
int comparison_find_arms(struct comparison *comparison);
bool comparison_has_seeds(const struct comparison *comparison);     /* some arm has several */
bool comparison_is_aside(const char *place);                /* of a configuration: it makes no other arm */
/* The rows of the policy's test, by task and state; caller frees *ret, which borrows. Returns how many; -ENOMEM. */
int compared_rows(const struct compared *run, const char *policy, const struct ledger_episode ***ret);
int compared_by_state(const void *a, const void *b);        /* of two pointers to episodes */
/* A state is the same in two runs when suite, task and number are, and nothing else happens in it. */
bool compared_same_states(const struct compared *a, const struct compared *b);

/* What was tested of a run: summary.json's `policies` object; NULL: nothing. Of one policy: */
json_t *compared_policies(const struct compared *run);
struct compared_test { double success, low, high, temperature; int episodes; };
bool compared_test(const struct compared *run, const char *policy, struct compared_test *ret);

/* Both tables, row by row: row(label, cells, arg), a cell for each run, NULL where it has nothing to say. -ENOMEM. */
int comparison_differences(const struct comparison *comparison, run_config_row_fn row, void *arg);
void comparison_figures(const struct comparison *comparison, run_config_row_fn row, void *arg);
/* The same with a cell for each arm: means over its runs. */
int comparison_arm_differences(const struct comparison *comparison, run_config_row_fn row, void *arg);
void comparison_arm_figures(const struct comparison *comparison, run_config_row_fn row, void *arg);

/* An arm in a line: "a, c, e (seeds 7, 8, 9): last 0.712, +4.8 points [-1.0 +10.5] over the first by 3 seeds and 150 states". */
void comparison_arm_words(const struct comparison *comparison, int arm, struct strbuf *out);

/* "a" to "Z": what runs are called where a directory's name is too long. */
const char *compared_letter(int run);
enum { COMPARED_NAME = 64 };
void compared_name(const struct comparison *comparison, int run, char ret[COMPARED_NAME]);         /* "c: group-8" */
void comparison_arm_name(const struct comparison *comparison, int arm, char ret[COMPARED_NAME]);   /* "2: group-7, 3 seeds" */

int comparison_print(const struct comparison *comparison, struct strbuf *out);
int comparison_json(const struct comparison *comparison, struct strbuf *out);
/* A page that needs nothing else: tables and curves. */
int comparison_page(const struct comparison *comparison, struct strbuf *out);
int comparison_curves(const struct comparison *comparison, struct strbuf *out);     /* compare_curves.c, called by it */
