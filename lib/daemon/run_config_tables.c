/* run_config_tables.c - every key of the run YAML: name, range, default, help. */
#include "daemon/run_config_tables.h"

#include <assert.h>
#include <stdio.h>

#define R struct run_config
#define S struct stage_config
/* A key whose field has another name, and members of a stage's union. */
#define ROW_INT(s, key, f, lo, hi, v, h) \
    {.name = key, .type = CONFIG_TYPE_INT, .offset = offsetof(s, f), .min = lo, .max = hi, .value = v, .help = h}
#define ROW_DOUBLE(s, key, f, lo, hi, v, h) \
    {.name = key, .type = CONFIG_TYPE_DOUBLE, .offset = offsetof(s, f), .min = lo, .max = hi, .value = v, .help = h}
#define ROW_BOOL(s, key, f, v, h) {.name = key, .type = CONFIG_TYPE_BOOL, .offset = offsetof(s, f), .value = v, .help = h}
#define ROW_CHOICE(s, key, f, names, v, h) \
    {.name = key, .type = CONFIG_TYPE_CHOICE, .offset = offsetof(s, f), .choices = names, .value = v, .help = h}
#define ROW_STRING(s, key, f, words, v, h) \
    {.name = key, .type = CONFIG_TYPE_STRING, .offset = offsetof(s, f), .size = sizeof(((s *)0)->f), .choices = words, .value = v, \
     .help = h}
#define ROW_LIST(s, key, list_type, f, n, lo, hi, v, h) \
    {.name = key, .type = list_type, .offset = offsetof(s, f), .count_offset = offsetof(s, n), .size = sizeof(((s *)0)->f[0]), \
     .max_count = (int)ARRAY_SIZE(((s *)0)->f), .min = lo, .max = hi, .value = v, .help = h}

static const char *const numerics_names[] = {"strict", "fast", NULL};
static const char *const reward_names[] = {"progress", "delta", "raw", "raw_literal", "sparse", "env", NULL};
static const char *const advantage_names[] = {"gae", "group", "rloo", "reinforce++", NULL};
static const char *const kl_names[] = {"exact", "k3", "k2", "k1_reward", "k1", "none", NULL};
static const char *const critic_names[] = {"shared", "none", NULL};
static const char *const ratio_names[] = {"action", "token", NULL};
static const char *const loss_mean_names[] = {"auto", "step", "episode", NULL};
static const char *const timeout_names[] = {"terminal", "bootstrap", NULL};
static const char *const curriculum_names[] = {"uniform", "levels", "frontier-centred", "frontier", "fixed", NULL};
static const char *const weights_names[] = {"fp32", "bf16", NULL};
static const char *const train_names[] = {"full", "lora", NULL};
static const char *const prm_train_names[] = {"head", "lora", NULL};
static const char *const chain_names[] = {"render", "plain", "rot180+jpeg95+lanczos3", NULL};
static const char *const robosuite_names[] = {"1.4.0", "1.4.1", NULL};
static const char *const substeps_names[] = {"by-split", "reference", "onepass", NULL};        /* as enum sim_substeps */
static const char *const draw_names[] = {"turns", "all", NULL};     /* as enum suite_draw */
static const char *const support_names[] = {"action", "full", NULL};
static const char *const perturb_names[] = {"", "push", "drop", "offset", NULL};
static const char *const score_names[] = {"last", "mean", NULL};
static const char *const style_names[] = {"clean", "slow", NULL};
static const char *const source_names[] = {"demos", "rollouts", "both", NULL};
static const char *const choice_names[] = {"all", "success", "score", NULL};
static const char *const label_names[] = {"segments", "milestone", NULL};
static const char *const hack_names[] = {"warn", "pause", "refresh", NULL};
static const char *const preset_names[] = {"gantry", "tabletop", "grpo", "paper", "writeup", NULL};

static const struct config_key run_keys[] = {
    CONFIG_STRING(R, name, "run", "what the run is called, in status lines and reports"),
    CONFIG_STRING(R, dir, "\"\"", "the run directory; empty: runs/NAME"),
    CONFIG_U64(R, seed, "7", "the seed everything is drawn from"),
    CONFIG_CHOICE(R, numerics, numerics_names, "strict",
               "strict: results do not depend on threads, batch, ranks or CPU; fast: linear layers in bf16 where the CPU has "
               "AVX512_BF16 or AMX"),
    CONFIG_END,
};

