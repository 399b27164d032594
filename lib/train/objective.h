/* objective.h - the three things a Plan can ask for: imitate (sft), judge progress (prm), improve by reward (ppo).
 *
 * Each takes a trainer that holds the parent version, trains it in place on a checked, sorted data set, and says what
 * happened in numbers. What is drawn depends on (seed, stage, iteration, update) only. A stopped or failed call leaves the
 * trainer half-trained: throw it away.
 * Failure rule: -errno with one line, which the coordinator puts behind the stage's name; -ECANCELED when the watch said stop. */
#pragma once

#include "base/method.h"
#include "base/strbuf.h"
#include "train/reference.h"
#include "train/sample.h"
#include "train/trainer.h"

struct objective {              /* what all three are told */
    uint64_t seed, stage, iteration;    /* iteration counts within the stage, from 0 */
    uint64_t version;                   /* the parent: what the trainer holds; ppo compares it with who played */
    const struct train_watch *watch;    /* may be NULL */
    bool *ret_filtered;                 /* [episodes of the data set] ppo: those that carried no gradient; may be NULL */
    const struct reference_recall *recall;      /* ppo: reference numbers computed before; may be NULL */
};

/* ---- sft: cross-entropy over the full vocabulary of K action ids and the end-of-sequence id -------------
 * The objective's iteration is the piece of the stage (sft_pieces) that is trained: all pieces in a row, with or without a
 * checkpoint between two, are the whole stage to the bit. */
struct sft_chosen { int offered, chosen, successes; };     /* rollouts offered, imitated, and successes among these */
struct sft_result {
    double first_loss, last_loss, gradient_norm;
    int64_t updates, skipped;
    int frames;
    struct sft_chosen chosen;
};
int objective_sft(struct trainer *trainer, const struct dataset *data, const struct sft_config *config,
                  const struct objective *objective, struct sft_result *ret, struct error *error);

/* ---- prm: soft-label cross-entropy of progress, balanced over success and failure, judged on episodes held out ------ */
struct prm_judgement {          /* AUCs: means over the tasks that have both successes and failures held out */
    /* success against failure after 25, 50, 75 % of the median success length */
    double auc_quarter, auc_mid, auc_three_quarters;
    double auc_last;            /* at each episode's last frame */
    double time_correlation;    /* rank correlation with time on successes */
    double bce;                 /* over all frames, minus the labels' own entropy */
    double calibration;         /* |mean score - mean label| in ten bins of the score, weighed by their frames */
    double success_last, failure_last;  /* mean score of the last frame */
    int episodes, successes, tasks;
};
struct prm_result {
    double first_loss, last_loss;       /* minus the labels' own entropy */
    int64_t updates, skipped;
    struct prm_judgement prm, blind;    /* blind: the same model on blank pictures */
    struct prm_judgement clock;         /* a clock instead of a model: score = steps played / limit */
    bool gate_passed;
    char gate_text[240];
};
int objective_prm(struct trainer *trainer, const struct dataset *data, const struct prm_config *config,
                  const struct objective *objective, struct prm_result *ret, struct error *error);
/* Score the frames a judgement needs (a step that was not drawn has the score of the last one that was) and compute it; `blank`:
 * see pass_reward. episodes[n]: indices into the data set. */
int prm_judge(const struct openvla *model, struct shards *shards, const struct dataset *data, enum label_mode labels,
              const int *episodes, int n, const uint8_t *blank, struct prm_judgement *ret);
int prm_judge_clock(const struct dataset *data, enum label_mode labels, const int *episodes, int n, struct prm_judgement *ret);
/* From scores that are there: of all frames of all these episodes, one after the other, each in 0..1. -EDOM: one is not. */
int prm_judge_scores(const struct dataset *data, enum label_mode labels, const int *episodes, int n, const float *score,
                     struct prm_judgement *ret);

/* ---- ppo ------------------------------------------------------------------------------------------------ */
struct ppo_result {
    int episodes, steps, filtered;      /* filtered: episodes that carried no gradient (groups without spread) */
    double success, length, reward;     /* means per episode; reward as trained on, undiscounted */
    double policy_loss, value_loss, kl_loss, loss;      /* means over the updates; value_loss: of the last epoch, or update */
    double ratio_mean, ratio_max, clip_fraction, approx_kl, ref_kl, entropy;    /* both KL: per action */
    double importance_mean;             /* of the staleness weights; 1: nothing was stale */
    double other_ids;                   /* share of the tokens that are no action ids, or no end where one is due (support
                                         * full) */
    double explained_variance, gradient_norm, value_gradient_norm, lr, w_progress;
    double logp_gap_mean, logp_gap_p99, logp_gap_max;   /* |learner - actor| per token before the first update, ... */
    int64_t logp_gap_tokens;            /* ... over so many: the first minibatch's, and those asked about before */
    int64_t updates, value_updates, skipped;
    bool braked, warmup;
};
/* reference: the policy the stage started from, packed; NULL only with kl none. The trainer's own model stands for its base, the
 * adapters left out: no second model is needed. */
int objective_ppo(struct trainer *trainer, const struct openvla *reference, const struct dataset *data,
                  const struct rl_config *config, const struct objective *objective, struct ppo_result *ret, struct error *error);

/* As members of a JSON object `{...}`: Committed.metrics. */
void sft_result_write(const struct sft_result *result, struct strbuf *out);
void prm_result_write(const struct prm_result *result, struct strbuf *out);
void ppo_result_write(const struct ppo_result *result, struct strbuf *out);
