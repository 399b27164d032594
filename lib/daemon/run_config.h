/* run_config.h - the run YAML as one typed struct. Read by the coordinator and the CLI; other daemons get their part in
 * Welcome.config and Plan.settings as `key: value` lines, written and parsed by the same tables.
 *
 * Every key is a row of a table in run_config_tables.c (name, type, offset, default, range, help): they feed the parser, the
 * error messages, `gantry config show|check|explain`, the resolved config.yaml and docs/configuration.md. */
#pragma once

#include <stdbool.h>

#include "base/episode.h"
#include "base/error.h"
#include "base/method.h"          /* struct sft_config, prm_config, rl_config */
#include "base/search.h"
#include "base/sha256.h"
#include "base/strbuf.h"

enum { RUN_MAX_TASKS = 96, RUN_MAX_STAGES = 32, RUN_MAX_SERVERS = 16, RUN_MAX_POLICIES = 8, RUN_MAX_N = 8, RUN_MAX_CONTROLS = 4 };

enum stage_kind { STAGE_DEMOS, STAGE_SFT, STAGE_ROLLOUTS, STAGE_PRM, STAGE_RL, STAGE_EVAL };
enum numerics { NUMERICS_STRICT, NUMERICS_FAST };
enum suite_draw { DRAW_TURNS, DRAW_ALL };

struct demos_config {
    char from[256];                 /* a data set's directory: nothing is played, these are the demonstrations; "": none */
    int episodes;                   /* total over the tasks */
    char style[16];                 /* clean | slow */
    int max_steps;                  /* 0: the task's own limit; demonstrators may take longer than the policy */
};

struct rollouts_config {
    int episodes;
    double temperature;
    bool score;                     /* by the reward model, while they are played */
};

struct eval_config {
    int episodes;                   /* per policy, total over the tasks, on test states */
    char policies[RUN_MAX_POLICIES][24];    /* demonstrator | sft | best | last | a version number */
    int n_policies;
    double temperatures[4];         /* tried on val; the best is used on test */
    int n_temperatures;
    int val_episodes;               /* per policy and temperature */
    double at[RUN_MAX_POLICIES];    /* given: policy i is tested at at[i] and nowhere else, and nothing is tried on val */
    int n_at;                       /* 0, or n_policies */
    bool beside;                    /* greedy and T = 1 are tested beside the best temperature */
    bool on_val;                    /* val states in place of test states: what settings are chosen by */
    int first_state;                /* number of the first test state; each number is one state of every task */
    int max_steps;                  /* of test episodes; 0: as elsewhere in the run */
    char perturb[16];               /* push | drop | offset: what the world does to every test episode; "": nothing */
    int n[RUN_MAX_N];               /* look-ahead widths; 1: none */
    int n_n;
    int search_horizon, search_execute, search_episodes;
    enum search_method search_method;
    enum search_judge search_judge;
    enum search_proposals search_proposals;
    char search_score[8];           /* last | mean */
    double search_temperature;
    char search_controls[RUN_MAX_CONTROLS][12];     /* greedy, random, shuffled, oracle: played beside every n */
    int n_search_controls;
    bool refine_always;
    bool dropped;                   /* it was begun and stopped, and nothing more of it is played */
};

/* Does any of its passes look ahead? */
static inline bool eval_searches(const struct eval_config *eval)
{
    bool wide = false;

    for (int i = 0; i < eval->n_n; i++)
        wide |= eval->n[i] > 1;
    return wide;
}

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

/* Iterations of an rl stage, pieces of an sft stage that is trained in several; 0: the stage is one piece of work. */
static inline int stage_iterations(const struct stage_config *stage)
{
    int pieces = stage->kind == STAGE_SFT ? sft_pieces(&stage->sft) : 0;

    return stage->kind == STAGE_RL ? stage->rl.iterations : pieces > 1 ? pieces : 0;
}

struct server_config { char device[24]; char address[108]; int threads; };

struct run_config {
    char name[64], dir[256];
    uint64_t seed;
    enum numerics numerics;
    char suite[32];
    char tasks[RUN_MAX_TASKS][EPISODE_TASK_MAX];
    int n_tasks;
    int image;                      /* pixels, square */
    int cameras;                    /* pictures of one observation */
    bool state;                     /* observations carry the robot's own numbers */
    int max_steps;                  /* of episodes that the policy plays; 0: the task's own limit */
    char chain[64];                 /* how pictures are made */
    int render;                     /* pixels, square, that a chain begins with */
    char remote[512];               /* suite remote: its command, or unix:PATH */
    char robosuite[16];             /* libero suites: "1.4.0", "1.4.1" */
    int substeps;                   /* libero suites: enum sim_substeps */
    int draw;                       /* enum suite_draw: which observations of an episode that a policy plays have pictures */
    char policy_init[256];          /* a Hugging Face OpenVLA directory, or a PEFT adapter's */
    char policy_base[256];          /* of the adapter; "": what it names itself */
    char policy_unnorm_key[128];    /* the data set whose statistics count; "": the suite's (nn/models/openvla_fit.h) */
    double policy_center_crop;      /* share of the area; 0: what the checkpoint says, or its evaluations do; 1: all */
    char policy_train[16];          /* full | lora */
    char policy_weights[16];        /* fp32 | bf16 */
    char policy_support[16];        /* action | full */
    bool policy_eos_in_logp;        /* a token more is sampled behind the action's, and counts */
    int lora_r;                     /* adapters: rank, ... */
    double lora_alpha;              /* ... scale (alpha / r), ... */
    char lora_targets[256];         /* ... and the modules that have them: all-linear, or names */
    char prm_init[256];             /* "policy" or a directory */
    char prm_train[16];             /* a Qwen-VL directory: head | lora */
    int prm_every, prm_history;
    struct stage_config stages[RUN_MAX_STAGES];
    int n_stages;
    int env_workers, slots;
    char renderers[64];             /* where workers draw: software, auto, or numbers of EGL devices, in turn */
    struct server_config actors[RUN_MAX_SERVERS], prm_servers[RUN_MAX_SERVERS], learners[RUN_MAX_SERVERS];
    int n_actors, n_prm_servers, n_learners;
    char http[64];                  /* address:port of the status page; "": off */
    char token_file[256];           /* whose first line the page asks for; "": it asks for nothing */
    char listen[64];                /* tcp://host:port for members on other hosts; "": ipc only */
    int heartbeat_ms, lease_ttl_ms, first_step_ms, hung_ms;
    int journal_keep;               /* iterations of rl trajectories kept on disk */
};

