#include "learner/episode_input.h"

struct episode_input episode_input_of(const Gantry__Trajectory *t, uint8_t *frames, size_t n_frames)
{
    return (struct episode_input) {
        .id = t->episode, .task = t->task, .instruction = t->instruction, .state_seed = t->state_seed, .steps = (int)t->steps,
        .max_steps = (int)(t->max_steps ? t->max_steps : t->steps), .success = t->success,
        .demo = t->purpose == GANTRY__PURPOSE__PURPOSE_DEMO,
        .policy_version = t->policy_version,
        .temperature = (double)t->temperature, .height = (int)t->height, .width = (int)t->width,
        .images = (int)MAX(t->images, 1u), .state = t->state, .n_state = t->n_state,
        .action_dims = (int)t->action_dims,
        .action = t->action, .n_action = t->n_action,
        .image_chain = t->image_chain, .full = t->full_support, .ended = t->end_token,
        .label_units = t->label_units, .label = t->n_label ? t->label : t->action,
        .n_label = t->n_label ? t->n_label : t->n_action,
        .tokens = t->tokens, .n_tokens = t->n_tokens, .logp = t->logp, .n_logp = t->n_logp,
        .hidden = t->n_turns ? t->turn_hidden : t->hidden, .n_hidden = t->n_turns ? t->n_turn_hidden : t->n_hidden,
        .turns = t->turns, .n_turns = t->n_turns,
        .observed = t->observed, .n_observed = t->n_observed,
        .progress = t->progress, .n_progress = t->n_progress,
        .env_reward = t->env_reward, .n_env_reward = t->n_env_reward, .frames = frames, .n_frames = n_frames,
    };
}
