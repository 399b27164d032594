/* train_lab.h - a model a few thousand numbers wide and episodes it has played itself, for tests of lib/train. Failures end the
 * test. */
#pragma once

#include "train/objective.h"

#define LAB_NANO "tests/golden/nano"
enum { LAB_SIDE = 64, LAB_FRAME = LAB_SIDE * LAB_SIDE * 3, LAB_DIMS = 7, LAB_EPISODES = 10, LAB_MAX_STEPS = 8,
       LAB_MAX_HIDDEN = 256 };

extern bool lab_full_support;           /* what rollouts sample from; false at first */
extern bool lab_end_token;              /* and one more behind each action, which counts; false at first */
extern bool lab_fast;                   /* numerics of all that follows; false at first */

struct openvla *lab_model(uint64_t seed);
struct openvla *lab_packed_clone(const struct openvla *model);
struct trainer *lab_trainer(struct openvla *model, int threads);        /* the model is the trainer's */

/* On this device, NULL: the CPU; the model is the trainer's. */
struct trainer *lab_trainer_on(struct openvla *model, struct device *device, const struct group *group);
/* An sft plan on this data, which is the trainer's model's from now on. */
struct sft_result lab_imitate(struct trainer *trainer, struct dataset *data, const struct sft_config *config, uint64_t seed);

uint8_t *lab_noise_frames(uint64_t seed, int n);                        /* (n, LAB_FRAME); caller frees */

/* One episode of at most LAB_MAX_STEPS whose tokens and log-probs are those `model` samples (a rollout, by policy version 3), or
 * a demonstration. Progress after o_t is (t + 1) / 10. */
void lab_add_episode(struct dataset *data, const struct openvla *model, uint64_t id, int steps, bool demo, bool success);
struct dataset *lab_rollouts(const struct openvla *model);              /* LAB_EPISODES of 2 to 6 steps, every third a success;
                                                                         * sorted */
struct dataset *lab_demonstrations(const struct openvla *model, int n); /* of one step each */

/* PPO as the demo has it, and a model with the critic it wants. */
extern const struct rl_config lab_rl;
struct openvla *lab_critic_model(uint64_t seed);
/* One iteration on the trainer, of episodes it has just played; reference is a packed model. The hidden states of every n-th
 * episode are lost. */
struct ppo_result lab_iterate_forgetting(struct trainer *trainer, const struct openvla *reference, const struct rl_config *config,
                                         uint64_t iteration, int every);
struct ppo_result lab_iterate(struct trainer *trainer, const struct openvla *reference, const struct rl_config *config,
                              uint64_t iteration);
void lab_same_bits(struct trainer *a, struct trainer *b);      /* values, moments, statistics of returns, wherever they were
                                                                * computed */

/* A main(): what holds in strict numerics, then, where this CPU has them, what holds in fast ones. */
struct CMUnitTest;
int lab_run_in_both(const struct CMUnitTest *tests, size_t n, const struct CMUnitTest *fast_tests, size_t n_fast);
