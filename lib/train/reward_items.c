#include "train/reward_items.h"

#include <errno.h>
#include <string.h>

/* Prompts of one episode's frames at[0..n). */
static int make_run(const struct dataset *data, const struct step_ref *at, int n, const uint8_t *blank, struct qwen_prompts *ret)
{
    const struct train_episode *e = &data->list[at[0].episode];
    const int frames = dataset_observed_count(e);
    const size_t dims = (size_t)data->action_dims;
    _cleanup_free_ uint32_t *asked = calloc((size_t)n, sizeof *asked), *step = calloc((size_t)frames, sizeof *step);
    _cleanup_free_ float *action = calloc((size_t)frames * dims, sizeof *action);
    struct qwen_episode episode = {
        .instruction = data->prompts[e->prompt].instruction,
        .frames = e->frames,
        .n = frames,
        .height = data->picture_height,
        .width = data->picture_width,
        .cameras = data->cameras,
        .step = step,
        .action = action,
        .dims = data->action_dims,
        .blank = blank,
    };

    if (!asked || !step || !action)
        return -ENOMEM;
    for (int i = 0; i < frames; i++) {
        step[i] = (uint32_t)dataset_observed(e, i);
        if (i + 1 < frames)
            memcpy(action + (size_t)i * dims, e->action + step[i] * dims, dims * sizeof *action);
    }
    for (int i = 0; i < n; i++)
        asked[i] = (uint32_t)dataset_frame_number(e, at[i].step);
    return qwen_prompts_make(data->reward, &episode, asked, n, ret, NULL);
}

int reward_items_make(const struct dataset *data, const struct step_ref *at, int n, const uint8_t *blank,
                      struct reward_items *ret)
{
    _cleanup_(reward_items_release) struct reward_items items = {.n = n};
    int last, r;

    items.items = calloc((size_t)MAX(n, 1), sizeof *items.items);
    items.owned = calloc((size_t)MAX(n, 1), sizeof *items.owned);
    if (!items.items || !items.owned)
        return -ENOMEM;
    for (int first = 0; first < n; first = last) {
        struct qwen_prompts *prompts = &items.owned[items.n_owned++];

        for (last = first; last < n && at[last].episode == at[first].episode; last++)
            ;
        r = make_run(data, at + first, last - first, blank, prompts);
        if (r < 0)
            return r;
        memcpy(items.items + first, prompts->items, (size_t)(last - first) * sizeof *items.items);
    }
    *ret = TAKE_STRUCT(items);
    return 0;
}

void reward_items_release(struct reward_items *items)
{
    for (int i = 0; i < items->n_owned; i++)
        qwen_prompts_release(&items->owned[i]);
    free(items->owned);
    free(items->items);
    *items = (struct reward_items) {0};
}

int reward_items_logits(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n,
                        struct tensor **ret_logit)
{
    bool training = tape->training;
    struct qwen_pass pass;
    struct tensor *logit;
    int r;

    tape->training = training && model->adapters;
    r = qwen_vl_forward(model, tape, items, n, &pass);
    tape->training = training;
    if (r < 0)
        return r;
    logit = qwen_vl_reward(model, tape, pass.last);
    if (!logit)
        return tape->error ? tape->error : -ENOMEM;
    *ret_logit = logit;
    return 0;
}
