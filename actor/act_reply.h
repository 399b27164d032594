/* act_reply.h - what a policy answered as an ActReply: tokens, log-probs and value as they came, actions in the environment's
 * units (un-normalised by the policy's own statistics, the gripper by its rule). */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "nn/models/openvla_oft.h"

struct act_answer {
    int actions;                /* 0: a value alone */
    bool ended;                 /* actions is 1, and an end token stands behind its own */
    const int32_t *tokens;      /* (actions, dims), with ended one more */
    const float *logp;          /* as many */
    const double *normalised;   /* (actions, dims) */
    float value, entropy, confidence;
    const float *hidden;        /* (config.hidden), or NULL: not wanted */
};

/* number: of the policy version. NULL: out of memory. The caller frees. */
ProtobufCMessage *act_reply(const struct openvla *model, uint64_t number, const struct act_answer *answer);