/* Every section at its defaults, and no stages. */
void run_config_defaults(struct run_config *config);

/* Parse a YAML file / text. The error line reads like: "run.yaml:7:12: stages[2].rl.epizodes: unknown key; nearest: episodes". */
int run_config_load(const char *path, struct run_config *ret, struct error *error);
/* All that is wrong with the file, not the first fault only (daemon/config.h): of its text, or else of each value and of how those
 * that could be read fit one another. *ret is set also where there are such faults, for who can find more: values that could not
 * be read are at their defaults, the stages are those before the first that could not, and `suite` is empty where its name or its
 * tasks could not. */
struct config_faults;
int run_config_load_all(const char *path, struct run_config *ret, struct config_faults *ret_faults);
int run_config_parse(const char *yaml, size_t n, const char *name, struct run_config *ret, struct error *error);

/* Stages that come after those of a run that is there (RUN/evals.yaml): *ret has the run's sections and these stages alone, which
 * were checked as its next ones. */
int run_config_parse_later(const char *yaml, size_t n, const char *name, const struct run_config *run, struct run_config *ret,
                           struct error *error);

/* As resolved YAML (every key with its value); parsing it gives the same struct. */
int run_config_write(const struct run_config *config, struct strbuf *out);

/* One stage's settings as `key: value` lines and back (Plan.settings). */
int stage_config_write(const struct stage_config *stage, struct strbuf *out);
int stage_config_parse(const char *text, size_t n, struct stage_config *ret, struct error *error);
const char *stage_kind_name(enum stage_kind kind);

/* True when a run directory made with `old` must not go on with `now`: *out says which key differs and how. What may change
 * during a run (run.dir, cluster, status, timing, journal; further stages behind old's) is not looked at. */
bool run_config_differ(const struct run_config *old, const struct run_config *now, struct strbuf *out);

/* Where n of them (RUN_COMPARE_MAX at most) differ, key by key: row(place, values, arg), place "suite.image" or, of a stage,
 * "rl2.lr" by its name, values as config.yaml has them, NULL of one without that stage. Left out: run.name and run.dir, the
 * status page, what `gantry eval` added. -ENOMEM: some values are cut. */
enum { RUN_COMPARE_MAX = 52 };
typedef void (*run_config_row_fn)(const char *place, const char *const *values, void *arg);
int run_config_compare(const struct run_config *const *configs, int n, run_config_row_fn row, void *arg);

/* Paths of directories and files (policy.init and base, prm.init, demos.from, status.token_file; not run.dir) that are relative
 * are made absolute, from the directory `here`: what a new run's config.yaml says can then be read from anywhere.
 * -ENAMETOOLONG. */
int run_config_anchor(struct run_config *config, const char *here, struct error *error);
/* Where `config` and the run's own `old` name the same path, one of them relative and the other somewhere absolute, old's
 * spelling is taken: a run goes on with the file that it was made from, also one that is older than its anchors or was carried to
 * another machine. */
void run_config_adopt_paths(struct run_config *config, struct run_config *old);

/* suite.tasks is [all]: every task of the suite, which who knows it has yet to name (cli/up_config.h). Until then nothing is checked
 * that depends on how many there are. Of suite remote it is a task's name like any other. */
bool run_config_all_tasks(const struct run_config *config);

/* How many test states each task of the suite has, numbered from 0; 0: any number. */
int run_config_test_states(const struct run_config *config);

/* What is allowed but likely a mistake: `say` is called with a line for each ("stages[4].rl: ..."). */
void run_config_warnings(const struct run_config *config, void (*say)(const char *line, void *arg), void *arg);

/* SHA-256 of what must not change during a run: seed, numerics, suite, models, stages. Where and on how many machines it runs
 * may. Only what is not at its default counts, so that a gantry with more keys goes on with an older run; that a default itself
 * became another is found by run_config_differ, which compares every value with the run's own config.yaml.
 * -ENOMEM. */
int run_config_digest(const struct run_config *config, uint8_t ret[SHA256_SIZE]);
/* Of its first n stages alone: of a run that goes on with this configuration. */
int run_config_digest_of(const struct run_config *config, int n_stages, uint8_t ret[SHA256_SIZE]);

/* `gantry config explain KEY`: type, default, range, help. -ENOENT: *error names the nearest key. */
int run_config_explain(const char *key, struct strbuf *out, struct error *error);
/* docs/configuration.md, whole. */
int run_config_document(struct strbuf *out);
