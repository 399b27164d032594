#include "tests/harness/device_bench_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "nn/device/narrow.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/openvla_synth.h"
#include "tests/harness/synthetic.h"

enum { MOST_REPEATS = 31, RANK = 32, MEGA = 1 << 20 };
const char bench_instruction[] = "pick up the black bowl on the plate and put it in the drawer";

static void run_release(struct bench_run *run)
{
    openvla_session_free(run->session);
    qwen_session_free(run->reward_session);
    if (run->trainer)
        trainer_free(run->trainer);
    else
        openvla_free(run->model);
    qwen_vl_free(run->reward);
    free(run->pictures);
    free(run->prompt);
    device_set_process(NULL);
}

/* ---- measuring ---------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double seconds_now(const struct device_bench *bench)
{
    struct timespec at;

    clock_gettime(bench->before ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

int bench_seconds(struct bench_run *run, int (*work)(struct bench_run *run), double *ret)
{
    double seconds[MOST_REPEATS];
    int n = MIN(run->bench->repeats, MOST_REPEATS), r = 0;

    for (int i = -run->bench->warm; i < n && r >= 0; i++) {
        double begin;

        if (run->bench->before)
            run->bench->before();
        begin = seconds_now(run->bench);
        r = work(run);
        if (i >= 0)
            seconds[i] = seconds_now(run->bench) - begin;
    }
    if (r < 0)
        return r;
    qsort(seconds, (size_t)n, sizeof(*seconds), compare);
    *ret = seconds[n / 2];
    return 0;
}

double bench_floor(const struct device_bench *b, double flops, double bytes)
{
    return b->flops > 0 && b->bytes > 0 ? fmax(flops / b->flops, bytes / b->bytes) : 0;
}

void bench_tell(const struct bench_run *run, const char *what, const char *unit, double seconds, double floor, double aim)
{
    const char *model = run->reward ? run->bench->small_reward ? "small Qwen2-VL" : "Qwen2-VL-2B" : run->bench->model;
    FILE *out = run->bench->out;

    if (run->bench->tell) {
        run->bench->tell(model, what, unit, run->batch, seconds, floor);
        return;
    }
    fprintf(out, "%s %s, numerics %s, B = %d: %.2f %s/s, %.2f ms", model, what, run->bench->fast ? "fast" : "strict", run->batch,
            run->batch / seconds, unit, seconds * 1e3);
    if (floor > 0)
        fprintf(out, "; at this run's ceilings %.1f: %.1f %% (aim %.0f %%)", run->batch / floor, 100 * floor / seconds, aim);
    fprintf(out, "\n");
    fflush(out);
}

static int look(struct bench_run *run, struct device_facts *ret)
{
    char why[256];

    return run->bench->device->k->use(run->bench->device->ordinal, ret, why, sizeof(why));
}

int bench_foretell(struct bench_run *run, struct device_job job, struct device_need *ret, struct error *error)
{
    struct device_facts facts;

    job.prompt = run->n_prompt;
    job.strict = !run->bench->fast;
    return memory_look_at_device(run->model, &job, ret, &facts, error);
}

int bench_tell_memory(struct bench_run *run, const struct device_need *need, struct error *error)
{
    struct device_facts now;
    double taken;

    if (look(run, &now) < 0)
        return error_set(error, EIO, "the device does not answer any more");
    taken = (double)run->before.memory_free - (double)now.memory_free;
    fprintf(run->bench->out, "memory: foretold %.0f MiB (weights %.0f, gradients %.0f, moments %.0f, activations %.0f, "
            "keys and values %.0f, workspace %.0f), taken %.0f MiB, libraries' own included: %+.1f %%\n", (double)need->total / MEGA,
            (double)need->weights / MEGA,
            (double)need->gradients / MEGA, (double)need->optimiser / MEGA, (double)need->activations / MEGA,
            (double)need->cache / MEGA,
            (double)need->workspace / MEGA, taken / MEGA, taken > 0 ? 100 * ((double)need->total / taken - 1) : 0.0);
    fflush(run->bench->out);
    return 0;
}

void bench_tell_refusals(const struct bench_run *run)
{
    struct device_fallbacks f = device_fallbacks(run->bench->device);

    fprintf(run->bench->out, "refused so far: %llu products by cuBLASLt%s, %llu attentions by cuDNN%s; %s%s%s\n", f.gemm,
            run->bench->device->blas ? "" : " (not there)",
            f.attention, run->bench->device->dnn ? "" : " (not there)", device_product_refusal(run->bench->device),
            device_product_refusal(run->bench->device)[0] ? "; " : "", device_refusal(run->bench->device));
    if (run->bench->device->narrow) {
        struct narrow_counts n = narrow_counts(run->bench->device->narrow);

        fprintf(run->bench->out, "products of few rows, by who is faster: %d shapes the library's, %d the own kernel's, "
                "%d not yet known\n", n.chosen[NARROW_LIBRARY], n.chosen[NARROW_OWN], n.open);
    }
    fflush(run->bench->out);
}

/* ---- a model -------------------------------------------------------------------------------------------------------- */

