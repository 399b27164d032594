/* sample.h - what the learner trains on: episodes in memory, checked, with prompts and action ids ready for the model.
 *
 *   dataset_new(model) -> dataset_add* -> dataset_sort -> objective_sft | objective_prm | objective_ppo -> dataset_free
 *
 * dataset_add refuses what a loss could not digest (wrong sizes, NaN, ids that are no actions) with a line naming the episode;
 * after it, objectives trust what they read. Numbers come as in a Trajectory; nothing here knows protobuf.
 * Thread rule: built by one thread, read by any. */
#pragma once

#include "nn/models/openvla.h"
#include "nn/models/qwen_vl.h"

#define IMAGE_CHAIN_RENDER "render"     /* as the simulator draws them */

struct episode_input {          /* borrowed for the call, frames excepted */
    uint64_t id;
    const char *task, *instruction;
    uint64_t state_seed;
    int steps, max_steps;       /* T; the episode limit */
    bool success, demo;         /* demo: played by a demonstrator, not by a policy */
    uint64_t policy_version;
    double temperature;
    int height, width, action_dims;
    int images;                 /* pictures of each observation, at least 1 */
    const float *state; size_t n_state;         /* (T+1,S) the robot's own numbers in its units, or none */
    const char *image_chain;    /* how its pictures were made (openvla.h); NULL or "": IMAGE_CHAIN_RENDER */
    const float *label; size_t n_label;         /* (T,A) actions to imitate, as the suite takes them; demos only */
    bool label_units;                           /* label is in the data's own units: the policy's statistics normalise it */
    const float *action; size_t n_action;       /* (T,A) normalised, as executed: what a reward model of its own backbone is
                                                 * told, and milestones are found in; or none */
    const uint32_t *tokens; size_t n_tokens;    /* (T,K) what a policy sampled */
    const float *logp; size_t n_logp;           /* (T,K) */
    bool full;                  /* they are of the whole vocabulary, not of the action ids */
    bool ended;                 /* K is one more than the action's numbers: an end token was sampled behind them */
    const float *hidden; size_t n_hidden;       /* (decisions,hidden) as the actor said it, or none */
    const uint32_t *turns; size_t n_turns;      /* steps at which the policy was asked; none: at every step */
    const uint32_t *observed; size_t n_observed;        /* steps whose observations were drawn, ascending; none: every one */
    const float *progress; size_t n_progress;   /* (T+1), or none */
    const float *env_reward; size_t n_env_reward;       /* (T), or none */
    uint8_t *frames; size_t n_frames;           /* (T+1 or n_observed,images,H,W,3), from malloc: the data set's after success */
};

/* Can a policy of this shape be trained on it, whatever else is in the data set? What dataset_add asks first: of what was seen and
 * done (the frames themselves are not read), and of what policy and reward model said. ends: policy.eos_in_logp. -EINVAL with a
 * line naming episode and field. */
int episode_check(const struct openvla_config *policy, const struct episode_input *in, struct error *error);
int episode_check_answers(const struct openvla_config *policy, bool ends, const struct episode_input *in, struct error *error);

struct train_episode {
    uint64_t id, state_seed, policy_version;
    int task, prompt;           /* index of task name and of instruction in the data set */
    int steps, max_steps;
    bool success, demo;
    double temperature;
    uint8_t *frames;            /* (T+1 or n_observed, cameras, H*W*3) */
    int *observed; int n_observed;      /* steps whose observations those are: the decisions', 0 and T; NULL: every one */
    float *state;               /* (T+1, proprio) as the policy takes it; NULL: it takes none */
    int32_t *tokens;            /* (T,K) ids, a demonstration's end token among them if the data set has those (OFT_L1,
                                 * OFT_LAPLACE: bits of floats): what acted; of a demonstration: what to imitate */
    float *label;               /* (T,K) of a demonstration: the same as the policy's numbers in [-1,1] */
    int *turns; int n_turns;    /* steps at which the policy was asked; NULL: at every step */
    float *logp;                /* (T,K); NULL for demonstrations */
    float *hidden;              /* (decisions,hidden) states that predicted the first tokens; NULL: not recorded */
    float *progress;            /* (T+1); NULL: not scored */
    float *env_reward;          /* (T); NULL: the environment pays for success alone */
    float *action;              /* (T,A) normalised, as executed; NULL: not told */
};

