/* passes.h - what a model says of recorded steps, without training: hidden states, log-probs, rewards. All threads, any batch. */
#pragma once

#include "train/sample.h"
#include "train/shards.h"

/* Sequences a tape holds at once, so that they stay in the caches; any number gives the same bits. */
enum { PASS_CHUNK = 8 };

struct policy_pass {            /* outputs; NULL: not wanted */
    float *hidden;              /* (n, hidden) state that predicts the first action token: the value head's input */
    float *logp;                /* (n, data->width) of the recorded tokens */
    float *log_probs;           /* (n, data->width, policy_ref_width) whole distributions: a reference for exact KL */
    bool plain;                 /* input: the model's adapters are left out */
};

/* The model must be packed, where the shards compute: else -EXDEV, though a model whose matrices rest as bf16 on the host, too,
 * could be passed through there, in other numbers. temperature: that of the distribution the tokens were sampled from. */
int pass_policy(const struct openvla *model, struct shards *shards, const struct dataset *data, const struct step_ref *steps,
                int n, double temperature, const struct policy_pass *out);

/* Progress in (0,1) after seeing frame `step` of each (step may be T). blank: instead of all pictures, or NULL. model: NULL when
 * the data set is a reward model's own (data->reward), which then judges. */
int pass_reward(const struct openvla *model, struct shards *shards, const struct dataset *data, const struct step_ref *frames,
                int n, const uint8_t *blank, float *ret_progress);

/* For objectives: rows first..first+K-1 (+ `extra` more) of each sequence's hidden states -> (n*(K+extra), hidden). */
struct tensor *gather_action_rows(struct tape *tape, const struct openvla_pass *pass, int n, int rows);
