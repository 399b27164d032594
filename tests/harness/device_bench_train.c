/* device_bench_train.c - learning by adapters, and the contract between who acts and who learns. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "tests/harness/device_bench_internal.h"
#include "tests/harness/device_contract.h"
#include "tests/harness/synthetic.h"
#include "train/passes.h"

/* ---- learning ------------------------------------------------------------------------------------------------------ */

/* Cross-entropy over the whole vocabulary at the action's ids and the end, as sft has it. */
static int shard(struct tape *tape, int number, int first, int last, void *arg)
{
    const struct bench_run *run = arg;
    const struct openvla_config *c = &run->model->config;
    int rows = c->action_dims + 1, n = last - first, r;
    struct openvla_item *items = tape_alloc(tape, (size_t)n * sizeof(*items));
    int32_t *actions = tape_alloc(tape, (size_t)(n * rows) * sizeof(*actions));
    struct openvla_pass pass;
    struct token_stats *stats;

    (void)number;
    if (!items || !actions)
        return tape->error;
    for (int i = 0; i < n * rows; i++)
        actions[i] = i % rows == rows - 1 ? c->eos_id : c->vocab - 1 - (first + i * 13) % OPENVLA_ACTION_BINS;
    for (int i = 0; i < n; i++)
        items[i] = (struct openvla_item) {.images = {run->pictures + (size_t)(first + i) * run->picture}, .n_images = 1,
                                          .prompt = run->prompt,
                                          .n_prompt = run->n_prompt, .actions = actions + i * rows, .n_actions = rows - 1};
    r = openvla_forward_tail(run->model, tape, items, n, &pass);
    if (r < 0)
        return r;
    stats = op_token_stats(tape, openvla_logits(run->model, tape, gather_action_rows(tape, &pass, n, rows), false), actions, 1,
                           NULL);
    if (!stats || tape->planning)
        return tape->error;
    for (int i = 0; i < n * rows; i++)
        stats->dlogp[i] = -1.0f / (float)(run->batch * rows);
    tape_backward(tape);
    return tape->error;
}

static int put_update(struct bench_run *run)
{
    static const enum trainer_part trunk = TRAIN_TRUNK;
    static const struct update update = {.lr = 1e-5, .clip = 1};
    double norm;
    int r = trainer_update(run->trainer, &trunk, &update, 1, run->batch, shard, run, &norm);

    return r < 0 ? r : isfinite(norm) && (norm > 0 || run->bench->before) ? 0 : -ERANGE;
}

/* As the learner decides: are blocks kept rather than computed twice, and how many shards go through a pass? */
static int look(struct bench_run *run, int batch, struct device_need *ret, struct error *error)
{
    int r = bench_foretell(run, (struct device_job) {.use = MEMORY_LORA, .batch = batch}, ret, error);

    if (r >= 0)
        fprintf(run->bench->out, "B = %d: blocks are %s, %d of %d shards go through a pass\n", batch,
                ret->recompute ? "computed twice" : "kept", ret->together, SHARDS);
    return r;
}

int bench_train(struct bench_run *run, struct error *error)
{
    const struct openvla_config *c;
    double seconds, rows, forward;
    struct device_need need[2];
    int r = bench_open_model(run, error);

    if (r >= 0)
        r = bench_add_adapters(run, error);
    if (r < 0)
        return r;
    if (run->bench->fast)
        params_use_fast(&run->model->params);
    params_use_process_device(&run->model->params);
    for (int i = 0; i < 2 && r >= 0; i++)
        r = look(run, run->bench->train_batch[i], &need[i], error);
    if (r < 0)
        return r;
    r = trainer_new(run->model, 1, NULL, &run->trainer);
    if (r < 0)
        return bench_failed(run, "training", r, error);
    c = &run->model->config;
    rows = c->patches + run->n_prompt + c->action_dims;
    forward = bench_vision_flops(c) + bench_text_flops(c, rows, true) + 2.0 * (c->action_dims + 1) * c->vocab_padded * c->hidden;
    for (int i = 0; i < 2 && r >= 0; i++) {
        run->batch = run->bench->train_batch[i];
        shards_recompute(run->trainer->shards, need[i].recompute);
        shards_together(run->trainer->shards, need[i].together);
        r = bench_seconds(run, put_update, &seconds);
        if (r >= 0)         /* forwards, and backwards for the inputs: the base's own gradients are not made */
            bench_tell(run, "learns by adapters", "samples", seconds, bench_floor(run->bench, run->batch * 2 * forward, 4 * (bench_vision_weights(c) + bench_layer_weights(c))), 50);
    }
    if (r < 0)
        return bench_failed(run, "training", r, error);
    bench_tell_refusals(run);
    return bench_tell_memory(run, need[1].total > need[0].total ? &need[1] : &need[0], error);
}

/* ---- the contract ----------------------------------------------------------------------------------------------------- */

int bench_contract(struct bench_run *run, struct error *error)
{
    static const char *const words[] = {bench_instruction, "open the drawer", "pick up the red block and put it on the plate"};
    struct contract_prompt prompts[ARRAY_SIZE(words)];
    struct contract_gap gap;
    int r = bench_open_model(run, error), most = 1;

    if (r >= 0)
        r = bench_add_adapters(run, error);
    if (r >= 0)
        r = openvla_add_value_head(run->model, MIN(BENCH_WIDTH, run->model->config.hidden), 0, 9);
    if (r >= 0)
        synthetic_speak(&run->model->params, 1);
    r = r < 0 ? r : contract_prompts(run->model, words, ARRAY_SIZE(words), prompts);
    if (r < 0)
        return r;
    for (int i = 0; i < BENCH_BATCHES; i++)
        most = MAX(most, run->bench->batch[i]);
    r = openvla_session_new(&run->model->config, most, &run->session);
    for (int flip = 0; flip < 2 && r >= 0; flip++) {
        if (flip)
            synthetic_speak(&run->model->params, 2);
        r = bench_pack(run, run->model, false, error);
        for (int i = 0; i < BENCH_BATCHES && r >= 0; i++) {
            run->batch = run->bench->batch[i];
            r = device_contract(run->model, run->session, prompts, ARRAY_SIZE(words), run->batch, 1.5f, i, &gap);
            if (r >= 0)
                fprintf(run->bench->out, "%s contract, numerics %s, adapters and value head random, prompts of mixed lengths, T 1.5, B = %d%s: |gap| of a token mean %.2g, "
                        "most %.2g (a random stack's mean in bf16: %.2g); ratio mean %.5f, farthest %.5f; values within %.2g; %d tokens\n", run->bench->model, run->bench->fast ? "fast" : "strict",
                        run->batch, flip ? ", after a flip" : "", gap.mean, gap.most,
                        contract_expected(&run->model->config, &gap), gap.ratio_mean, gap.ratio_most, gap.value, gap.tokens);
            fflush(run->bench->out);
            if (r >= 0 && !isfinite(gap.most))
                r = -ERANGE;
        }
    }
    contract_prompts_release(prompts, ARRAY_SIZE(words));
    return r < 0 && !error->text[0] ? bench_failed(run, "contract", r, error) : r;
}
