/* openvla_prompt.c - an instruction as the model's ids. */
#include <errno.h>

#include "base/strbuf.h"
#include "nn/models/openvla_internal.h"
#include "nn/tokenizer.h"
#include "nn/unicode.h"

/* Ids that a prompt may have beside pictures, robot state, actions and the end. */
static int room(const struct openvla_config *c)
{
    int images = MAX(c->oft.images, 1), chunk = MAX(c->oft.chunk, 1);

    return c->max_positions - images * c->patches - (c->oft.proprio > 0) - chunk * c->action_dims - 1;
}

/* The same beside the pictures of a reward prompt: the first, some before, the present one. */
static int reward_room(const struct openvla_config *c)
{
    return c->max_positions - (c->reward_history + 2) * c->patches;
}

int openvla_reward_prompt_failed(const struct openvla *model, int r, struct error *error)
{
    const struct openvla_config *c = &model->config;

    if (r != -E2BIG)
        return openvla_prompt_failed(model, r, error);
    return error_set(error, E2BIG,
                     "%s: the instruction is too long for the reward model: beside %d pictures of %d patches its prompt may have "
                     "%d ids, the model's context is %d positions (max_position_embeddings); a shorter prm.history helps",
                     model->dir, c->reward_history + 2, c->patches, MAX(reward_room(c), 0), c->max_positions);
}

int openvla_prompt_failed(const struct openvla *model, int r, struct error *error)
{
    if (r != -E2BIG)
        return error_set(error, -r, "%s: the instruction cannot be turned into a prompt: %s", model->dir, strerror(-r));
    return error_set(error, E2BIG,
                     "%s: the instruction is too long: its prompt may have %d ids beside pictures and actions, the model's "
                     "context is %d positions (max_position_embeddings)",
                     model->dir, MAX(room(&model->config), 0), model->config.max_positions);
}

static int make_prompt(const struct openvla *model, const char *instruction, int room, int32_t **ret_ids, int *ret_n)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ int32_t *ids = NULL;
    int32_t *grown;
    int n, r;

    if (!utf8_valid(instruction, strlen(instruction)))
        return -EINVAL;
    strbuf_adds(&text, "In: What action should the robot take to ");
    (void)unicode_lower(instruction, strlen(instruction), &text);
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
    if (n > room)
        return -E2BIG;
    *ret_ids = TAKE_PTR(ids);
    *ret_n = n;
    return 0;
}

int openvla_prompt(const struct openvla *model, const char *instruction, int32_t **ret_ids, int *ret_n)
{
    return make_prompt(model, instruction, room(&model->config), ret_ids, ret_n);
}

int openvla_reward_prompt(const struct openvla *model, const char *instruction, int32_t **ret_ids, int *ret_n)
{
    return make_prompt(model, instruction, reward_room(&model->config), ret_ids, ret_n);
}
