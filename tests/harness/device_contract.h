/* device_contract.h - the contract between actor and learner (docs/method.md) where both compute on a device: what a policy says
 * of its own tokens when it acts, against what the learner's pass says of the same tokens.
 *
 * The model must be packed for acting there, with a value head that takes the hidden state alone. Items of a call get the prompts
 * of `prompts` in turn, which may differ in length, and pictures of their own. The learner's pass is a training tape's,
 * LEARNER_ROWS sequences at a time. Thread rule: none.  Failure rule: -errno. */
#pragma once

#include "nn/models/openvla.h"

struct contract_prompt { int32_t *ids; int n; };

struct contract_gap {
    double mean, most;          /* |learner's log-probability - actor's| of a token */
    double ratio_mean, ratio_most;      /* of exp(learner - actor): its mean, and the one farthest from 1 */
    double value;               /* the largest |learner's value - actor's| */
    double entropy;             /* of the learner's distributions, their mean */
    int tokens;
};

/* b items at temperature T (not 0) in one call of this session; round: other pictures, other draws. */
int device_contract(const struct openvla *model, struct openvla_session *session, const struct contract_prompt *prompts,
                    int n_prompts, int b, float temperature, int round, struct contract_gap *ret);
/* The same with a learner of other weights: how far apart two versions are. */
int device_contract_between(const struct openvla *actor, const struct openvla *learner, struct openvla_session *session,
                            const struct contract_prompt *prompts,
                            int n_prompts, int b, float temperature, int round, struct contract_gap *ret);
/* What the mean gap of bf16 comes to in a stack of so many layers with random weights, where actor and learner sum in different
 * orders: .67 of what the logits differ by, .0037 sqrt(layers) of their spread (tests/bench/torch_bf16_depth.py). The spread is
 * told from the entropy, as if logits were normally distributed. */
double contract_expected(const struct openvla_config *config, const struct contract_gap *gap);
/* Prompts of some instructions; ret[n]. Frees nothing on failure but what it made. */
int contract_prompts(const struct openvla *model, const char *const *instructions, int n, struct contract_prompt *ret);
void contract_prompts_release(struct contract_prompt *prompts, int n);