static const struct config_key suite_keys[] = {
    ROW_STRING(R, "name", suite, NULL, "tabletop",
               "the simulator suite: tabletop, libero_spatial, libero_object, libero_goal, libero_10, libero_90, or remote: "
               "one of your own (docs/remote.md)"),
    ROW_LIST(R, "tasks", CONFIG_TYPE_STRINGS, tasks, n_tasks, 0, 0, "[pick_up_object]", "the tasks one policy learns, by name; [all]: every one of the suite"),
    ROW_STRING(R, "remote", remote, NULL, "",
               "suite remote: the command that starts the simulator, once for each slot of each env worker; or unix:PATH, a "
               "socket at which a simulator listens"),
    CONFIG_INT(R, image, 16, 1024, "64", "width and height of the pictures that the policy gets, pixels"),
    CONFIG_INT(R, cameras, 1, 8, "1",
               "pictures of one observation: the suite's first cameras. 2 adds the hand's, for OpenVLA-OFT"),
    CONFIG_BOOL(R, state, "false",
               "observations carry the robot's own state, for policies that take it (libero: the hand's position and "
               "axis-angle, fingers; tabletop: the hand's position and yaw, fingers)"),
    CONFIG_INT(R, max_steps, 0, 100000, "0",
               "step limit of episodes in rollouts, rl and eval (there also of the demonstrator's); 0: the task's own"),
    ROW_STRING(R, "chain", chain, chain_names, "render",
               "how the pictures are made. render: drawn at that size; plain (libero suites on a CPU): without mirror images, "
               "edges smoothed by drawing at twice the size; rot180+jpeg95+lanczos3: as in the OpenVLA evaluations, from a "
               "picture of `render` pixels"),
    CONFIG_INT(R, render, 0, 4096, "256", "chain rot180+jpeg95+lanczos3: width and height of the picture that is drawn"),
    ROW_STRING(R, "robosuite", robosuite, robosuite_names, "1.4.0",
               "libero suites: the version of robosuite. 1.4.0: what LIBERO pins; 1.4.1: what the OpenVLA evaluations pin, "
               "where link 7 of the arm collides, too"),
    CONFIG_CHOICE(R, substeps, substeps_names, "by-split",
               "libero suites: how a substep is computed. reference: equal to the original; onepass: at least 1.5 times as "
               "fast, differs by the solver's warm start; by-split: onepass for train states, reference for the others"),
    CONFIG_CHOICE(R, draw, draw_names, "turns",
               "which observations of the policy's episodes are drawn and kept. turns: those that the policy is asked about, "
               "and the last (few where it answers whole chunks); all: every one. Demonstrations, look-ahead and prm.history "
               "always have all"),
    CONFIG_END,
};

static const struct config_key policy_keys[] = {
    ROW_STRING(R, "init", policy_init, NULL, "models/tiny",
               "a Hugging Face OpenVLA directory to start from, or that of a PEFT adapter. With train: full an adapter is "
               "merged with its base; with train: lora its training goes on (lora_r, lora_alpha and lora_targets are then the "
               "adapter's own)"),
    ROW_STRING(R, "base", policy_base, NULL, "",
               "where init is a PEFT adapter: the directory of its base; empty: the one that adapter_config.json names"),
    ROW_STRING(R, "unnorm_key", policy_unnorm_key, NULL, "",
               "which of several data sets in dataset_statistics.json has the units that the suite takes; empty: the one with "
               "the suite's name, or with that name and _no_noops"),
    ROW_DOUBLE(R, "center_crop", policy_center_crop, 0, 1, "0",
               "how much of each picture's area the policy sees, in the middle. 0: what config.json says, or, where it says "
               "nothing, .9 on libero suites with OpenVLA's pictures (`chain`), as in its evaluations, and all elsewhere; 1: "
               "all"),
    ROW_STRING(R, "train", policy_train, train_names, "full", "full: all weights are trained; lora: adapters only"),
    ROW_STRING(R, "weights", policy_weights, weights_names, "fp32",
               "fp32, or bf16: the policy acts and is saved in bf16, and the learner keeps fp32 masters. Adapters are always "
               "fp32"),
    ROW_STRING(R, "support", policy_support, support_names, "action",
               "what tokens are sampled from, and what their log-probabilities are over: action (the 256 action ids) or full "
               "(the whole vocabulary)"),
    ROW_BOOL(R, "eos_in_logp", policy_eos_in_logp, "false",
               "with support: full: one more token is sampled after the action's and counts in log pi, as in the paper; "
               "whatever it is, it ends nothing"),
    CONFIG_INT(R, lora_r, 1, 16384, "32", "with train: lora: rank of the adapters"),
    ROW_DOUBLE(R, "lora_alpha", lora_alpha, 0, 1e6, "16",
               "with train: lora: what an adapter adds is multiplied by lora_alpha / lora_r"),
    ROW_STRING(R, "lora_targets", lora_targets, NULL, "all-linear",
               "with train: lora: all-linear (all but lm_head and patch convolutions), or module names with commas between: "
               "full names, or how they end"),
    CONFIG_END,
};

