/* device_memory.h - what a policy takes of a device's memory, by part, before anything is allocated there.
 *
 * Not an estimate: each part is what the code that will allocate it says (mirror_bytes, device_sums_bytes, trainer_device_bytes),
 * and the arena of activations is planned by a dry run of the very pass on a device that has no memory (nn/tape.h). What the
 * driver keeps for itself (a context: some 0.5 GiB) is not in it. A prompt that is longer than foretold makes the arena grow.
 * Thread rule: none. Failure rule: -errno. */
#pragma once

#include "nn/device/kernels.h"
#include "train/memory.h"

struct device_job {
    enum memory_use use;
    int batch;                  /* sequences that act at once, or of a minibatch (over all ranks) */
    int prompt;                 /* ids of the longest prompt; 0: a guess (memory.c's) */
    int ranks;                  /* 0: one */
    int lora_r;                 /* MEMORY_LORA and the model has no adapters yet: theirs */
    int64_t reference;          /* bytes of a model that rests beside the one that learns (memory_on_device), 0: none */
    bool judges;                /* a reward model on a policy's trunk, which has its head or will get it */
    int history;                /* of one that has none yet: prm.history */
    int height, width;          /* of a reward model of Qwen-VL: its episodes' pictures, and their longest instruction (NULL: a */
    const char *instruction;    /* guess) */
    bool half, strict;          /* activations are bf16; numerics: strict */
    bool masters;               /* policy.weights: bf16, trained whole */
    bool blas, dnn;             /* cuBLASLt, cuDNN are there */
    int64_t fits;               /* bytes that training may take, to keep all activations when it can; 0: blocks of a large model
                                 * are computed twice */
};

struct device_need {
    int64_t weights;            /* fp32 values, and what products want of them as bf16 */
    int64_t shared;             /* of them what versions with adapters on one base have once (nn/device/mirror.h) */
    int64_t reference;          /* the same of the job's reference */
    int64_t gradients;          /* those held at once while shards are added; ranks' buckets */
    int64_t optimiser;          /* moments, masters */
    int64_t activations;        /* the arena of one pass */
    int64_t cache;              /* keys and values of all slots; none of who only judges */
    int64_t workspace;          /* staging, the libraries' scratch, the table of angles */
    int64_t total;
    bool recompute;             /* blocks are computed twice */
    int together;               /* shards that go through one pass (train/shards.h): as many as fit, 1 when `fits` is 0 or
                                 * strict */
};

/* What the weights of a policy take that rests there to be asked, by what its checkpoint stays in: openvla_open is enough, and
 * the model is marked so (memory_keep_halves). fast: numerics. */
int64_t memory_on_device(struct openvla *model, bool fast);
/* model: openvla_open is enough. -EINVAL: a batch below 1. */
int memory_need_device(const struct openvla *model, const struct device_job *job, struct device_need *ret);
/* Of so many threads that act or score at once with the same weights, each in memory of its own. */
void device_need_threads(struct device_need *need, int threads);
/* The same of a model that is on a device (model->params.device): job's half, strict, blas and dnn, what there is now, and that
 * training may take it, come from there. *error has the line when the device does not answer. */
int memory_look_at_device(const struct openvla *model, struct device_job *job, struct device_need *ret_need,
                          struct device_facts *ret_facts, struct error *error);
/* Of a reward model that scores (batch: frames at once), or learns: its head, and its adapters where it has them, or with
 * MEMORY_LORA will. qwen_vl_open is enough; model->history is set. -EINVAL: a batch or a picture below 1; -E2BIG: prompts are
 * longer than its context. */
int memory_need_device_prm(const struct qwen_vl *model, const struct device_job *job, struct device_need *ret);
int memory_look_at_device_prm(const struct qwen_vl *model, struct device_job *job, struct device_need *ret_need,
                              struct device_facts *ret_facts, struct error *error);
/* The line for what memory_need_device(_prm) could not do; returns r. */
int device_need_failed(int r, struct error *error);
/* Does it fit into what is free (facts.memory_free)? -ENOMEM with one line: how much is wanted and there, the largest items, and
 * what to change for the largest. name: of the device. */
int device_need_check(const struct device_need *need, const struct device_job *job, const char *name,
                      const struct device_facts *facts, struct error *error);
