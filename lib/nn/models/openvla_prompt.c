/* openvla_prompt.c - an instruction as the model's ids. */
#include <errno.h>

#include "base/strbuf.h"
#include "nn/models/openvla_internal.h"
#include "nn/tokenizer.h"

/* ASCII only: what lies beyond stays as it is, whatever the locale. */
static void add_lower(struct strbuf *out, const char *text)
{
    for (; *text; text++)
        strbuf_addc(out, *text >= 'A' && *text <= 'Z' ? (char)(*text - 'A' + 'a') : *text);
}

int openvla_prompt(const struct openvla *model, const char *instruction, int32_t **ret_ids, int *ret_n)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ int32_t *ids = NULL;
    int32_t *grown;
    int n, r;

    strbuf_adds(&text, "In: What action should the robot take to ");
    add_lower(&text, instruction);
    strbuf_adds(&text, "?\nOut:");
    if (text.failed)
        return -ENOMEM;
    r = tokenizer_encode(model->tokenizer, text.text, text.length, true, &ids, &n);
    if (r < 0)
        return r;
    if (ids[n - 1] != model->config.empty_id) {
        grown = reallocarray(ids, (size_t)n + 1, sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        ids = grown;
        ids[n++] = model->config.empty_id;
    }
    *ret_ids = TAKE_PTR(ids);
    *ret_n = n;
    return 0;
}

int openvla_reward_prompt(const struct openvla *model, const char *instruction, int32_t **ret_ids, int *ret_n)
{
    return openvla_prompt(model, instruction, ret_ids, ret_n);
}
