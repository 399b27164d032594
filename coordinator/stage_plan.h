/* stage_plan.h - what is next: a run's stages as a row of iterations, each a fixed set of episodes, an update, or both.
 *
 *   demos, rollouts   iteration 0: all episodes; their segment stays
 *   prm               iteration 0: no episodes; one update over the kept stages so far
 *   sft               the same in pieces of commit_every steps, an iteration and a version each; over the newest demos stage, the
 *                     newest rollouts stage, or both
 *   rl                iterations in order: [val] train train ... [val] train ... [val], and after every prm_refresh-th train
 *                     iteration an update of the reward model over the kept stages and what the journal still has of this one;
 *                     over before its time when memory->stop says so
 *   eval              per policy: val at every temperature; then per policy: test at its best temperature of them, greedy and
 *                     at 1; then, where look-ahead is asked for, per policy (not the demonstrator, not `best`) test with every
 *                     n on the same states, and with the controls. The demonstrator plays test alone, `sft-earlier` val alone.
 *                     A dropped one has no pass behind those that were opened.
 *
 * Rows of an evaluation carry a tag: "val sft t=0.6", "test last t=0.3", "test demonstrator", "search last n=4",
 * "search last n=4 random", "search last greedy"; those of a val pass in rl: "val". Row i of n tasks is task i % n; evaluation
 * states are i / n, the same in every pass, and their sampling key is shared, so that comparisons are paired.
 *
 * Everything is a pure function of the configuration, the (stage, iteration) number and the conductor's memory, which is
 * stored with each iteration: a plan made twice, or after a restart, is the same plan. Draws are keyed by the run's seed.
 *
 * Thread rule: none, pure.  Failure rule: -errno, outputs untouched. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/episode.h"
#include "base/strbuf.h"
#include "coordinator/shadow.h"
#include "daemon/run_config.h"
#include "rl/curriculum.h"
#include "run/ledger.h"

enum work_objective { WORK_NONE, WORK_SFT, WORK_PRM, WORK_PPO };

/* One iteration of a stage: what it plays and what is trained from it. */
struct work {
    uint32_t stage, iteration;
    char name[32];                  /* "rl/12" from 1, "rl/12 val" after it, "eval test last" */
    enum episode_purpose purpose;   /* of its rows; 0: no rows */
    enum episode_split split;
    enum work_objective objective;  /* what is trained once the rows are in; WORK_NONE: nothing */
    uint32_t round;                 /* from 0; rl: which train iteration (val: how many were done before); sft: which piece */
    bool keep;                      /* its segment stays in the journal */
    bool expert;                    /* the suite's demonstrator plays: no policy asked */
    bool overlaps;                  /* max_staleness > 0 and the next is a train iteration too: that may open while this trains */
    int policy;                     /* eval: index into eval.policies, -1: the newest version */
    bool scored;                    /* rollouts: by the PRM */
    bool tries;                     /* eval: every temperature on val states, of which the best is chosen */
    bool look_ahead;                /* eval: rows with search_n > 1, scored by the PRM */
};

enum plan_stop { PLAN_GOES_ON, PLAN_SUCCESS, PLAN_PATIENCE, PLAN_COLLAPSE };
enum { PLAN_WATCH = 10, PLAN_EXTRA = 16 };
/* Processes of members, by instance: they keep that over our restart. Those that were noted first make room. */
enum { PLAN_MEMBERS = 64 };
struct plan_members { uint64_t instance[PLAN_MEMBERS]; uint32_t n; };

/* What later iterations must know of earlier ones; the ledger's blob "memory", stored with each that is opened or closed. */
struct plan_memory {
    uint64_t next_episode;              /* id of the next row */
    uint64_t next_state;                /* next unused train state */
    uint32_t stage, iteration;          /* the next iteration to open */
    bool finished;                      /* the last stage has ended */
    struct curriculum curriculum;
    bool curriculum_ready;              /* an rl stage has set it up */
    /* of the rl stage at hand: */
    enum plan_stop stop;                /* its end came early */
    double stage_best;                  /* success on val; below 0: not looked at yet */
    uint32_t since_best;                /* val passes since */
    double paid[PLAN_WATCH], won[PLAN_WATCH];   /* of the last train iterations, oldest first: by the reward model; success */
    uint32_t watched, alarms;           /* how many of these there are; how often the reward model was found to be hacked */
    uint32_t extra[PLAN_EXTRA], n_extra;        /* train iterations with a refresh of the reward model beside prm_refresh */
    bool have_best;
    uint64_t best_version;              /* by success on val during rl */
    double best_success;
    uint64_t sft_version;               /* at the end of the last sft stage on demonstrations */
    uint64_t sft_earlier;               /* at the end of the one before; 0: none */
    uint64_t prm_current;               /* serves new episodes; 0: none yet */
    uint64_t prm_before;                /* the one before it, to go back to; 0: none */
    uint64_t prm_next;                  /* swapped to when that round of that stage opens; 0: nothing waits */
    uint32_t prm_next_stage, prm_next_round;
    struct shadow shadow;               /* a reward model on trial */
    struct plan_members cordoned, leaving;      /* by an operator: get nothing; were drained and are still here */
    double temperature[RUN_MAX_POLICIES];   /* eval: chosen on val; below 0: not yet */
};

