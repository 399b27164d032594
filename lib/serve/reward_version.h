/* reward_version.h - a reward model's version as it is served: the policy's trunk with a reward head, or a backbone of its own
 * (Qwen-VL). One of the two is there. Manifest checked, weights read and packed, tried out on a grey episode. */
#pragma once

#include "nn/models/qwen_vl_episode.h"
#include "serve/policy_version.h"

struct reward_version {
    struct policy_version *trunk;
    struct qwen_vl *backbone;
};

/* -EBADMSG: manifest or weights are not what was announced; -EINVAL: no reward model, or its probe gave numbers that are not
 * finite. */
int reward_version_load(const char *dir, const uint8_t digest[32], bool fast, struct reward_version **ret, struct error *error);
struct reward_version *reward_version_free(struct reward_version *version);
DEFINE_FREEP(struct reward_version, reward_version_free)
