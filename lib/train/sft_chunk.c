#include "train/sft_chunk.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "nn/models/openvla_oft.h"

int sft_chunk_labels(const struct dataset *data, struct step_ref at)
{
    int left = (data->list[at.episode].steps - at.step) * data->action_dims;

    return MIN(left, data->width);
}

/* As ids and as numbers; zeros behind the end. */
static void fill_labels(const struct dataset *data, struct step_ref at, int32_t *ret_ids, float *ret_numbers)
{
    const struct openvla_config *c = &data->model->config;
    const struct train_episode *episode = &data->list[at.episode];
    int first = at.step * data->action_dims, n = sft_chunk_labels(data, at);

    memset(ret_ids, 0, (size_t)data->width * sizeof *ret_ids);
    memset(ret_numbers, 0, (size_t)data->width * sizeof *ret_numbers);
    for (int k = 0; k < n; k++) {
        int32_t token = episode->tokens[first + k];

        ret_ids[k] = token;
        if (episode->label)
            ret_numbers[k] = episode->label[first + k];
        else if (c->oft.kind != OFT_TOKENS)
            memcpy(&ret_numbers[k], &token, sizeof token); /* a policy's own: the bits of what it drew */
        else
            ret_numbers[k] = (float)openvla_decode(c, token);
    }
}

/* d mean |x - y| / dx. */
static int absolute_error(struct tape *tape, struct tensor *actions, const struct dataset *data, const struct step_ref *steps,
                          int n, const float *labels, int64_t count, double *loss)
{
    size_t numbers = actions ? (size_t)(actions->rows * actions->cols) : 0;
    const float *values = actions ? tape_values(tape, actions) : NULL;
    float *g = values ? tape_alloc(tape, numbers * sizeof *g) : NULL;

    if (!g)
        return tape->error ? tape->error : -ENOMEM;
    memset(g, 0, numbers * sizeof *g);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < sft_chunk_labels(data, steps[i]); k++) {
            int at = i * data->width + k;
            float d = values[at] - labels[at];

            *loss += fabs((double)d) / (double)count;
            g[at] = (d > 0 ? 1.0f : d < 0 ? -1.0f : 0.0f) / (float)count;
        }
    return tape_set_gradient(tape, actions, g);
}

int sft_chunk(const struct openvla *model, struct tape *tape, const struct dataset *data, const struct step_ref *steps, int n,
              const uint8_t *const *augmented, int64_t count, double *loss)
{
    size_t tokens = (size_t)n * (size_t)data->width;
    struct openvla_item *items = tape_alloc(tape, (size_t)n * sizeof *items);
    int32_t *ids = tape_alloc(tape, tokens * sizeof *ids);
    float *numbers = tape_alloc(tape, tokens * sizeof *numbers);
    struct token_stats *stats;
    struct openvla_pass pass;
    struct tensor *rows;
    int r;

    if (!items || !ids || !numbers)
        return tape->error;
    for (int i = 0; i < n; i++) {
        items[i] = dataset_policy_item(data, steps[i], 0);
        if (augmented) {
            memcpy(items[i].images, augmented + i * data->images, (size_t)data->images * sizeof *augmented);
            items[i].augmented = true;
        }
        fill_labels(data, steps[i], ids + i * data->width, numbers + i * data->width);
    }
    r = openvla_forward(model, tape, items, n, &pass);
    if (r < 0)
        return r;
    rows = oft_answers(model, tape, &pass, n);
    if (model->config.oft.kind == OFT_L1)
        return absolute_error(tape, oft_actions(model, tape, rows), data, steps, n, numbers, count, loss);
    if (model->config.oft.kind == OFT_TOKENS)
        stats = op_token_stats(tape, openvla_logits(model, tape, rows, false), ids, 1, NULL);
    else
        stats = op_laplace_stats(tape, oft_actions(model, tape, rows), oft_log_scale(model, tape, rows), numbers, 1, NULL);
    if (!stats)
        return tape->error ? tape->error : -ENOMEM;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < sft_chunk_labels(data, steps[i]); k++) {
            *loss -= (double)stats->logp[i * data->width + k] / (double)count;
            stats->dlogp[i * data->width + k] = -1.0f / (float)count;
        }
    return 0;
}
