/* rewards.h - what each step of an episode earns, in six modes (docs/method.md).
 *
 * progress[t] in [0,1] is the reward model's score after seeing o_0..o_t; success is the simulator's
 * predicate. `progress` pays for getting closer and cannot pay for dawdling; `delta` is potential-based and
 * leaves the optimum where it is; `raw` is the plain sum with success absorbing at 1; `raw_literal` is the sum as
 * published, kept because it shows what goes wrong (a policy learns to hover at a high score); `sparse` ignores
 * the scores, and so does `env`, which is there to be read: the environment's own reward joins any mode with
 * w_env. Every mode adds w_success on the last step of a success. Pure functions; no allocation. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/method.h"

struct reward_settings {
    enum reward_mode mode;
    double w_progress, w_success;
    double w_env;               /* of the environment's own reward, in every mode; 0: not looked at */
    double gamma;
    int limit;                  /* H: the task's episode limit in steps; only `raw` looks at it */
};

struct episode_end {
    int steps;                  /* T >= 1: actions taken; frames are o_0 .. o_T */
    bool success;
    const float *env_reward;    /* [T]; NULL: 1 on the last step of a success, as the native suites (and LIBERO) pay */
    bool bootstrap;             /* cut off, not over: the future goes on with V(o_T). false: terminal (success or time-out) */
};

/* ret_reward[T]. progress[T+1], or NULL when the episode was not scored (allowed with `sparse`, `env` or w_progress 0
 * only).
 * -EINVAL: steps < 1, limit < steps under `raw`, a score missing or not in [0,1] (NaN included). */
int rewards_compute(const struct reward_settings *settings, const struct episode_end *end, const float *progress,
                    double *ret_reward);

/* What a decision earns that executed `actions` actions: sum of gamma^j reward[j]. */
double rewards_chunk(const double *reward, int actions, double gamma);

/* w_progress at an iteration when it decays linearly to 0 over `decay` iterations (0: constant). */
double reward_weight_at(double w_progress, int decay, int64_t iteration);