static const struct config_key prm_keys[] = {
    ROW_STRING(R, "init", prm_init, NULL, "policy",
               "policy: the policy's trunk as it is at the prm stage, with a new head; or the directory of an OpenVLA, "
               "Qwen2-VL or Qwen2.5-VL"),
    ROW_STRING(R, "train", prm_train, prm_train_names, "head",
               "where init is a Qwen-VL. head: only the reward head learns; lora: adapters learn, too, by policy's lora_r, "
               "lora_alpha and lora_targets. (An OpenVLA's trunk is trained whole)"),
    ROW_INT(R, "every", prm_every, 1, 1000, "1", "score every n-th step, and always the first and the last; linear in between"),
    ROW_INT(R, "history", prm_history, 0, 16, "0", "frames shown beside the first and the current one"),
    CONFIG_END,
};

static const struct config_key server_keys[] = {
    {.name = "device", .type = CONFIG_TYPE_STRING, .offset = offsetof(struct server_config, device),
     .size = sizeof(((struct server_config *)0)->device), .value = "cpu", .help = "cpu or cuda:N"},
    {.name = "address", .type = CONFIG_TYPE_STRING, .offset = offsetof(struct server_config, address),
     .size = sizeof(((struct server_config *)0)->address), .value = "\"\"",
     .help = "where it listens; empty: a socket in the run directory"},
    {.name = "threads", .type = CONFIG_TYPE_INT, .offset = offsetof(struct server_config, threads), .min = 0, .max = 256,
     .value = "0", .help = "compute threads; 0: one, or for a learner as many as there are processors, at most 8"},
    CONFIG_END,
};
#define SERVERS(f, n, h) {.name = #f, .type = CONFIG_TYPE_SECTIONS, .offset = offsetof(R, f), .count_offset = offsetof(R, n), \
    .size = sizeof(struct server_config), .max_count = RUN_MAX_SERVERS, .table = server_keys, .value = "[{device: cpu}]", .help = h}

static const struct config_key cluster_keys[] = {
    CONFIG_INT(R, env_workers, 0, 1024, "2", "environment worker processes that `gantry up` starts here"),
    CONFIG_INT(R, slots, 1, 64, "8", "episodes each of them plays at once"),
    CONFIG_STRING(R, renderers, "software",
               "where workers draw pictures: software, auto (a GPU if one works), or EGL devices like '0,1', which the workers "
               "get in turn"),
    SERVERS(actors, n_actors, "policy inference servers, one entry each"),
    SERVERS(prm_servers, n_prm_servers, "reward model servers, one entry each"),
    SERVERS(learners, n_learners, "learner ranks, one entry each; the first keeps the trajectories"),
    CONFIG_STRING(R, listen, "\"\"", "tcp://host:port for members on other hosts (needs keys); empty: this host only"),
    CONFIG_END,
};

static const struct config_key status_keys[] = {
    CONFIG_STRING(R, http, "\"\"", "address:port of the read-only status page; empty: none"),
    CONFIG_STRING(R, token_file, "\"\"",
               "the file whose first line is the token that the page asks for; it must not be readable by others; empty: no "
               "token"),
    CONFIG_END,
};

static const struct config_key timing_keys[] = {
    CONFIG_INT(R, heartbeat_ms, 10, 60000, "500", "how often members report, milliseconds"),
    CONFIG_INT(R, lease_ttl_ms, 100, 3600000, "10000",
               "an episode whose step counter stands still for this long is given to another worker, unless it waits for a "
               "server that is up; at least two heartbeats"),
    CONFIG_INT(R, first_step_ms, 100, 3600000, "60000",
               "the same for an episode's first step, when models may still be loading, as long as its worker is heard from"),
    CONFIG_INT(R, hung_ms, 0, 3600000, "60000",
               "a daemon that is up and whose event loop has not turned for this long is killed and started again by `gantry up`; "
               "it may learn or wait for a disk for longer, its loop turns meanwhile; so is an actor or a PRM server that computes one "
               "batch for ten times as long; 0: never"),
    CONFIG_END,
};