void plan_memory_init(struct plan_memory *memory);
/* Text and back, exactly. -EBADMSG. */
int plan_memory_write(const struct plan_memory *memory, struct strbuf *out);
int plan_memory_parse(const char *text, size_t n, struct plan_memory *ret, struct error *error);

/* The work numbered (stage, iteration). memory: for the refreshes that came in beside the configured ones; NULL: none.
 * -ENOENT: the stage has no such iteration, it is over. */
int stage_plan_work(const struct run_config *config, const struct plan_memory *memory, uint32_t stage, uint32_t iteration,
                    struct work *ret);

/* What it is called where people follow a run: counted from 1 and against what there will be ("rl 12 of 90", "rl 12 of 90, reward
 * model", "rl val after 11 of 90", "sft 2 of 3"), its name where there is one piece. */
void stage_plan_title(const struct run_config *config, const struct work *work, char *ret, size_t size);

/* What an rl stage still has behind `work`, by kind of pass. False, and all 0: it is another stage. memory as above.
 * stage_left.c */
enum pass_kind { PASS_TRAIN, PASS_WARMUP, PASS_VAL, PASS_PRM, PASS_KINDS };      /* WARMUP: a train pass for the critic alone */
enum pass_kind stage_plan_kind(const struct run_config *config, const struct work *work);
bool stage_plan_left(const struct run_config *config, const struct plan_memory *memory, const struct work *work,
                     uint32_t ret[PASS_KINDS]);

/* The first iteration of the stage that is among the last `keep` training iterations up to this one. */
uint32_t stage_plan_keep_from(const struct run_config *config, const struct plan_memory *memory, uint32_t stage,
                              uint32_t iteration, int keep);

/* How many rows it opens with. */
size_t stage_plan_rows(const struct run_config *config, const struct work *work, const struct plan_memory *memory);

/* A stage begins: an rl stage's curriculum, an eval stage's temperatures start anew. task_levels[n_tasks], or NULL. */
int stage_plan_begin(const struct run_config *config, uint32_t stage, const int *task_levels, struct plan_memory *memory);

/* Fill its rows, in id order from memory->next_episode, and move memory's counters. policy/prm versions, ids, tasks, states,
 * temperatures and tags are set; -ENOSPC: rows[n] is too small; -EPERM: test states for anything but an evaluation. */
int stage_plan_fill(const struct run_config *config, const struct work *work, uint64_t policy_version, uint64_t prm_version,
                    struct plan_memory *memory, struct ledger_episode *rows, size_t n);

/* rl with groups: all rows are in, and some groups' returns are all alike, which teaches nothing. New groups in their place, from
 * other states, tagged "refill ROUND"; how many rows, 0: none (any more). */
size_t stage_plan_refill(const struct run_config *config, const struct work *work, const struct ledger_episode *rows, size_t n,
                         struct plan_memory *memory, struct ledger_episode *ret_rows, size_t capacity);

/* The row that stands in for `failed`, one of rows[n]: same task and terms, next id, an unused state. Where all test states that
 * the benchmark has are in the pass already, it is the same state once more, under the same sample key. */
void stage_plan_replace(const struct run_config *config, struct plan_memory *memory, const struct ledger_episode *rows, size_t n,
                        const struct ledger_episode *failed, struct ledger_episode *ret);

/* Who chooses in a row of look-ahead: the stage's judge, or the control that the row's tag ends with. */
enum search_judge stage_plan_judge(const struct eval_config *eval, const struct ledger_episode *row);

/* plan_learn.c. All rows have ended: curriculum, best policy, temperatures; whether the stage is to end (memory->stop) and
 * whether the policy has learnt to please the reward model alone (memory->alarms). */
void stage_plan_learn(const struct run_config *config, const struct work *work, const struct ledger_episode *rows, size_t n,
                      struct plan_memory *memory);

/* Which policy version the work plays with, given the newest. */
uint64_t stage_plan_policy(const struct run_config *config, const struct work *work, const struct plan_memory *memory,
                           uint64_t newest);

/* "success on val states reached 0.9", for people. */
void plan_stop_text(const struct rl_config *rl, const struct plan_memory *memory, char *ret, size_t size);
