/* method.h - what one training objective may be told: the settings of sft, prm and rl as plain structs.
 *
 * The run configuration fills them in (lib/daemon/run_config.h has the defaults, ranges and help of every
 * key), lib/rl and lib/train act on them, so they live below both. docs/method.md says what each one does. */
#pragma once

#include <stdbool.h>

enum reward_mode { REWARD_PROGRESS, REWARD_DELTA, REWARD_RAW, REWARD_RAW_LITERAL, REWARD_SPARSE, REWARD_ENV };
enum advantage_mode { ADVANTAGE_GAE, ADVANTAGE_GROUP, ADVANTAGE_RLOO, ADVANTAGE_REINFORCE };
enum kl_mode { KL_EXACT, KL_K3, KL_K2, KL_K1_REWARD, KL_K1, KL_NONE };
enum hack_action { HACK_WARN, HACK_PAUSE, HACK_REFRESH };
enum critic_mode { CRITIC_SHARED, CRITIC_NONE };
enum ratio_mode { RATIO_ACTION, RATIO_TOKEN };
enum loss_mean { LOSS_MEAN_AUTO, LOSS_MEAN_STEP, LOSS_MEAN_EPISODE };
enum timeout_mode { TIMEOUT_TERMINAL, TIMEOUT_BOOTSTRAP };
enum curriculum_mode { CURRICULUM_UNIFORM, CURRICULUM_LEVELS, CURRICULUM_FRONTIER_CENTRED, CURRICULUM_FRONTIER,
                       CURRICULUM_FIXED };

enum sft_source { SFT_DEMOS, SFT_ROLLOUTS, SFT_BOTH };
enum sft_choice { CHOOSE_ALL, CHOOSE_SUCCESS, CHOOSE_SCORE };

struct sft_config {                 /* also pretraining */
    enum sft_source from;           /* whose episodes are imitated: the newest stage of that kind */
    enum sft_choice choose;         /* of rollouts: all, the simulator's successes, or by the reward model's last score alone */
    double least_score;             /* choose score: an episode's last score is at least this */
    int steps, batch;               /* batch: frames */
    double lr, weight_decay, clip, beta2;
    int warmup;                     /* steps */
    double lr_end;                  /* cosine down to lr * lr_end; 1: constant */
    int commit_every;               /* steps between committed versions; 0: only at the end */
    bool augment;                   /* pictures cropped and coloured at random; the policy crops the middle from then on */
};

/* An sft stage is trained in pieces of commit_every steps, a version each. */
static inline int sft_pieces(const struct sft_config *sft)
{
    return sft->commit_every > 0 ? (sft->steps + sft->commit_every - 1) / sft->commit_every : 1;
}

enum label_mode { LABELS_SEGMENTS, LABELS_MILESTONE };
enum { TRUNK_HISTORY_MAX = 6 };     /* prm.history with the policy's trunk: it takes eight pictures */

#define PRM_FORCED "promoted by force"      /* so the gate's text begins if it said no, and prm.force let the model pass */

struct prm_config {                 /* docs/method.md */
    int steps, batch;
    double lr, weight_decay, clip;
    enum label_mode labels;
    double demo_fraction;           /* at most this share of the frames is from demonstrations */
    double holdout;                 /* share of the episodes kept for the gate */
    int width;                      /* hidden width of the reward head */
    bool force;                     /* promote whatever the gate says */
    double gate_mid, gate_last, gate_margin;
};

enum { RL_MAX_LEVELS = 48 };

struct rl_config {                  /* docs/method.md; the preset gives defaults before the stage's own keys are read */
    int iterations, episodes;       /* episodes per iteration */
    char preset[24];                /* one of rl_presets (daemon/run_config_tables.h) */
    int eval_every, eval_episodes;  /* on val states; 0: never */
    double eval_temperature;        /* of those; 0: that of the episodes */
    enum curriculum_mode curriculum;
    int levels[RL_MAX_LEVELS], n_levels;        /* of the run's tasks, in their order; none: the suite's own */
    double stop_success;            /* ends the stage when val success reaches it; 0: never */
    int stop_patience;              /* ... when so many val passes brought no new best; 0: never */
    double stop_collapse;           /* ... when val success is so far below the best; 0: never */
    enum hack_action on_hack;       /* the reward model pays more and success falls */
    double temperature;
    enum reward_mode reward;
    double w_progress, w_success, w_env;
    enum timeout_mode timeout;
    int w_progress_decay;           /* iterations until w_progress reaches 0; 0: constant */
    enum advantage_mode advantage;
    double gamma, lambda;
    int group;
    int dynamic_sampling;           /* group, rloo: rounds of new groups in place of those without spread */
    int epochs, minibatch;          /* minibatch: MDP steps over all ranks */
    enum ratio_mode ratio;
    enum loss_mean loss_mean;
    double clip_low, clip_high;
    double clip_dual;               /* 0: off */
    double lr;
    int lr_ramp;                    /* minibatches */
    double weight_decay, clip, beta2;
    enum kl_mode kl;
    double kl_coef, entropy_coef, value_coef;
    double value_clip, value_huber; /* in the running std of returns; 0: off */
    enum critic_mode critic;
    int value_width, value_epochs;
    int critic_warmup;              /* iterations that train the value head alone */
    double value_lr;
    bool value_detach, critic_time, critic_prm;
    double target_kl;
    int max_updates, max_staleness;
    int prm_refresh;                /* iterations between refreshes of the reward model; 0: never */
};

/* Values come from a head on the policy's trunk; otherwise V = 0. */
static inline bool rl_has_critic(const struct rl_config *rl)
{
    return rl->advantage == ADVANTAGE_GAE && rl->critic != CRITIC_NONE && rl->value_width > 0;
}
/* The reward model's scores are part of the pay. */
static inline bool rl_is_scored(const struct rl_config *rl)
{
    return rl->reward != REWARD_SPARSE && rl->reward != REWARD_ENV && rl->w_progress > 0;
}
static inline int rl_critic_inputs(const struct rl_config *rl)
{
    return rl_has_critic(rl) ? rl->critic_time + rl->critic_prm : 0;
}
/* An episode counts the same whatever its length; or a step does. */
static inline bool rl_mean_per_episode(const struct rl_config *rl)
{
    return rl->loss_mean == LOSS_MEAN_EPISODE || (rl->loss_mean == LOSS_MEAN_AUTO && rl->advantage != ADVANTAGE_GAE);
}