struct dataset_prompt {
    char *instruction;
    int32_t *ids; int n;                        /* policy prompt */
    int32_t *reward_ids; int n_reward;          /* reward model's prompt */
};

struct dataset {
    const struct openvla *model;        /* for tokenizer and codec; borrowed. NULL: */
    const struct qwen_vl *reward;       /* whose episodes these are: frames and actions only; borrowed */
    int picture_height, picture_width;
    struct train_episode *list; int n, capacity;
    struct dataset_prompt *prompts; int n_prompts;
    char **tasks; int n_tasks;
    size_t frame_size;                  /* bytes of a picture */
    int cameras;                        /* pictures of an observation in `frames`, of which a model looks at the first ones */
    int images;                         /* ... so many: what the policy takes; a reward model looks at one */
    char image_chain[64];               /* of all episodes; "": none yet */
    int action_dims;                    /* numbers of one action */
    int token_dims;                     /* K: its tokens; one more where an end token counts */
    bool full;                          /* support of the recorded tokens: the vocabulary, or the action ids; ... */
    bool drawn;                         /* ... there are some: an episode that is no demonstration */
    int64_t labels, outside;            /* numbers given in units, and how many of them were outside the statistics' range */
    int width;                          /* most tokens that one answer of the policy has: K, or those of a chunk */
};

int dataset_new(const struct openvla *model, struct dataset **ret);
/* For a reward model with a backbone of its own: pictures of any one size it takes, no tokens. */
int dataset_new_reward(const struct qwen_vl *reward, struct dataset **ret);
struct dataset *dataset_free(struct dataset *data);
DEFINE_FREEP(struct dataset, dataset_free)

/* policy.eos_in_logp: recorded episodes have an end token behind each action, which counts. Before the first is added. -EINVAL:
 * the policy answers whole chunks and says none. */
int dataset_expect_end(struct dataset *data, struct error *error);
/* -EINVAL with a line naming episode and field; -EEXIST: it is there already; -ENOMEM. On failure the frames stay the
 * caller's. */
int dataset_add(struct dataset *data, const struct episode_input *in, struct error *error);
/* Episode-id order: everything that is summed or shuffled starts from it. Also sorts tasks, so that arrival order leaves no
 * trace. */
void dataset_sort(struct dataset *data);

struct step_ref { int episode, step; };         /* index into dataset->list; frame o_step */
/* All steps, if their observations were drawn, of the episodes for which `want` says yes (NULL: all), in order; caller frees. */
int dataset_steps(const struct dataset *data, bool (*want)(const struct train_episode *episode, const void *arg), const void *arg,
                  struct step_ref **ret, int *ret_n);

/* What one decision of the policy is made of: all steps at which it was asked, of all episodes, in order. Caller frees. */
int dataset_decisions(const struct dataset *data, struct step_ref **ret, int *ret_n);
int dataset_decision_count(const struct train_episode *episode);
/* Actions executed on the decision at `at`: 1, or of a chunk up to the next decision or the episode's end. */
int dataset_executed(const struct dataset *data, struct step_ref at);

/* What was last seen at a step: the first camera's picture, the others' follow. It is o_step itself where every observation was
 * drawn, and at decisions. */
const uint8_t *dataset_frame(const struct dataset *data, struct step_ref at);
/* How many of an episode's observations were drawn, and the i-th of those steps, ascending: 0 first, T last. */
int dataset_observed_count(const struct train_episode *episode);
int dataset_observed(const struct train_episode *episode, int i);
/* Which of them was the last seen at a step. */
int dataset_frame_number(const struct train_episode *episode, int step);
bool dataset_is_observed(const struct dataset *data, struct step_ref at);
/* The policy's input at a step with its first n_actions tokens fed back; of an OpenVLA-OFT with all its slots instead. */
struct openvla_item dataset_policy_item(const struct dataset *data, struct step_ref at, int n_actions);
/* The reward model's input after seeing o_0..o_step: first picture, as many before the current one as its history says, current
 * picture. blank (a picture or NULL) replaces all of them. */
struct openvla_item dataset_reward_item(const struct dataset *data, struct step_ref at, const uint8_t *blank);

/* A permutation of 0..n-1 under (seed, round): how minibatches are drawn. */
void shuffled(int *ret_order, int n, uint64_t seed, uint64_t round, uint32_t use);
