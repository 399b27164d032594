/* device_bench_internal.h - what the parts of device_bench.h share: a part's state, how it is measured and told, and what passes
 * cost. */
#pragma once

#include "nn/models/openvla_session.h"
#include "nn/models/qwen_vl.h"
#include "tests/harness/device_bench.h"
#include "train/device_memory.h"
#include "train/trainer.h"

enum { BENCH_MOST = 64, BENCH_WIDTH = 1024 };   /* items of a call; of heads */
extern const char bench_instruction[];

struct bench_run {
    const struct device_bench *bench;
    struct openvla *model;      /* or the trainer's */
    struct trainer *trainer;
    uint8_t *pictures;          /* [2 * BENCH_MOST] */
    size_t picture;             /* bytes */
    int32_t *prompt; int n_prompt;
    struct device_facts before; /* of the device, when nothing of this part was on it */
    int batch;
    struct openvla_session *session;
    struct qwen_vl *reward;
    struct qwen_session *reward_session;
    int side;
};

/* ---- device_bench.c */
/* Median of the repeats by the wall clock; passes end with numbers on the host, so the device is done. */
int bench_seconds(struct bench_run *run, int (*work)(struct bench_run *run), double *ret);
/* Seconds that these products and reads take at the ceilings; 0: those are not known. */
double bench_floor(const struct device_bench *bench, double flops, double bytes);
/* One line: `run->batch` of `unit` took so long; its share of the floor. */
void bench_tell(const struct bench_run *run, const char *what, const char *unit, double seconds, double floor, double aim);
/* What preflight would say of run->model's job there, and what there was taken of the device since the part began, beside
 * that. */
int bench_foretell(struct bench_run *run, struct device_job job, struct device_need *ret, struct error *error);
int bench_tell_memory(struct bench_run *run, const struct device_need *need, struct error *error);
void bench_tell_refusals(const struct bench_run *run);
/* run->model, pictures and prompt; error is empty after it. Not packed. */
int bench_open_model(struct bench_run *run, struct error *error);
int bench_add_adapters(struct bench_run *run, struct error *error);
int bench_pack(struct bench_run *run, struct openvla *model, bool training, struct error *error);
int bench_failed(const struct bench_run *run, const char *what, int r, struct error *error);

/* ---- device_bench_cost.c: numbers of weights; operations of products and attention */
double bench_layer_weights(const struct openvla_config *c);
double bench_vision_weights(const struct openvla_config *c);
double bench_vision_flops(const struct openvla_config *c);      /* of one picture */
double bench_text_flops(const struct openvla_config *c, double rows, bool causal);      /* of one sequence through the language
                                                                                         * model */

/* ---- the parts */
int bench_act(struct bench_run *run, bool adapters, struct error *error);       /* device_bench_act.c */
int bench_oft(struct bench_run *run, struct error *error);
int bench_score(struct bench_run *run, struct error *error);                    /* device_bench_score.c */
int bench_prm(struct bench_run *run, struct error *error);
int bench_train(struct bench_run *run, struct error *error);                    /* device_bench_train.c */
int bench_contract(struct bench_run *run, struct error *error);
