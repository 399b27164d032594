/* qwen_vl_prompt.c - what the reward model is asked: the task, what was seen and done, what is seen now. */
#include <errno.h>
#include <string.h>

#include "base/strbuf.h"
#include "nn/models/qwen_vl_internal.h"
#include "nn/tokenizer.h"

#define PICTURE "<|vision_start|><|image_pad|><|vision_end|>"

int qwen_vl_kept_frames(int t, int recent, int stride, bool keep_first, int *ret)
{
    int n = 0;

    for (int j = recent; j >= 1; j--) {
        int64_t frame = t - (int64_t)j * stride;

        if (frame < 0)
            continue;
        if (n == 0 && keep_first && frame > 0)
            ret[n++] = 0;
        ret[n++] = (int)frame;
    }
    if (n == 0 && keep_first && t > 0)
        ret[n++] = 0;
    return n;
}

/* Two digits after the point as C prints them: -0.00 keeps its sign, exact ties go to even. */
static void add_action(struct strbuf *out, const struct qwen_step *step)
{
    strbuf_addc(out, '[');
    for (int i = 0; i < step->dims; i++)
        strbuf_addf(out, "%s%.2f", i ? ", " : "", (double)step->action[i]);
    strbuf_addc(out, ']');
}

int qwen_vl_prompt_text(const char *instruction, const struct qwen_step *past, int n_past, char **ret, size_t *ret_n)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    size_t length;

    strbuf_addf(&text,
                "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nTask: %s\n\nProgress so far:\n",
                instruction);
    for (int i = 0; i < n_past; i++) {
        strbuf_addf(&text, "Step %d: " PICTURE " -> Action: ", past[i].frame);
        add_action(&text, &past[i]);
        strbuf_addc(&text, '\n');
    }
    strbuf_adds(&text, "Current observation: " PICTURE "\nRate the progress toward completing the task (0-1):<|im_end|>\n"
                       "<|im_start|>assistant\n");
    length = text.length;
    *ret = strbuf_detach(&text);
    if (!*ret)
        return -ENOMEM;
    *ret_n = length;
    return 0;
}

int qwen_vl_prompt_ids(const struct qwen_vl *model, const char *text, size_t n, const int *tokens, int n_pictures,
                       int32_t **ret_ids, int *ret_n)
{
    _cleanup_free_ int32_t *short_ids = NULL, *ids = NULL;
    int n_short, picture = 0, count = 0, r = tokenizer_encode(model->tokenizer, text, n, true, &short_ids, &n_short);
    int64_t total;

    if (r < 0)
        return r;
    total = n_short;
    for (int i = 0; i < n_pictures; i++)
        total += tokens[i] - 1;
    if (total > model->config.max_positions)
        return -E2BIG;
    ids = calloc((size_t)MAX(total, n_short) + 1, sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    for (int i = 0; i < n_short; i++) {
        bool is_picture = short_ids[i] == model->config.image_id;
        int times = is_picture && picture < n_pictures ? tokens[picture] : 1;

        picture += is_picture;
        if (picture > n_pictures)
            return -EINVAL;
        for (int k = 0; k < times; k++)
            ids[count++] = short_ids[i];
    }
    if (picture != n_pictures)
        return -EINVAL;
    *ret_ids = TAKE_PTR(ids);
    *ret_n = count;
    return 0;
}