static const struct config_key journal_keys[] = {
    ROW_INT(R, "keep", journal_keep, 1, 1000000, "2",
               "how many training iterations of an rl stage keep their trajectories on disk, with the val passes between them "
               "(demos and rollouts always stay)"),
    CONFIG_END,
};

const struct run_section run_sections[] = {
    {"run", "The run as a whole.", run_keys},
    {"suite", "What is simulated.", suite_keys},
    {"policy", "The policy that is trained.", policy_keys},
    {"prm", "The process reward model: how far an episode has come, from images.", prm_keys},
    {"cluster", "The processes `gantry up` starts on this host. Others may join.", cluster_keys},
    {"status", "The status page.", status_keys},
    {"timing", "Failure detection.", timing_keys},
    {"journal", "Recorded episodes.", journal_keys},
    {0},
};
static_assert(ARRAY_SIZE(run_sections) == RUN_SECTIONS + 1, "a doubt for each");

/* ---- stages ------------------------------------------------------------------------------------------------ */

const struct config_key stage_name_key =
    CONFIG_STRING(S, name, "\"\"", "what the stage is called; empty: its kind, with a number from the second on");

static const struct config_key demos_keys[] = {
    ROW_STRING(S, "from", demos.from, NULL, "\"\"",
               "a directory that `gantry data import` made: its episodes are the demonstrations, and none are played; empty: "
               "the expert plays them"),
    ROW_INT(S, "episodes", demos.episodes, 1, 10000000, "1200", "demonstrations by the scripted expert, total over the tasks"),
    ROW_STRING(S, "style", demos.style, style_names, "slow",
               "clean: the expert's actions with noise, labelled without it; slow: a hesitant expert, labelled with what was "
               "done"),
    ROW_INT(S, "max_steps", demos.max_steps, 0, 100000, "0", "step limit; 0: the task's own"),
    CONFIG_END,
};

static const struct config_key sft_keys[] = {
    ROW_CHOICE(S, "from", sft.from, source_names, "demos",
               "what is imitated: the newest demos stage, the newest rollouts stage (the policy's own episodes: filtered "
               "imitation), or both"),
    ROW_CHOICE(S, "choose", sft.choose, choice_names, "success",
               "which of the rollouts. all: every one; success: by the simulator's verdict; score: by the reward model's last "
               "score alone"),
    ROW_DOUBLE(S, "least_score", sft.least_score, 0, 1, "0.5", "choose: score: the least score of an episode's last frame"),
    ROW_INT(S, "steps", sft.steps, 1, 10000000, "360", "optimiser steps"),
    ROW_INT(S, "batch", sft.batch, 1, 65536, "64", "frames in one step"),
    ROW_DOUBLE(S, "lr", sft.lr, 0, 1, "5e-4", "learning rate"),
    ROW_DOUBLE(S, "weight_decay", sft.weight_decay, 0, 1, "0.01", "AdamW's"),
    ROW_DOUBLE(S, "clip", sft.clip, 0, 1e9, "1", "gradient norm limit; 0: none"),
    ROW_DOUBLE(S, "beta2", sft.beta2, 0, 0.999999, "0.95", "AdamW's"),
    ROW_INT(S, "warmup", sft.warmup, 0, 1000000, "50", "steps of linear rise at the start"),
    ROW_DOUBLE(S, "lr_end", sft.lr_end, 0, 1, "0.1", "cosine down to lr * lr_end; 1: constant"),
    ROW_BOOL(S, "augment", sft.augment, "false",
               "pictures cropped (.9 of the area) and coloured at random, as OpenVLA was trained; the policy then crops the "
               "middle when it acts"),
    ROW_INT(S, "commit_every", sft.commit_every, 1, 10000000, "120",
               "steps between versions committed on the way: a killed learner goes on from the last"),
    CONFIG_END,
};

static const struct config_key rollouts_keys[] = {
    ROW_INT(S, "episodes", rollouts.episodes, 1, 10000000, "600",
               "episodes of the current policy on train states, kept; total over the tasks"),
    ROW_DOUBLE(S, "temperature", rollouts.temperature, 0, 10, "1", "sampling temperature; 0: greedy"),
    ROW_BOOL(S, "score", rollouts.score, "false",
               "the reward model scores them, which sft needs for choose: score; a prm stage must come before"),
    CONFIG_END,
};

