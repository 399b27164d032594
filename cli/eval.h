/* eval.h - `gantry eval`: policies of finished runs on test states, the rows that came of it, and what can be said about them.
 *
 *   eval_open -> eval_play -> { eval_outcomes | eval_costs | eval_write_* | eval_films }* -> eval_release
 *
 * The work is an eval stage added to the run (RUN/evals.yaml, daemon/run_later.h): its episodes are in the run's ledger and
 * journal like all others. Failure rule: -errno, *error has the line. */
#pragma once

#include "base/json_write.h"
#include "daemon/run_config.h"
#include "rl/stats.h"
#include "run/ledger.h"

enum { EVAL_FIT_RESAMPLES = 2000, EVAL_TAG = sizeof((struct ledger_episode *)0)->tag };
#define EVAL_Z95 1.959963984540054

/* What is asked, of one run or of several alike. */
struct eval_ask {
    char policies[RUN_MAX_POLICIES][24];
    int n_policies;
    int first, last;          /* seeds: numbers of test states of every task */
    struct eval_config stage; /* look-ahead, blows; policies and states are filled in from the above */
    bool choose;              /* temperatures anew on val, from stage.temperatures */
    double at;                /* this temperature for all; below 0: what the run chose */
    bool drop_stopped;        /* evaluations that were begun before and stopped are given up, not played to their end first */
};

struct eval {
    const struct eval_ask *ask;
    const char *run_dir;
    struct run_config config; /* of the run */
    double temperature[RUN_MAX_POLICIES];
    uint32_t stage; /* index of the added stage */
    uint64_t run_id;
    struct ledger_episode *episodes; /* of that stage */
    size_t n_episodes;
    int states; /* of all tasks together: rows of one pass */
};

/* Read the run; refuse what it cannot play. */
int eval_open(const char *run_dir, const struct eval_ask *ask, struct eval *ret, struct error *error);
/* -EINVAL: a policy without a critic is to be asked for a value, or the simulator cannot do what is wanted of it. That would be
 * found out while it is played, and a stage that has stopped stands before every later one. Suite remote: starts its simulator. */
int eval_check(const struct eval *eval, struct error *error);
/* Add the stage, play it (progress on stderr), read its rows. What was asked before in the same words is read, or goes on where
 * it stopped. */
int eval_play(struct eval *eval, struct error *error);
/* Only the last of these: of a stage that was played before (ask, run_dir, config, stage and states are set). */
int eval_read(struct eval *eval, struct error *error);
void eval_release(struct eval *eval);

/* The tag of policy i's test rows. */
void eval_test_tag(const struct eval *eval, int policy, char ret[EVAL_TAG]);
/* ret[states]: 1, 0, or NaN where there is no row of this tag; the same index is the same state, in every run and for every tag.
 * Returns how many are there. */
int eval_outcomes(const struct eval *eval, const char *tag, double *ret);
static inline int eval_task_of(const struct eval *eval, int state) { return state % eval->config.n_tasks; }

/* What the rows of a tag took, from the journal. */
struct eval_cost {
    int episodes;
    double policy_steps, steps;            /* sums: actions asked of the policy, actions executed */
    double slot_us;                        /* sum of the time slots spent acting and stepping */
    int decisions;                         /* episodes whose choices were scored */
    double chosen_success, chosen_failure; /* mean worth of what was chosen, over successes and failures; NaN: none */
    double correlation;                    /* of chosen worth with success, over the episodes; NaN */
    double chosen, all;                    /* mean worth of the chosen candidate, and of all */
    int perturbed;                         /* episodes to which the blow came */
};
int eval_costs(const struct eval *eval, const char *tag, struct eval_cost *ret, struct error *error);

/* Which of the states asked for the run itself has looked at: a line for each of its stages on stderr; as a list in the result,
 * which is empty where all are fresh. */
void eval_say_seen(const struct eval *eval);
void eval_write_seen(const struct eval *eval, struct json_writer *w);

/* Sections of the result. */
int eval_write_policies(const struct eval *eval, struct json_writer *w);
int eval_write_search(const struct eval *eval, struct json_writer *w, struct error *error);
void eval_write_difference(const struct paired *difference, struct json_writer *w);
void eval_print(const struct eval *eval); /* tables on stdout */
int eval_print_search(const struct eval *eval, struct error *error);
int eval_plot_search(const struct eval *eval, const char *path, struct error *error);

/* Failures of the test rows as film strips in `dir`, at most `most` of each policy; prints where they are. */
int eval_films(const struct eval *eval, const char *dir, int most, struct error *error);
