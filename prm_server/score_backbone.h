/* score_backbone.h - Score by a reward model with a backbone of its own: a whole episode's past goes into each prompt. */
#pragma once

#include "serve/reward_version.h"
#include "wire/message.h"

/* -EINVAL with a line: pictures the model cannot take, a step or an action missing. */
int backbone_check(const struct qwen_vl *model, const struct message *message, struct error *error);
/* Progress of each frame asked for. *session is made when it is NULL. */
int backbone_score(const struct qwen_vl *model, struct qwen_session **session, const struct message *message, float *ret_progress,
                   struct error *error);