static const struct config_key prm_stage_keys[] = {
    ROW_INT(S, "steps", prm.steps, 1, 10000000, "900", "optimiser steps"),
    ROW_INT(S, "batch", prm.batch, 1, 65536, "64", "frames in one step"),
    ROW_DOUBLE(S, "lr", prm.lr, 0, 1, "1e-3", "learning rate"),
    ROW_DOUBLE(S, "weight_decay", prm.weight_decay, 0, 1, "0.01", "AdamW's"),
    ROW_DOUBLE(S, "clip", prm.clip, 0, 1e9, "1", "gradient norm limit; 0: none"),
    ROW_CHOICE(S, "labels", prm.labels, label_names, "segments",
               "what progress is: segments: five equal ones in time; milestone: cut at gripper events and where the arm comes "
               "to rest"),
    ROW_DOUBLE(S, "demo_fraction", prm.demo_fraction, 0, 1, "0.25", "at most this share of the frames is from demonstrations"),
    ROW_DOUBLE(S, "holdout", prm.holdout, 0.01, 0.9, "0.2", "share of the episodes kept apart for the gate"),
    ROW_INT(S, "width", prm.width, 1, 65536, "256", "hidden width of the reward head"),
    ROW_BOOL(S, "force", prm.force, "false", "promote the model whatever the gate says"),
    ROW_DOUBLE(S, "gate_mid", prm.gate_mid, 0, 1, "0.65", "least AUC of success against failure in the middle of an episode"),
    ROW_DOUBLE(S, "gate_last", prm.gate_last, 0, 1, "0.85", "least AUC at the last frame"),
    ROW_DOUBLE(S, "gate_margin", prm.gate_margin, 0, 1, "0.1", "how far both must be above the same model on blank images"),
    CONFIG_END,
};

