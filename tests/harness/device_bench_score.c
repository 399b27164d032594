/* device_bench_score.c - scores: a policy's trunk with a reward head, and a Qwen2-VL. */
#include <errno.h>
#include <stdlib.h>

#include "tests/harness/device_bench_internal.h"
#include "tests/harness/synthetic.h"

static int put_score(struct bench_run *run)
{
    struct score_item items[BENCH_MOST] = {0};
    float progress[BENCH_MOST];

    for (int i = 0; i < run->batch; i++)
        items[i] = (struct score_item) {.images = {run->pictures + (size_t)(2 * i) * run->picture,
                                                   run->pictures + (size_t)(2 * i + 1) * run->picture},
                                        .n_images = 2, .prompt = run->prompt, .n_prompt = run->n_prompt};
    return openvla_score(run->model, run->session, items, run->batch, progress);
}

int bench_score(struct bench_run *run, struct error *error)
{
    const struct openvla_config *c;
    double seconds, rows;
    int r = bench_open_model(run, error);

    if (r >= 0)
        r = openvla_add_reward_head(run->model, BENCH_WIDTH, 1);
    if (r >= 0)
        r = bench_pack(run, run->model, false, error);
    if (r < 0)
        return r;
    c = &run->model->config;
    rows = 2 * c->patches + run->n_prompt;
    r = openvla_session_new(c, BENCH_MOST, &run->session);
    for (int i = 0; i < BENCH_BATCHES && r >= 0; i++) {
        run->batch = run->bench->batch[i];
        r = bench_seconds(run, put_score, &seconds);
        if (r >= 0)
            bench_tell(run, "scores two pictures", "scores", seconds,
                 bench_floor(run->bench, run->batch * (2 * bench_vision_flops(c) + bench_text_flops(c, rows, true)), 2 * (bench_vision_weights(c) + bench_layer_weights(c))), 70);
    }
    return r < 0 ? bench_failed(run, "scores", r, error) : 0;
}

static int put_prm(struct bench_run *run)
{
    _cleanup_free_ struct qwen_item *items = calloc((size_t)run->batch, sizeof(*items));
    float progress[BENCH_MOST];

    if (!items)
        return -ENOMEM;
    for (int i = 0; i < run->batch; i++)
        items[i] = (struct qwen_item) {.ids = run->prompt, .n_ids = run->n_prompt, .n_pictures = 1,
                                       .pictures = {{run->pictures + (size_t)i * run->picture, run->side, run->side}}};
    return qwen_vl_score(run->reward, run->reward_session, items, run->batch, progress);
}

/* Of the text's layers and of the tower's blocks. */
static double prm_weights(const struct qwen_vl_config *c, double *ret_vision)
{
    double d = c->vision.dim, h = c->hidden, kv = c->kv_heads * c->head_dim;

    *ret_vision = c->vision.depth * (4 * d * d + 2 * d * c->vision.mlp);
    return c->layers * (2 * h * h + 2 * h * kv + 3 * h * c->intermediate);
}

int bench_prm(struct bench_run *run, struct error *error)
{
    enum { TEXT = 44 };
    const struct qwen_vl_config *c;
    double seconds, text, vision, patches, flops;
    int across, r = synthetic_reward(run->bench->small_reward, &run->reward, error);

    if (r < 0)
        return r;
    c = &run->reward->config;
    run->side = run->bench->small_reward ? 4 * c->vision.patch : 16 * c->vision.patch;
    run->picture = (size_t)run->side * (size_t)run->side * 3;
    run->pictures = malloc(BENCH_MOST * run->picture);
    if (!run->pictures)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < BENCH_MOST * run->picture; i++)
        run->pictures[i] = (uint8_t)(i * 2654435761u >> 13);
    r = synthetic_prompt(run->reward, run->side, TEXT, &run->prompt, &run->n_prompt);
    if (r >= 0 && run->bench->fast)
        params_use_fast(&run->reward->params);
    r = r < 0 ? r : qwen_vl_pack(run->reward, false);
    r = r < 0 ? r : qwen_session_new(&run->reward_session);
    text = prm_weights(c, &vision);
    across = run->side / c->vision.patch;
    patches = (double)across * across;
    flops = 2 * (vision * patches + text * run->n_prompt) + 4 * patches * patches * c->vision.dim * c->vision.depth +
            2.0 * run->n_prompt * run->n_prompt * c->hidden * c->layers;
    for (int i = 0; i < BENCH_BATCHES && r >= 0; i++) {
        run->batch = run->bench->batch[i];
        r = bench_seconds(run, put_prm, &seconds);
        if (r >= 0)
            bench_tell(run, "scores a picture", "scores", seconds,
                 bench_floor(run->bench, run->batch * flops, 2 * (text + vision)), 70);
    }
    if (r < 0)
        return bench_failed(run, "reward model", r, error);
    bench_tell_refusals(run);
    return 0;
}
