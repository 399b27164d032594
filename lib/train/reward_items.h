/* reward_items.h - frames of a data set as prompts of a Qwen-VL reward model, and the pass that judges them. */
#pragma once

#include "nn/models/qwen_vl_episode.h"
#include "train/sample.h"

struct reward_items {
    struct qwen_item *items; int n;     /* in the order asked for */
    struct qwen_prompts *owned; int n_owned;
};

/* Frames may be of different episodes; neighbours of one share its pictures. blank (a picture or NULL) replaces them all.
 * -EINVAL, -E2BIG, -ENOMEM. */
int reward_items_make(const struct dataset *data, const struct step_ref *at, int n, const uint8_t *blank,
                      struct reward_items *ret);
void reward_items_release(struct reward_items *items);

/* Logits of the head, (n, 1), on a tape. On a training tape: without adapters nothing goes back beyond the head, and the backbone
 * leaves nothing to go back by. */
int reward_items_logits(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n,
                        struct tensor **ret_logit);