static const struct config_key rl_keys[] = {
    ROW_INT(S, "iterations", rl.iterations, 1, 10000000, "120", "rounds of episodes and updates"),
    ROW_INT(S, "episodes", rl.episodes, 1, 100000, "64", "episodes in one iteration"),
    ROW_STRING(S, "preset", rl.preset, preset_names, "gantry", "which set of defaults the other keys start from"),
    ROW_INT(S, "eval_every", rl.eval_every, 0, 1000000, "10", "iterations between evaluations on val states; 0: never"),
    ROW_INT(S, "eval_episodes", rl.eval_episodes, 1, 100000, "64", "episodes of one such evaluation"),
    ROW_DOUBLE(S, "eval_temperature", rl.eval_temperature, 0, 10, "0",
               "sampling temperature of these evaluations. `best` and the stops go by them, so it is best the one that the "
               "policy will act at; 0: `temperature`"),
    ROW_CHOICE(S, "curriculum", rl.curriculum, curriculum_names, "frontier-centred", "how tasks are drawn"),
    ROW_LIST(S, "levels", CONFIG_TYPE_INTS, rl.levels, rl.n_levels, 0, 1000, "[]",
               "curriculum levels: the level of each of suite.tasks, in their order; empty: the suite's own"),
    ROW_DOUBLE(S, "stop_success", rl.stop_success, 0, 1, "0", "the stage ends when success on val states reaches this; 0: never"),
    ROW_INT(S, "stop_patience", rl.stop_patience, 0, 1000000, "0",
               "the stage ends after so many evaluations on val states in a row without a new best; 0: never"),
    ROW_DOUBLE(S, "stop_collapse", rl.stop_collapse, 0, 1, "0",
               "the stage ends when success on val states is this far below the stage's best; 0: never"),
    ROW_CHOICE(S, "on_hack", rl.on_hack, hack_names, "warn",
               "when over 5 iterations the reward model pays 10 % more and success falls by 10 points: warn (an event), pause "
               "(the run stops; `gantry up` goes on), refresh (the reward model is trained on what is played now)"),
    ROW_DOUBLE(S, "temperature", rl.temperature, 0.01, 10, "1", "sampling temperature of the episodes, also in the loss"),
    ROW_CHOICE(S, "reward", rl.reward, reward_names, "progress",
               "progress, delta, raw: how the reward model pays; raw_literal: as the write-up has it (its preset only); "
               "sparse: success only; env: the environment's own reward"),
    ROW_DOUBLE(S, "w_progress", rl.w_progress, 0, 1000, "1", "weight of the reward model's part"),
    ROW_DOUBLE(S, "w_success", rl.w_success, 0, 1000, "1", "reward of success, on the last step"),
    ROW_DOUBLE(S, "w_env", rl.w_env, -1000, 1000, "0",
               "weight of the environment's own reward, beside any other; with reward: env and this key not given: 1"),
    ROW_CHOICE(S, "timeout", rl.timeout, timeout_names, "terminal",
               "terminal: running out of time is a failure; bootstrap: it only cuts the episode off, the critic says what the "
               "rest is worth"),
    ROW_INT(S, "w_progress_decay", rl.w_progress_decay, 0, 1000000, "0",
               "iterations until w_progress has fallen to 0; 0: constant"),
    ROW_CHOICE(S, "advantage", rl.advantage, advantage_names, "gae",
               "gae, with a critic or without; group (as GRPO), rloo (episodes of one state against each other), reinforce++ "
               "(against all)"),
    ROW_DOUBLE(S, "gamma", rl.gamma, 0, 1, "0.99", "discount"),
    ROW_DOUBLE(S, "lambda", rl.lambda, 0, 1, "0.95", "of the generalised advantage; with critic: none and this key not given: 1"),
    ROW_INT(S, "group", rl.group, 2, 1024, "8", "episodes that share an initial state, for group and rloo"),
    ROW_INT(S, "dynamic_sampling", rl.dynamic_sampling, 0, 100, "3",
               "rounds of new groups in place of those whose returns are all alike; 0: none"),
    ROW_INT(S, "epochs", rl.epochs, 1, 100, "1", "passes over an iteration's steps"),
    ROW_INT(S, "minibatch", rl.minibatch, 1, 65536, "32", "steps in one update, over all ranks"),
    ROW_CHOICE(S, "ratio", rl.ratio, ratio_names, "action",
               "action: one ratio for all tokens of an action; token: one for each token (always so for chunks)"),
    ROW_CHOICE(S, "loss_mean", rl.loss_mean, loss_mean_names, "auto",
               "what counts the same in the loss: a step, or an episode whatever its length; auto: a step with gae, otherwise "
               "an episode"),
    ROW_DOUBLE(S, "clip_low", rl.clip_low, 0, 1, "0.2", "the ratio is clipped at 1 - clip_low"),
    ROW_DOUBLE(S, "clip_high", rl.clip_high, 0, 10, "0.2", "the ratio is clipped at 1 + clip_high, too"),
    ROW_DOUBLE(S, "clip_dual", rl.clip_dual, 0, 1000, "0",
               "for a negative advantage A the objective is at least clip_dual * A (3 is usual); 0: off"),
    ROW_DOUBLE(S, "lr", rl.lr, 0, 1, "1e-5", "learning rate of the policy"),
    ROW_INT(S, "lr_ramp", rl.lr_ramp, 0, 1000000, "0", "minibatches of linear rise at the start"),
    ROW_DOUBLE(S, "weight_decay", rl.weight_decay, 0, 1, "0.01", "AdamW's"),
    ROW_DOUBLE(S, "clip", rl.clip, 0, 1e9, "1", "gradient norm limit, trunk and value head apart; 0: none"),
    ROW_DOUBLE(S, "beta2", rl.beta2, 0, 0.999999, "0.999", "AdamW's"),
    ROW_CHOICE(S, "kl", rl.kl, kl_names, "exact",
               "divergence from the start policy: exact, over the whole support; k3, k2: estimates from the tokens drawn; "
               "k1_reward: taken off each step's reward; k1: as a loss, as the write-up has it (its preset only)"),
    ROW_DOUBLE(S, "kl_coef", rl.kl_coef, 0, 1000, "0.01", "weight of this divergence in the loss"),
    ROW_DOUBLE(S, "entropy_coef", rl.entropy_coef, 0, 1000, "0", "weight of the entropy bonus"),
    ROW_DOUBLE(S, "value_coef", rl.value_coef, 0, 1000, "0.5", "weight of the value loss"),
    ROW_DOUBLE(S, "value_clip", rl.value_clip, 0, 1000, "0",
               "how far a value may leave the one before the update, in running standard deviations of returns; 0: off"),
    ROW_DOUBLE(S, "value_huber", rl.value_huber, 0, 1000, "0",
               "beyond this error the value loss is linear, in the same unit; 0: square everywhere"),
    ROW_CHOICE(S, "critic", rl.critic, critic_names, "shared",
               "gae: shared: a value head on the policy's trunk; none: values are 0"),
    ROW_INT(S, "value_width", rl.value_width, 1, 65536, "256", "hidden width of the value head"),
    ROW_INT(S, "value_epochs", rl.value_epochs, 1, 100, "1", "passes of the value head over an iteration's steps"),
    ROW_INT(S, "critic_warmup", rl.critic_warmup, 0, 100000, "5", "iterations that train the value head alone"),
    ROW_DOUBLE(S, "value_lr", rl.value_lr, 0, 1, "3e-4", "learning rate of the value head"),
    ROW_BOOL(S, "value_detach", rl.value_detach, "false", "the value loss does not reach the trunk"),
    ROW_BOOL(S, "critic_time", rl.critic_time, "false", "the value head sees the share of time used"),
    ROW_BOOL(S, "critic_prm", rl.critic_prm, "false", "the value head sees the reward model's score"),
    ROW_DOUBLE(S, "target_kl", rl.target_kl, 0, 1000, "0.05",
               "the pass ends when the divergence per action from the policy at the iteration's start is above this; 0: never"),
    ROW_INT(S, "max_updates", rl.max_updates, 0, 1000000, "0", "updates in one iteration; 0: no limit"),
    ROW_INT(S, "max_staleness", rl.max_staleness, 0, 16, "0", "versions an episode may be behind; older ones are retired"),
    ROW_INT(S, "prm_refresh", rl.prm_refresh, 0, 1000000, "0", "iterations between refreshes of the reward model; 0: never"),
    CONFIG_END,
};