int bench_open_model(struct bench_run *run, struct error *error)
{
    const struct device_bench *b = run->bench;
    int r = look(run, &run->before);

    if (r < 0)
        return error_set(error, -r, "the device does not answer");
    r = openvla_size_find(b->model) ? synthetic_policy(b->model, b->layers, &run->model, error)
                                    : openvla_load_halves(b->model, OPENVLA_LARGE, &run->model, error);
    if (r < 0)
        return r;
    run->picture = (size_t)run->model->config.image_height * (size_t)run->model->config.image_width * 3;
    run->pictures = malloc(2 * BENCH_MOST * run->picture);
    if (!run->pictures)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < 2 * BENCH_MOST * run->picture; i++)
        run->pictures[i] = (uint8_t)(i * 2654435761u >> 13);
    r = openvla_prompt(run->model, bench_instruction, &run->prompt, &run->n_prompt);
    if (r < 0)
        return openvla_prompt_failed(run->model, r, error);
    *error = (struct error) {0};        /* of files that need not be there: what fails from here on has words of its own */
    return 0;
}

int bench_pack(struct bench_run *run, struct openvla *model, bool training, struct error *error)
{
    int r;

    if (run->bench->fast)
        params_use_fast(&model->params);
    r = openvla_pack(model, training);
    return r < 0 ? error_set(error, -r, "%s: cannot be put on the device: %s", run->bench->model,
                             device_error_text(run->bench->device, r)) : 0;
}

int bench_failed(const struct bench_run *run, const char *what, int r, struct error *error)
{
    const char *refusal = device_product_refusal(run->bench->device);

    return error_set(error, -r, "%s %s, B = %d: %s%s%s", run->bench->model, what, run->batch,
                     device_error_text(run->bench->device, r), refusal[0] ? "; " : "", refusal);
}

int bench_add_adapters(struct bench_run *run, struct error *error)
{
    const struct lora_spec spec = {.r = MIN(RANK, run->model->config.hidden / 4), .alpha = 16, .targets = "all-linear"};
    int r = openvla_lora_new(run->model, &spec, 5, error);

    if (r >= 0)
        synthetic_speak(&run->model->params, 1);
    return r;
}

/* ---- all ---------------------------------------------------------------------------------------------------------------- */

const char *const device_bench_parts[] = {"act", "adapters", "train", "oft", "prm", "score", "contract", NULL};

int device_bench_run(const struct device_bench *bench, const char *part, struct error *error)
{
    _cleanup_(run_release) struct bench_run run = {.bench = bench};

    *error = (struct error) {0};
    device_set_process(bench->device);
    if (!strcmp(part, "act") || !strcmp(part, "adapters"))
        return bench_act(&run, part[1] == 'd', error);
    if (!strcmp(part, "train"))
        return bench_train(&run, error);
    if (!strcmp(part, "oft"))
        return bench_oft(&run, error);
    if (!strcmp(part, "prm"))
        return bench_prm(&run, error);
    if (!strcmp(part, "score"))
        return bench_score(&run, error);
    if (!strcmp(part, "contract"))
        return bench_contract(&run, error);
    return error_set(error, EINVAL, "%s: there is no such part", part);
}
