/* The tiny64 golden model on one thread: acting at batch 1, 16, 64, a supervised step and a PPO-like step at batch 32.
 *
 *   GANTRY_GOLDENS=dir bench_model [repetitions, default 5] [act1 | act16 | act64 | sft | ppo: only that] [strict | fast | kept |
 *   fastkept |
 *                                  lora | apart: only those]
 *
 * Prints milliseconds of CPU time per call, best and median; tests/bench/torch_baseline.py prints the same lines for PyTorch.
 * A training step is what the learner does: eight shards, gradient norm, AdamW, packing. Each row in strict numerics, then in
 * fast; acting also with matrices kept as bf16 as they lie in the file, as large models have them, and with adapters of rank 32
 * on all of them, unmerged: their A joined where they read the same (lora), and each alone. */
#include <errno.h>

#include "base/clock.h"
#include "base/philox.h"
#include "nn/cpu/kernels.h"
#include "nn/lora_join.h"
#include "nn/models/openvla_lora.h"
#include "train/passes.h"
#include "train/trainer.h"

enum { MAX_BATCH = 64, TRAIN_BATCH = 32, MAX_REPEATS = 101, VARIANTS = 6 };
static const char instruction[] = "put the red block on the blue block and then stop";

struct bench {
    struct openvla *model;
    struct openvla_session *session;
    struct trainer *trainer;
    uint8_t *images;            /* [MAX_BATCH][H][W][3] */
    size_t image_size;
    int32_t *prompt; int n_prompt;
    int32_t actions[MAX_BATCH][8];      /* K ids, then </s> */
    int batch;
    bool missing;               /* fast, on a CPU that cannot */
};

static int act(struct bench *b)
{
    struct act_item items[MAX_BATCH] = {0};
    struct act_result results[MAX_BATCH];

    for (int i = 0; i < b->batch; i++)
        items[i] = (struct act_item) {.images = {b->images + (size_t)i * b->image_size}, .n_images = 1, .prompt = b->prompt,
                                      .n_prompt = b->n_prompt, .temperature = 1.0f, .seed = 1, .episode = (uint64_t)i};
    return openvla_act(b->model, b->session, items, b->batch, results);
}

static void fill_items(const struct bench *b, struct openvla_item *items, int first, int last, int n_actions)
{
    for (int i = first; i < last; i++)
        items[i - first] = (struct openvla_item) {.images = {b->images + (size_t)i * b->image_size}, .n_images = 1,
                                                  .prompt = b->prompt,
                                                  .n_prompt = b->n_prompt, .actions = b->actions[i], .n_actions = n_actions};
}

/* Cross-entropy over the whole vocabulary at 8 rows (K ids and </s>). */
static int sft_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    const struct bench *b = arg;
    int rows = b->model->config.action_dims + 1, n = (last - first) * rows, r;
    struct openvla_item items[TRAIN_BATCH];
    struct openvla_pass pass;
    struct token_stats *stats;

    (void)shard;
    fill_items(b, items, first, last, rows - 1);
    r = openvla_forward_tail(b->trainer->model, tape, items, last - first, &pass);
    if (r < 0)
        return r;
    stats = op_token_stats(tape, openvla_logits(b->trainer->model, tape, gather_action_rows(tape, &pass, last - first, rows),
                                                false), b->actions[first],
                           1.0f, NULL);
    if (!stats)
        return tape->error;
    for (int i = 0; i < n; i++)
        stats->dlogp[i] = -1.0f / (float)(TRAIN_BATCH * rows);
    tape_backward(tape);
    return tape->error;
}

/* Log-probs over the 256 action ids at 7 rows and the value head. */
static int ppo_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    const struct bench *b = arg;
    int dims = b->model->config.action_dims, n = last - first, r;
    struct openvla_item items[TRAIN_BATCH];
    int32_t target[TRAIN_BATCH * OPENVLA_MAX_ACTION_DIMS];
    struct openvla_pass pass;
    struct token_stats *stats;
    struct tensor *value;

    (void)shard;
    fill_items(b, items, first, last, dims - 1);
    for (int i = 0; i < n * dims; i++)
        target[i] = b->actions[first + i / dims][i % dims] - (b->model->config.vocab - OPENVLA_ACTION_BINS);
    r = openvla_forward_tail(b->trainer->model, tape, items, n, &pass);
    if (r < 0)
        return r;
    stats = op_token_stats(tape, openvla_logits(b->trainer->model, tape, gather_action_rows(tape, &pass, n, dims), true), target,
                           1.5f, NULL);
    value = openvla_value(b->trainer->model, tape, gather_action_rows(tape, &pass, n, 1), NULL, true);
    if (!stats || !value)
        return tape->error;
    for (int i = 0; i < n * dims; i++)
        stats->dlogp[i] = i % 2 ? 1e-3f : -1e-3f;
    for (int i = 0; i < n; i++)
        value->g[i] = 1e-2f * (value->x[i] - 1.0f);
    tape_backward(tape);
    return tape->error;
}

static int train(struct bench *b, shard_fn *fn, int parts)
{
    static const struct update update[2] = {{.lr = 1e-5, .clip = 1.0}, {.lr = 1e-5, .clip = 1.0}};
    double norm[2];

    return trainer_update(b->trainer, (enum trainer_part[]) {TRAIN_TRUNK, TRAIN_VALUE}, update, parts, TRAIN_BATCH, fn, b, norm);
}