static const struct config_key eval_keys[] = {
    ROW_INT(S, "episodes", eval.episodes, 1, 10000000, "400", "episodes of each policy on test states, total over the tasks"),
    ROW_LIST(S, "policies", CONFIG_TYPE_STRINGS, eval.policies, eval.n_policies, 0, 0, "[demonstrator, sft, best, last]",
               "demonstrator, sft, best, last, a version number; sft-earlier (val only): before the last sft stage"),
    ROW_LIST(S, "temperatures", CONFIG_TYPE_DOUBLES, eval.temperatures, eval.n_temperatures, 0, 10, "[0.3, 0.6, 1]",
               "tried on val states; each policy is tested at its best one, and at 0 and 1"),
    ROW_INT(S, "val_episodes", eval.val_episodes, 1, 1000000, "100", "episodes of each policy at each temperature on val states"),
    ROW_LIST(S, "at", CONFIG_TYPE_DOUBLES, eval.at, eval.n_at, 0, 10, "[]",
               "a temperature for each policy, chosen before: none are tried on val states, and test states are played at "
               "these alone"),
    ROW_BOOL(S, "beside", eval.beside, "true", "greedy and T = 1 are tested beside the best temperature"),
    ROW_BOOL(S, "on_val", eval.on_val, "false",
               "val states in place of test states, to choose settings by (of look-ahead, for example)"),
    ROW_INT(S, "first_state", eval.first_state, 0, 1000000000, "0",
               "number of the first test state; each is one state of every task"),
    ROW_INT(S, "max_steps", eval.max_steps, 0, 100000, "0",
               "step limit of test episodes, which gives time to recover from `perturb`; 0: suite.max_steps"),
    ROW_STRING(S, "perturb", eval.perturb, perturb_names, "\"\"",
               "what the world does once to every test episode: push (the thing is shoved), drop (it leaves the hand), offset "
               "(the hand is knocked aside); empty: nothing"),
    ROW_LIST(S, "n", CONFIG_TYPE_INTS, eval.n, eval.n_n, 1, SEARCH_N_MAX, "[1]", "candidates of look-ahead; 1: none"),
    ROW_INT(S, "search_horizon", eval.search_horizon, 1, SEARCH_H_MAX, "4", "steps simulated for each candidate"),
    ROW_INT(S, "search_execute", eval.search_execute, 1, SEARCH_H_MAX, "4", "how many of these steps of the winner are executed"),
    ROW_INT(S, "search_episodes", eval.search_episodes, 1, 1000000, "100", "paired episodes for each n"),
    ROW_CHOICE(S, "search_method", eval.search_method, search_method_names, "search_n",
               "search_n: n futures in copies of the simulator; sample_n: n actions, no copies; refine: one rollout mended "
               "three times (n: [1, 4])"),
    ROW_CHOICE(S, "search_judge", eval.search_judge, search_judge_names, "prm",
               "what chooses: prm (the reward model), value (the critic), confidence (divergence from the policy without "
               "instruction); random, shuffled, oracle: controls"),
    ROW_CHOICE(S, "search_proposals", eval.search_proposals, search_proposal_names, "policy",
               "sample_n: policy: n samples of it; gaussian: n draws around five of them"),
    ROW_STRING(S, "search_score", eval.search_score, score_names, "last",
               "a candidate is worth its last score, or the mean over its steps"),
    ROW_DOUBLE(S, "search_temperature", eval.search_temperature, 0, 10, "1",
               "temperature at which candidates are sampled, and at which n = 1 is played beside them"),
    ROW_LIST(S, "search_controls", CONFIG_TYPE_STRINGS, eval.search_controls, eval.n_search_controls, 0, 0, "[]",
               "what is played on the same states beside every n: greedy; or look-ahead in which random, shuffled or oracle "
               "chooses (oracle is a ceiling: it sees the verdict)"),
    ROW_BOOL(S, "refine_always", eval.refine_always, "false", "refine: keep what was tried again, better or not"),
    ROW_BOOL(S, "dropped", eval.dropped, "false",
             "it was begun and stopped, and nothing more of it is played: `gantry eval RUN ... --drop-stopped` says so"),
    CONFIG_END,
};

