/* qwen_vl_episode.h - an episode's frames and actions as the prompts that ask for its progress.
 *
 *   qwen_prompts_make -> qwen_vl_score(prompts.items) | qwen_vl_forward -> qwen_prompts_release
 *
 * Prompt i shows the frames before at[i] that the model keeps (the first and the model->history most recent ones, as far as they
 * are there), each with what was done after it, and at[i] as the current observation. A frame is resized once.
 * Thread rule: none.  Failure rule: -errno, one line. */
#pragma once

#include "nn/models/qwen_vl.h"

struct qwen_episode {               /* borrowed */
    const char *instruction;
    const uint8_t *frames;          /* u8 [n][cameras][height][width][3]; the first camera's picture is shown */
    int n, height, width;
    int cameras;                    /* 0: 1 */
    const uint32_t *step;           /* [n] which frame of the episode each is, ascending; NULL: 0, 1, ... */
    const float *action; int dims;  /* (n-1, dims) executed after each but the last; NULL: not known */
    const uint8_t *blank;           /* shown instead of every frame, or NULL */
};

struct qwen_prompts {
    struct qwen_item *items; int n;
    int32_t **ids;                  /* [n] */
    uint8_t **resized; int n_frames;        /* [n_frames] NULL: not needed, or as it was */
};

/* Does the model take this episode? -EINVAL with the line: pictures too small or too thin, frames out of order. */
int qwen_episode_check(const struct qwen_vl *model, const struct qwen_episode *episode, struct error *error);
/* -EINVAL: see qwen_episode_check; or the past's actions are not known; or the instruction holds picture tokens. -E2BIG: the
 * prompt is longer than the model's context. */
int qwen_prompts_make(const struct qwen_vl *model, const struct qwen_episode *episode, const uint32_t *at, int n,
                      struct qwen_prompts *ret, struct error *error);
void qwen_prompts_release(struct qwen_prompts *prompts);