static int sft(struct bench *b) { return train(b, sft_shard, 1); }
static int ppo(struct bench *b) { return train(b, ppo_shard, 2); }

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure(struct bench *b, const char *name, const char *numerics, int (*run)(struct bench *), int batch, int repeats)
{
    double ms[MAX_REPEATS];
    int r = 0;

    b->batch = batch;
    for (int i = -2; i < repeats && r >= 0; i++) {
        uint64_t from = clock_cpu_ns();

        r = run(b);
        if (i >= 0)
            ms[i] = (double)(clock_cpu_ns() - from) / 1e6;
    }
    if (r < 0)
        return r;
    qsort(ms, (size_t)repeats, sizeof(*ms), ascending);
    printf("%-6s %-8s B=%-3d %9.2f ms best %9.2f ms median %9.1f samples/s\n", name, numerics, batch, ms[0], ms[repeats / 2],
           batch * 1e3 / ms[0]);
    return 0;
}

enum kind { PLAIN, KEPT, ADAPTERS, APART };

static int setup(struct bench *b, const char *goldens, bool fast, enum kind kind, struct error *error)
{
    const struct lora_spec spec = {.r = 32, .alpha = 32, .targets = "all-linear"};
    struct philox random = philox_at(1, PHILOX_TEST, 0, 0, 0);
    struct openvla *training = NULL;
    char dir[4096];
    int r;

    (void)snprintf(dir, sizeof(dir), "%s/openvla/tiny64/checkpoint", goldens);
    r = openvla_load_halves(dir, kind == KEPT ? 0 : -1, &b->model, error);
    if (r >= 0 && b->model->config.value_width == 0)
        r = openvla_add_value_head(b->model, 256, 0, 1);
    if (r >= 0 && fast && !params_use_fast(&b->model->params))
        return error_set(error, ENOTSUP, "fast: this CPU has no VDPBF16PS");
    if (r >= 0 && kind >= ADAPTERS)
        r = openvla_lora_new(b->model, &spec, 1, error);
    if (kind == APART)
        lora_join_free(&b->model->params);
    if (r >= 0)
        r = openvla_pack(b->model, false);
    if (r >= 0 && kind == PLAIN)
        r = openvla_clone(b->model, &training);
    if (r >= 0 && kind == PLAIN)
        r = trainer_new(training, 1, NULL, &b->trainer);
    if (r >= 0)
        r = openvla_session_new(&b->model->config, MAX_BATCH, &b->session);
    if (r >= 0)
        r = openvla_prompt(b->model, instruction, &b->prompt, &b->n_prompt);
    if (r < 0)
        return r;
    b->image_size = (size_t)b->model->config.image_height * (size_t)b->model->config.image_width * 3;
    b->images = malloc(MAX_BATCH * b->image_size);
    if (!b->images)
        return -ENOMEM;
    for (size_t i = 0; i < MAX_BATCH * b->image_size; i++)
        b->images[i] = (uint8_t)philox_u32(&random);
    for (int i = 0; i < MAX_BATCH; i++)
        for (int k = 0; k < 8; k++)
            b->actions[i][k] = k < 7 ? b->model->config.vocab - 1 - (int32_t)philox_below(&random, 256) : b->model->config.eos_id;
    return 0;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int (*run)(struct bench *); int batch; } rows[] = {
        {"act1", act, 1}, {"act16", act, 16}, {"act64", act, 64}, {"sft", sft, TRAIN_BATCH}, {"ppo", ppo, TRAIN_BATCH},
    };
    static const char *const numerics_names[] = {"strict", "fast", "kept", "fastkept", "lora", "apart"};
    static const struct { bool fast; enum kind kind; } variants[VARIANTS] = {{false, PLAIN}, {true, PLAIN}, {false, KEPT},
                                                                             {true, KEPT}, {false, ADAPTERS}, {false, APART}};
    const char *goldens = getenv("GANTRY_GOLDENS");
    int repeats = argc > 1 ? (int)CLAMP(strtol(argv[1], NULL, 10), 1, MAX_REPEATS) : 5;
    const char *row = argc > 2 ? argv[2] : NULL, *numerics = argc > 3 ? argv[3] : NULL;
    struct bench b[VARIANTS] = {0};
    struct error error = {0};
    int r = 0;

    if (!goldens) {
        fprintf(stderr, "bench_model: set GANTRY_GOLDENS\n");
        return 1;
    }
    for (int i = 0; row && i < VARIANTS; i++)
        if (!strcmp(row, numerics_names[i])) {
            numerics = row;
            row = NULL;
        }
    for (int i = 0; i < VARIANTS && r >= 0; i++) {
        r = setup(&b[i], goldens, variants[i].fast, variants[i].kind, &error);
        if (r == -ENOTSUP) {
            printf("%s\n", error_text(&error, r));
            b[i].missing = true;
            r = 0;
        }
    }
    if (r < 0) {
        fprintf(stderr, "bench_model: %s\n", error_text(&error, r));
        return 1;
    }
    printf("gantry (%s), one thread, S = %d + 7\n", cpu_kernels()->isa, b[0].model->config.patches + b[0].n_prompt);
    for (size_t i = 0; i < ARRAY_SIZE(rows) && r >= 0; i++)
        for (int v = 0; v < VARIANTS && r >= 0; v++)
            if (!b[v].missing && (v < 2 || rows[i].run == act) && (!row || !strcmp(row, rows[i].name)) &&
                (!numerics || !strcmp(numerics, numerics_names[v])))
                r = measure(&b[v], rows[i].name, numerics_names[v], rows[i].run, rows[i].batch,
                            rows[i].batch == 1 ? MIN(4 * repeats, MAX_REPEATS) : repeats);
    if (r < 0)
        fprintf(stderr, "bench_model: %s\n", error_text(NULL, r));
    for (int i = 0; i < VARIANTS; i++) {
        trainer_free(b[i].trainer);
        openvla_session_free(b[i].session);
        openvla_free(b[i].model);
        free(b[i].images);
        free(b[i].prompt);
    }
    return r < 0;
}