const struct stage_kind_row stage_kinds[STAGE_KINDS] = {
    [STAGE_DEMOS] = {"demos", "The scripted experts play and are recorded.", demos_keys},
    [STAGE_SFT] = {"sft", "Imitation: next-token training on demonstrations, or on chosen episodes of the policy (`pretrain` is the "
                   "same under another name).", sft_keys},
    [STAGE_ROLLOUTS] = {"rollouts", "The current policy plays train states and is recorded, for the reward model.", rollouts_keys},
    [STAGE_PRM] = {"prm", "Training of the process reward model on demonstrations and rollouts.", prm_stage_keys},
    [STAGE_RL] = {"rl", "Online reinforcement learning.", rl_keys},
    [STAGE_EVAL] = {"eval", "The run's verdict: policies on test states, temperatures chosen on val states.", eval_keys},
};

/* Measured on the built-in suite: docs/method.md. */
static const struct rl_preset_value tabletop_values[] = {
    {"episodes", "32"}, {"minibatch", "128"}, {"lr", "1e-4"}, {"lr_ramp", "20"}, {"weight_decay", "0"},
    {"reward", "progress"}, {"w_progress", "2"}, {"w_progress_decay", "30"},
    {"value_detach", "true"}, {"critic_time", "true"}, {"critic_prm", "true"}, {"critic_warmup", "2"},
    {"value_lr", "1e-3"}, {"value_epochs", "2"},
    {NULL, NULL},
};
/* SimpleVLA-RL's published recipe, but for its temperature of 1.6 (docs/method.md). */
static const struct rl_preset_value grpo_values[] = {
    {"advantage", "group"}, {"reward", "sparse"}, {"critic", "none"}, {"critic_warmup", "0"}, {"kl", "none"}, {"clip_high", "0.28"},
    {"lr", "5e-6"}, {NULL, NULL},
};
/* The write-up's code sketches, to the letter: for comparison, not for use (run_config_warnings says why). */
static const struct rl_preset_value writeup_values[] = {
    {"iterations", "1000"}, {"curriculum", "levels"}, {"reward", "raw_literal"}, {"critic", "none"}, {"lambda", "0.95"},
    {"critic_warmup", "0"}, {"kl", "k1"}, {"policy.train", "full"},
    {NULL, NULL},
};
/* The paper's settings, as far as its tables and code agree: docs/method.md says what differs. */
static const struct rl_preset_value paper_values[] = {
    {"curriculum", "frontier"}, {"temperature", "1.5"}, {"minibatch", "16"}, {"lr", "2e-5"}, {"value_lr", "5e-5"}, {"kl", "none"},
    {"policy.train", "lora"}, {"policy.lora_r", "32"}, {"policy.lora_alpha", "16"}, {"policy.support", "full"},
    {"policy.eos_in_logp", "true"},
    {NULL, NULL},
};
static const struct rl_preset_value no_values[] = {{NULL, NULL}};

const struct rl_preset rl_presets[] = {
    {"gantry", "what practice found sound for large models", no_values},
    {"tabletop", "the small policy on the built-in suite", tabletop_values},
    {"grpo", "success alone pays, episodes of one state are held against each other: no reward model, no critic; for tasks of many steps",
     grpo_values},
    {"paper", "the published paper's settings; sets policy.train, lora_r, lora_alpha, support and eos_in_logp, too", paper_values},
    {"writeup", "the public write-up to the letter, flaws included; sets policy.train, too", writeup_values},
    {0},
};
