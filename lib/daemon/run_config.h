/* run_config.h - the run YAML as one typed struct. Read by the coordinator and the CLI; other daemons get their part in
 * Welcome.config and Plan.settings as `key: value` lines, written and parsed by the same tables.
 *
 * Every key is a row of a table in run_config.c (name, type, offset, default, range, help): the tables feed the parser, the
 * error messages, `gantry config show|check|explain`, the resolved config.yaml and docs/configuration.md. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/strbuf.h"

enum { RUN_MAX_TASKS = 48, RUN_MAX_STAGES = 32, RUN_MAX_SERVERS = 16, RUN_MAX_POLICIES = 8, RUN_MAX_N = 8 };

enum stage_kind { STAGE_DEMOS, STAGE_SFT, STAGE_ROLLOUTS, STAGE_PRM, STAGE_RL, STAGE_EVAL };
enum numerics { NUMERICS_STRICT, NUMERICS_FAST };
enum reward_mode { REWARD_PROGRESS, REWARD_DELTA, REWARD_RAW, REWARD_RAW_LITERAL, REWARD_SPARSE };
enum advantage_mode { ADVANTAGE_GAE, ADVANTAGE_GROUP, ADVANTAGE_RLOO, ADVANTAGE_REINFORCE };
enum kl_mode { KL_EXACT, KL_K3, KL_NONE };
enum curriculum_mode { CURRICULUM_UNIFORM, CURRICULUM_LEVELS, CURRICULUM_FRONTIER_CENTRED, CURRICULUM_FRONTIER, CURRICULUM_FIXED };

struct demos_config {
    int episodes;                   /* total over the tasks */
    char style[16];                 /* clean | slow */
    int max_steps;                  /* 0: the task's own limit; demonstrators may take longer than the policy */
};

struct sft_config {                 /* also pretraining */
    int steps, batch;               /* batch: frames */
    double lr, weight_decay, clip, beta2;
    int warmup;                     /* steps */
    double lr_end;                  /* cosine down to lr * lr_end; 1: constant */
};

struct rollouts_config { int episodes; double temperature; };

struct prm_config {                 /* specs/vla_rl.md section 6 */
    int steps, batch;
    double lr, weight_decay, clip;
    double demo_fraction;           /* at most this share of the frames is from demonstrations */
    double holdout;                 /* share of the episodes kept for the gate */
    int width;                      /* hidden width of the reward head */
    bool force;                     /* promote whatever the gate says */
    double gate_mid, gate_last, gate_margin;
};

struct rl_config {                  /* specs/vla_rl.md sections 3-5, 7; the preset gives defaults before the stage's own keys are read */
    int iterations, episodes;       /* episodes per iteration */
    char preset[24];                /* tabletop | gantry */
    int eval_every, eval_episodes;  /* on val states; 0: never */
    enum curriculum_mode curriculum;
    double temperature;
    enum reward_mode reward;
    double w_progress, w_success;
    int w_progress_decay;           /* iterations until w_progress reaches 0; 0: constant */
    enum advantage_mode advantage;
    double gamma, lambda;
    int group;
    int epochs, minibatch;          /* minibatch: MDP steps over all ranks */
    double clip_low, clip_high, lr;
    int lr_ramp;                    /* minibatches */
    double weight_decay, clip, beta2;
    enum kl_mode kl;
    double kl_coef, entropy_coef, value_coef;
    int value_width, value_epochs;
    int critic_warmup;              /* iterations that train the value head alone */
    double value_lr;
    bool value_detach, critic_time, critic_prm;
    double target_kl;
    int max_updates, max_staleness;
    int prm_refresh;                /* iterations between refreshes of the reward model; 0: never */
};

struct eval_config {
    int episodes;                   /* per policy, total over the tasks, on test states */
    char policies[RUN_MAX_POLICIES][24];    /* demonstrator | sft | best | last | a version number */
    int n_policies;
    double temperatures[4];         /* tried on val; the best is used on test */
    int n_temperatures;
    int val_episodes;               /* per policy and temperature */
    int n[RUN_MAX_N];               /* look-ahead widths; 1: none */
    int n_n;
    int search_horizon, search_execute, search_episodes;
};

struct stage_config {
    enum stage_kind kind;
    char name[32];                  /* unique in the run: "sft"; a second one is "sft2" */
    union {
        struct demos_config demos;
        struct sft_config sft;
        struct rollouts_config rollouts;
        struct prm_config prm;
        struct rl_config rl;
        struct eval_config eval;
    };
};

struct server_config { char device[24]; char address[108]; int threads; };

struct run_config {
    char name[64], dir[256];
    uint64_t seed;
    enum numerics numerics;
    char suite[32];
    char tasks[RUN_MAX_TASKS][48];
    int n_tasks;
    int image;                      /* pixels, square */
    char policy_init[256];          /* a Hugging Face OpenVLA directory */
    char policy_train[16];          /* full | lora */
    char prm_init[256];             /* "policy" or a directory */
    int prm_every, prm_history;
    struct stage_config stages[RUN_MAX_STAGES];
    int n_stages;
    int env_workers, slots;
    struct server_config actors[RUN_MAX_SERVERS], prm_servers[RUN_MAX_SERVERS], learners[RUN_MAX_SERVERS];
    int n_actors, n_prm_servers, n_learners;
    char http[64];                  /* address:port of the status page; "": off */
    char listen[64];                /* tcp://host:port for members on other hosts; "": ipc only */
    int heartbeat_ms, lease_ttl_ms, first_step_ms;
    int journal_keep;               /* iterations of rl trajectories kept on disk */
};

void run_config_defaults(struct run_config *config);

/* Parse a YAML file / text. The error line reads like: "run.yaml:7:12: stages[2].rl.epizodes: unknown key; nearest: episodes". */
int run_config_load(const char *path, struct run_config *ret, struct error *error);
int run_config_parse(const char *yaml, size_t n, const char *name, struct run_config *ret, struct error *error);

/* As resolved YAML (every key with its value); parsing it gives the same struct. */
int run_config_write(const struct run_config *config, struct strbuf *out);

/* One stage's settings as `key: value` lines and back (Plan.settings). */
int stage_config_write(const struct stage_config *stage, struct strbuf *out);
int stage_config_parse(const char *text, size_t n, struct stage_config *ret, struct error *error);
const char *stage_kind_name(enum stage_kind kind);

/* `gantry config explain KEY`: type, default, range, help. -ENOENT: *error names the nearest key. */
int run_config_explain(const char *key, struct strbuf *out, struct error *error);
/* docs/configuration.md, whole. */
int run_config_document(struct strbuf *out);
