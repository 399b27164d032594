/* memory.h - how much memory a model needs before anyone tries: by part, in bytes, from shapes alone.
 *
 * Weights count as this build holds them: fp32 and packed; in a large model that acts or learns by adapters, bf16 matrices as
 * they are (openvla_load_halves; their pages belong to the page cache, but must fit for it to be fast). Activations by a dry run
 * of the very pass (nn/tape.h), the rest as lib/train allocates it. Process overhead and other people's pages are not in it.
 * Thread rule: none.  Failure rule: -errno. */
#pragma once

#include "nn/models/openvla.h"
#include "nn/models/qwen_vl.h"

enum memory_use { MEMORY_ACT /* or score */, MEMORY_LORA, MEMORY_FULL, MEMORY_USES };

struct memory_need {
    int64_t weights;            /* values */
    int64_t mapped;             /* of these: pages of the files, one copy for all processes and versions that map them */
    int64_t packs;              /* the same again in the GEMM's order: forward, and backward when trained */
    int64_t cache;              /* keys and values of a batch that acts */
    int64_t activations;        /* of a batch that acts; of the shards that `threads` compute at once when trained */
    int64_t gradients;          /* of each shard and their sum */
    int64_t optimiser;          /* AdamW's two moments */
    int64_t total;
    int64_t trained;            /* parameters with a gradient */
};

/* model: openvla_open is enough. batch: sequences that act at once, or of a minibatch. lora_r: rank of the adapters that
 * MEMORY_LORA puts on every linear weight but lm_head. -EINVAL: a batch below 1; -ENOMEM. */
int memory_need(const struct openvla *model, enum memory_use use, int batch, int threads, int lora_r, struct memory_need *ret);
/* A policy that is opened, as a process that acts, or learns by adapters, will hold it: what stays bf16 is marked so, and has no
 * place in the arena. keep false: as one that learns whole does. */
void memory_keep_halves(struct openvla *model, bool keep);
void memory_keep_halves_prm(struct qwen_vl *model);     /* the same of a reward model that scores, or whose backbone is frozen */
/* A reward model, qwen_vl_open is enough: prompts with one picture of 64 tokens. */
int memory_need_prm(const struct qwen_vl *model, enum memory_use use, int batch, int threads, int lora_r,
                    struct memory_need *ret);
