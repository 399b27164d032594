#include "learner/admission.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/episode.h"
#include "learner/episode_input.h"
#include "run/trajectory.h"

#define MAX_ACTION 1e6f             /* what a reward model reads (train/sample_check.c) */
enum { MAX_STEPS = 100000, MAX_SIDE = 4096, MAX_DIMS = 1024, MAX_CAMERAS = 8 };

/* NaN is none. */
static bool all_within(const float *x, size_t n, float limit)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= limit))
            return false;
    return true;
}

/* By its policy's update, or as what the reward model or imitation learn from: not only counted. */
static bool is_learned_from(const Gantry__Trajectory *t)
{
    return t->purpose == GANTRY__PURPOSE__PURPOSE_DEMO || t->purpose == GANTRY__PURPOSE__PURPOSE_ROLLOUT ||
           t->purpose == GANTRY__PURPOSE__PURPOSE_TRAIN;
}

/* What the lease named is what answered, at each step (promise 6). */
static bool is_of_one_version(const Gantry__Trajectory *t)
{
    for (size_t i = 0; i < t->n_step_version; i++)
        if (t->step_version[i] != t->policy_version)
            return false;
    return !t->n_step_version || t->n_step_version == t->steps;
}

/* Its numbers: as many as its steps ask for, and numbers. */
static const char *check_numbers(const Gantry__Trajectory *t)
{
    size_t steps = t->steps, actions = steps * t->action_dims;
    bool demo = t->purpose == GANTRY__PURPOSE__PURPOSE_DEMO;

    if (t->n_progress && t->n_progress != steps + 1)
        return "progress must have steps + 1 entries, or none";
    if (t->n_env_reward && t->n_env_reward != steps)
        return "env_reward must have one entry for each step, or none";
    if (t->n_value && t->n_value != steps)
        return "value must have one entry for each step, or none";
    if (t->action_dims < 1 || t->action_dims > MAX_DIMS || t->n_action != actions || (t->n_label && t->n_label != actions))
        return "actions or labels are not steps x action_dims";
    if (t->n_state % (steps + 1) || t->n_state > (steps + 1) * MAX_DIMS)
        return "the robot's state is not equally many numbers for each of steps + 1 observations, or too many";
    if (!all_within(t->state, t->n_state, FLT_MAX))
        return "a number of the robot's state is not finite";
    if (t->n_tokens != t->n_logp)
        return "tokens and log-probabilities differ in number";
    if (t->n_tokens % steps || (is_learned_from(t) && !demo && !t->n_tokens))   /* a demonstrator has none, also when it is evaluated */
        return "tokens are missing, or not the same number in each step";
    if (t->n_hidden % steps || t->n_turn_hidden % MAX(t->n_turns, (size_t)1))
        return "hidden states are not equally many numbers for each answer";
    if (!all_within(t->hidden, t->n_hidden, FLT_MAX) || !all_within(t->turn_hidden, t->n_turn_hidden, FLT_MAX))
        return "a hidden state is not finite";
    if (!all_within(t->progress, t->n_progress, FLT_MAX) || !all_within(t->env_reward, t->n_env_reward, FLT_MAX))
        return "a progress score or reward is not finite";
    if (!all_within(t->logp, t->n_logp, FLT_MAX) || !all_within(t->value, t->n_value, FLT_MAX))
        return "a log-probability or value is not finite";
    if (!all_within(t->action, t->n_action, MAX_ACTION) || !all_within(t->label, t->n_label, MAX_ACTION))
        return "an action or label is not finite, or beyond 1e6";
    return NULL;
}

static const char *check_shape(const Gantry__Trajectory *t, size_t n_frames)
{
    const char *problem;

    if (t->steps < 1 || t->steps > MAX_STEPS || t->height < 1 || t->height > MAX_SIDE || t->width < 1 || t->width > MAX_SIDE ||
        t->images > MAX_CAMERAS)
        return "steps, height, width or images are out of range";
    if (t->max_steps && (t->max_steps < t->steps || t->max_steps > INT32_MAX))
        return "it has more steps than its limit, or a limit that is none";
    problem = episode_check_observed(t->observed, t->n_observed, t->turns, t->n_turns, t->steps);
    if (problem)
        return problem;
    if (!is_of_one_version(t))
        return "step_version is not the episode's policy version at each of its steps";
    if (n_frames != trajectory_observed(t) * MAX(t->images, 1u) * t->height * t->width * 3)
        return "the pictures are not (steps + 1, or as many as were drawn) x images x height x width x 3 bytes";
    return check_numbers(t);
}

/* As the run has it: of a worker that is configured otherwise it would be found out only when the iteration is trained on. */
static const char *check_run(const struct run_config *run, const Gantry__Trajectory *t)
{
    const char *chain = t->image_chain && t->image_chain[0] ? t->image_chain : IMAGE_CHAIN_RENDER;

    if (t->height != (uint32_t)run->image || t->width != (uint32_t)run->image)
        return "its pictures are of another size than the run's (suite.image)";
    if (MAX(t->images, 1u) != (uint32_t)run->cameras)
        return "its observations have another number of pictures than the run's (suite.cameras)";
    if (strcmp(chain, run->chain) != 0)
        return "its pictures are made otherwise than the run's (suite.chain)";
    if (t->n_tokens && is_learned_from(t) && t->full_support != !strcmp(run->policy_support, "full"))
        return "its tokens are over another support than the run's (policy.support)";
    return NULL;
}

/* What PPO asks beyond what everybody asks. */
static const char *check_rl(const struct rl_config *rl, const Gantry__Trajectory *t)
{
    if (t->purpose != GANTRY__PURPOSE__PURPOSE_TRAIN)
        return NULL;
    if (!(fabs((double)t->temperature - rl->temperature) <= 1e-6))
        return "it was not sampled at the stage's temperature";
    if ((rl_is_scored(rl) || (rl_has_critic(rl) && rl->critic_prm)) && !t->n_progress)
        return "it has no progress scores, and its stage's reward or critic wants them";
    return NULL;
}

static int check_policy(const struct admission *terms, const Gantry__Trajectory *t, size_t n_frames, struct error *error)
{
    struct episode_input in = episode_input_of(t, NULL, n_frames);
    _cleanup_free_ int32_t *ids = NULL;
    int n, r;

    if (t->action_dims != (uint32_t)terms->policy->config.action_dims)
        return error_set(error, EINVAL, "its actions have %u numbers, the policy's %d", t->action_dims, terms->policy->config.action_dims);
    r = episode_check(&terms->policy->config, &in, error);
    if (r < 0)
        return r;
    r = openvla_prompt(terms->policy, t->instruction, &ids, &n);
    if (r < 0)
        return openvla_prompt_failed(terms->policy, r, error) < 0 ? -EINVAL : 0;
    r = episode_check_answers(&terms->policy->config, terms->run && terms->run->policy_eos_in_logp, &in, error);
    return r < 0 ? -EBADMSG : 0;
}

int admission_check(const struct admission *terms, const Gantry__Trajectory *t, size_t n_frames, struct error *error)
{
    const char *problem = check_shape(t, n_frames);

    if (!problem && terms->run)
        problem = check_run(terms->run, t);
    if (!problem && terms->rl)
        problem = check_rl(terms->rl, t);
    if (problem)
        return error_set(error, EINVAL, "%s", problem);
    return terms->policy && is_learned_from(t) ? check_policy(terms, t, n_frames, error) : 0;
}
