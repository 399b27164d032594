#include "prm_server/score_backbone.h"

#include <errno.h>

#include "proto/prm.pb-c.h"

static struct qwen_episode episode_of(const struct message *message)
{
    const Gantry__ScoreRequest *request = (const Gantry__ScoreRequest *)message->body;
    size_t size;

    return (struct qwen_episode) {
        .instruction = request->instruction, .frames = message_part(message, 0, &size), .n = (int)request->images,
        .height = (int)request->height, .width = (int)request->width, .cameras = (int)MAX(request->cameras, 1u),
        .step = request->n_step ? request->step : NULL,
        .action = request->n_action ? request->action : NULL, .dims = (int)request->action_dims,
    };
}

int backbone_check(const struct qwen_vl *model, const struct message *message, struct error *error)
{
    const Gantry__ScoreRequest *request = (const Gantry__ScoreRequest *)message->body;
    struct qwen_episode episode = episode_of(message);

    if (request->n_step && request->n_step != request->images)
        return error_set(error, EINVAL, "%zu steps for %u images", request->n_step, request->images);
    if (request->n_action && (request->action_dims < 1 || request->action_dims > 64 ||
                              request->n_action != (size_t)(request->images - 1) * request->action_dims))
        return error_set(error, EINVAL, "%zu numbers of actions of %u dimensions, want those after %u images", request->n_action,
                         request->action_dims, request->images - 1);
    if (!request->n_action && request->images > 1)
        return error_set(error, EINVAL, "no actions: this reward model's prompt tells what was done");
    for (size_t i = 0; i < request->n_step; i++)
        if (request->step[i] > INT32_MAX)
            return error_set(error, EINVAL, "image %zu is step %u", i, request->step[i]);
    return qwen_episode_check(model, &episode, error);
}

int backbone_score(const struct qwen_vl *model, struct qwen_session **session, const struct message *message, float *ret_progress,
                   struct error *error)
{
    const Gantry__ScoreRequest *request = (const Gantry__ScoreRequest *)message->body;
    _cleanup_(qwen_prompts_release) struct qwen_prompts prompts = {0};
    struct qwen_episode episode = episode_of(message);
    int r = *session ? 0 : qwen_session_new(session);

    if (r >= 0)
        r = qwen_prompts_make(model, &episode, request->at, (int)request->n_at, &prompts, error);
    return r < 0 ? r : qwen_vl_score(model, *session, prompts.items, prompts.n, ret_progress);
}
