/* device_bench_act.c - acting: actions by tokens, and chunks in one pass. */
#include <errno.h>
#include <stdlib.h>

#include "nn/models/openvla_oft.h"
#include "tests/harness/device_bench_internal.h"

/* ---- actions ---------------------------------------------------------------------------------------------------- */

/* Prefill, and a step for each further token. */
static double act_floor(const struct bench_run *run)
{
    const struct openvla_config *c = &run->model->config;
    double b = run->batch, rows = c->patches + run->n_prompt, head = (double)OPENVLA_ACTION_BINS * c->hidden,
        steps = c->action_dims - 1;
    double text = bench_layer_weights(c) + head, cache = 4 * b * (rows + steps / 2) * c->hidden * c->layers;
    double prefill = bench_floor(run->bench, b * (bench_vision_flops(c) + bench_text_flops(c, rows, true) + 2 * head),
                                 2 * (bench_vision_weights(c) + text));

    return prefill + steps * bench_floor(run->bench, 2 * b * text + b * 4 * rows * c->hidden * c->layers, 2 * text + cache);
}

static int put_act(struct bench_run *run)
{
    struct act_item items[BENCH_MOST] = {0};
    struct act_result results[BENCH_MOST];

    for (int i = 0; i < run->batch; i++)
        items[i] = (struct act_item) {.images = {run->pictures + (size_t)i * run->picture}, .n_images = 1, .prompt = run->prompt,
                                      .n_prompt = run->n_prompt, .temperature = 1, .seed = 1, .episode = (uint64_t)i};
    return openvla_act(run->model, run->session, items, run->batch, results);
}

int bench_act(struct bench_run *run, bool adapters, struct error *error)
{
    struct device_need need;
    double seconds;
    int r = bench_open_model(run, error), most = 1;

    if (r >= 0 && adapters)
        r = bench_add_adapters(run, error);
    if (r >= 0)
        r = bench_pack(run, run->model, false, error);
    if (r < 0)
        return r;
    for (int i = 0; i < BENCH_BATCHES; i++)
        most = MAX(most, run->bench->batch[i]);
    r = openvla_session_new(&run->model->config, most, &run->session);
    for (int i = 0; i < BENCH_BATCHES && r >= 0; i++) {
        run->batch = run->bench->batch[i];
        r = bench_seconds(run, put_act, &seconds);
        if (r >= 0)
            bench_tell(run, adapters ? "acts with adapters" : "acts", "actions", seconds, act_floor(run), 70);
    }
    if (r < 0)
        return bench_failed(run, "acts", r, error);
    bench_tell_refusals(run);
    r = bench_foretell(run, (struct device_job) {.use = MEMORY_ACT, .batch = most}, &need, error);
    return r < 0 ? r : bench_tell_memory(run, &need, error);
}

/* ---- chunks ---------------------------------------------------------------------------------------------------------- */

static int put_oft(struct bench_run *run)
{
    const struct oft_config *c = &run->model->config.oft;
    const float state[OPENVLA_MAX_PROPRIO] = {0};
    _cleanup_free_ struct oft_item *items = calloc((size_t)run->batch, sizeof(*items));
    _cleanup_free_ struct oft_result *results = calloc((size_t)run->batch, sizeof(*results));

    if (!items || !results)
        return -ENOMEM;
    for (int i = 0; i < run->batch; i++) {
        items[i] = (struct oft_item) {.n_images = c->images, .prompt = run->prompt, .n_prompt = run->n_prompt,
                                      .proprio = c->proprio ? state : NULL, .temperature = 1};
        for (int k = 0; k < c->images; k++)
            items[i].images[k] = run->pictures + (size_t)(2 * i + k) * run->picture;
    }
    return oft_act(run->model, run->session, items, run->batch, results);
}

int bench_oft(struct bench_run *run, struct error *error)
{
    enum { CHUNK = 8, STATE = 8 };
    double seconds;
    int r = bench_open_model(run, error);

    if (r >= 0)
        r = oft_add_action_head(run->model, CHUNK, run->model->config.hidden, 2, 1);
    for (int pictures = 1; pictures <= 2 && r >= 0; pictures++) {
        struct openvla_config *c = &run->model->config;
        double rows, flops;

        if (pictures == 2)
            r = oft_add_state(run->model, STATE, 1);
        c->oft.images = pictures;
        if (r >= 0)
            r = bench_pack(run, run->model, false, error);
        run->session = openvla_session_free(run->session);
        r = r < 0 ? r : openvla_session_new(c, BENCH_MOST, &run->session);
        rows = pictures * c->patches + (pictures == 2) + run->n_prompt + oft_slots(c) + 1;
        flops = pictures * bench_vision_flops(c) + bench_text_flops(c, rows, false);
        for (int i = 0; i < BENCH_BATCHES && r >= 0; i++) {
            run->batch = run->bench->batch[i];
            r = bench_seconds(run, put_oft, &seconds);
            if (r >= 0)
                bench_tell(run, pictures == 1 ? "OFT, one picture" : "OFT, two pictures and a state", "chunks", seconds,
                     bench_floor(run->bench, run->batch * flops, 2 * (bench_vision_weights(c) + bench_layer_weights(c))), 70);
        }
    }
    if (r < 0 && !error->text[0])
        return bench_failed(run, "OFT", r, error);
    if (r >= 0)
        bench_tell_refusals(run);
    return r;
}
