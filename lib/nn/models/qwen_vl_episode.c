#include "nn/models/qwen_vl_episode.h"

#include <errno.h>
#include <string.h>

#include "image/image.h"

struct making {
    const struct qwen_vl *model;
    const struct qwen_episode *episode;
    struct qwen_prompts *prompts;
    int height, width, tokens;      /* of a resized frame */
    struct error *error;
};

static int step_of(const struct qwen_episode *e, int image)
{
    return e->step ? (int)e->step[image] : image;
}

int qwen_episode_check(const struct qwen_vl *model, const struct qwen_episode *e, struct error *error)
{
    int height, width, tokens, r = qwen_vl_picture_size(&model->config, e->height, e->width, &height, &width, &tokens, error);

    for (int i = 1; r >= 0 && i < e->n; i++)
        if (step_of(e, i) <= step_of(e, i - 1))
            r = error_set(error, EINVAL, "image %d is frame %d of the episode, the one before it is frame %d", i, step_of(e, i),
                          step_of(e, i - 1));
    return r;
}

static int resized(struct making *m, int image, const uint8_t **ret)
{
    const struct qwen_episode *e = m->episode;
    size_t picture = (size_t)e->height * (size_t)e->width * 3;
    const uint8_t *frame = e->blank ? e->blank : e->frames + (size_t)image * (size_t)MAX(e->cameras, 1) * picture;
    uint8_t **slot = &m->prompts->resized[e->blank ? 0 : image];

    *ret = frame;
    if (m->height == e->height && m->width == e->width)
        return 0;
    if (!*slot) {
        *slot = malloc((size_t)m->height * (size_t)m->width * 3);
        if (!*slot || image_resize_bicubic(frame, e->height, e->width, m->height, m->width, *slot) < 0)
            return error_set(m->error, ENOMEM, "out of memory");
    }
    *ret = *slot;
    return 0;
}

/* Images before `at` that are shown. Returns how many. */
static int choose_past(const struct making *m, int at, int *ret_image)
{
    const struct qwen_episode *e = m->episode;
    int frames[QWEN_MAX_PICTURES], n = 0, image = 0;
    int kept = qwen_vl_kept_frames(step_of(e, at), MIN(m->model->history, QWEN_MAX_PICTURES - 2), 1, true, frames);

    for (int i = 0; i < kept; i++) {
        while (image < at && step_of(e, image) < frames[i])
            image++;
        if (image < at && step_of(e, image) == frames[i])
            ret_image[n++] = image;
    }
    return n;
}

static int make_item(struct making *m, int at, int number)
{
    const struct qwen_episode *e = m->episode;
    struct qwen_item *item = &m->prompts->items[number];
    struct qwen_step past[QWEN_MAX_PICTURES];
    int image[QWEN_MAX_PICTURES], tokens[QWEN_MAX_PICTURES], n = choose_past(m, at, image), r;
    _cleanup_free_ char *text = NULL;
    size_t length;

    if (n && (!e->action || e->dims < 1))
        return error_set(m->error, EINVAL, "the actions played are not known, and the reward model's prompt tells them");
    for (int i = 0; i < n; i++)
        past[i] = (struct qwen_step) {.frame = step_of(e, image[i]), .action = e->action + (size_t)image[i] * (size_t)e->dims,
                                      .dims = e->dims};
    image[n] = at;
    item->n_pictures = n + 1;
    for (int i = 0; i <= n; i++) {
        item->pictures[i] = (struct qwen_picture) {.height = m->height, .width = m->width};
        tokens[i] = m->tokens;
        r = resized(m, image[i], &item->pictures[i].rgb);
        if (r < 0)
            return r;
    }
    r = qwen_vl_prompt_text(e->instruction, past, n, &text, &length);
    if (r >= 0)
        r = qwen_vl_prompt_ids(m->model, text, length, tokens, n + 1, &m->prompts->ids[number], &item->n_ids);
    item->ids = m->prompts->ids[number];
    if (r == -E2BIG)
        return error_set(m->error, E2BIG, "a prompt of %d pictures of %dx%d (%d tokens each) is longer than the context of %d",
                         n + 1, m->width, m->height, m->tokens, m->model->config.max_positions);
    return r < 0 ? error_set(m->error, -r, "the instruction cannot be a prompt: %.80s", e->instruction) : 0;
}

int qwen_prompts_make(const struct qwen_vl *model, const struct qwen_episode *e, const uint32_t *at, int n,
                      struct qwen_prompts *ret, struct error *error)
{
    _cleanup_(qwen_prompts_release) struct qwen_prompts prompts = {.n = n, .n_frames = MAX(e->n, 1)};
    struct making m = {.model = model, .episode = e, .prompts = &prompts, .error = error};
    int r = qwen_vl_picture_size(&model->config, e->height, e->width, &m.height, &m.width, &m.tokens, error);

    if (r < 0)
        return r;
    prompts.items = calloc((size_t)MAX(n, 1), sizeof(*prompts.items));
    prompts.ids = calloc((size_t)MAX(n, 1), sizeof(*prompts.ids));
    prompts.resized = calloc((size_t)prompts.n_frames, sizeof(*prompts.resized));
    if (!prompts.items || !prompts.ids || !prompts.resized)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < n; i++) {
        r = make_item(&m, (int)at[i], i);
        if (r < 0)
            return r;
    }
    *ret = TAKE_STRUCT(prompts);
    return 0;
}

void qwen_prompts_release(struct qwen_prompts *prompts)
{
    for (int i = 0; prompts->ids && i < prompts->n; i++)
        free(prompts->ids[i]);
    for (int i = 0; prompts->resized && i < prompts->n_frames; i++)
        free(prompts->resized[i]);
    free(prompts->items);
    free(prompts->ids);
    free(prompts->resized);
    *prompts = (struct qwen_prompts) {0};
}
