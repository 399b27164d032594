#include "actor/act_reply.h"

#include <math.h>

#include "base/fault.h"
#include "proto/policy.pb-c.h"

static int make_arrays(Gantry__ActReply *reply, size_t n_tokens, size_t n_actions, size_t n_hidden)
{
    reply->tokens = malloc(n_tokens * sizeof *reply->tokens);
    reply->logp = malloc(n_tokens * sizeof *reply->logp);
    reply->action = malloc(n_actions * sizeof *reply->action);
    reply->hidden = n_hidden ? malloc(n_hidden * sizeof *reply->hidden) : NULL;
    if (!reply->tokens || !reply->logp || !reply->action || (n_hidden && !reply->hidden))
        return -1;
    reply->n_tokens = reply->n_logp = n_tokens;
    reply->n_action = n_actions;
    reply->n_hidden = n_hidden;
    return 0;
}

/* One action in the environment's units. */
static void to_environment(const struct openvla *model, const double *normalised, float *ret)
{
    double action[OPENVLA_MAX_ACTION_DIMS];

    openvla_to_environment(model, normalised, action);
    for (int k = 0; k < model->config.action_dims; k++)
        ret[k] = (float)action[k];
}

ProtobufCMessage *act_reply(const struct openvla *model, uint64_t number, const struct act_answer *answer)
{
    const struct openvla_config *config = &model->config;
    Gantry__ActReply *reply = malloc(sizeof *reply);
    size_t n = (size_t)answer->actions * (size_t)config->action_dims, n_tokens = n ? n + answer->ended : 0;

    if (!reply)
        return NULL;
    gantry__act_reply__init(reply);
    reply->value = answer->value;
    reply->entropy = answer->entropy;
    reply->confidence = answer->confidence;
    reply->policy_version = number;
    if (!n)
        return &reply->base;
    if (make_arrays(reply, n_tokens, n, answer->hidden ? (size_t)config->hidden : 0) < 0) {
        protobuf_c_message_free_unpacked(&reply->base, NULL);
        return NULL;
    }
    if (answer->hidden)
        memcpy(reply->hidden, answer->hidden, reply->n_hidden * sizeof *reply->hidden);
    reply->chunk = answer->actions > 1 ? (uint32_t)answer->actions : 0;
    for (size_t k = 0; k < n_tokens; k++) {
        reply->tokens[k] = (uint32_t)answer->tokens[k];
        reply->logp[k] = answer->logp[k];
    }
    for (int i = 0; i < answer->actions; i++)
        to_environment(model, answer->normalised + i * config->action_dims, reply->action + i * config->action_dims);
    switch (fault_point("act.reply")) {
    case FAULT_NAN: reply->action[0] = NAN; break;
    case FAULT_SHORT: reply->n_action /= 2; break;
    case FAULT_WRONG: reply->logp[n_tokens - 1] = 2; break;
    default: break;
    }
    return &reply->base;
}
