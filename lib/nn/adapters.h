/* adapters.h - low-rank adapters of a model's linear weights: PEFT's, read, made, trained, merged, written.
 *
 * With adapters the base is frozen; A, B and the heads learn. They are run unmerged, by the same op, in training and in serving;
 * a tape with `plain` set runs the base alone. Merging is done in fp32; the sum is rounded once, by whoever writes it.
 * Memory: adapters are parameters like others (names as in PEFT's file), behind those of the checkpoint.
 * Models wrap these (openvla_lora.h, qwen_vl.h).
 * Failure rule: -errno with one line; the model is then as before. The model must be packed again after each of these. */
#pragma once

#include "nn/param.h"
#include "nn/peft.h"

struct adapters {
    struct peft_config config;
    bool *was_frozen; int n;                    /* [n] of the parameters that were there before */
};
struct adapters *adapters_free(struct adapters *adapters);

/* The model they are for. */
struct adapted {
    struct params *params;
    const char *dir;                            /* for messages */
    struct peft_class class;
    struct adapters **adapters;                 /* where the model keeps them; *adapters NULL: it has none */
};

struct lora_spec {
    int r;
    double alpha;
    bool rslora;
    /* "all-linear": every linear module that runs, but not lm_head (as PEFT 0.15 has it). Else names separated by commas or
     * spaces: full, or how they end ("q_proj, v_proj"); patch convolutions ("patch_embed.proj") and lm_head may be among them. */
    const char *targets;
    const char *base;           /* what adapter_config.json is to call the base; NULL: nothing */
};

/* With adapters this learns as it is: a head beside the checkpoint, or what modulates its vision towers (FiLM). */
bool adapters_leave_whole(const struct param *param);
/* Fresh adapters: A normal with deviation 1/r under `seed`, B zero. -EINVAL: a target that names nothing; -EEXIST: the model
 * has adapters. */
int adapters_new(const struct adapted *model, const struct lora_spec *spec, uint64_t seed, struct error *error);
/* A PEFT directory (adapter_config.json, adapter_model.safetensors). Which modules and ranks: what is in the file. A copy of a
 * base weight in it must be this base's. Of Qwen-VL either spelling of names is read, whichever the base has. */
int adapters_load(const struct adapted *model, const char *dir, struct error *error);
/* Write one; dir exists. dtype "F32" or "BF16". base: what adapter_config.json calls the base; NULL: what it was called. */
int adapters_save(const struct adapted *model, const char *dir, const char *dtype, const char *base, struct error *error);
/* W += scale B A in fp32; the adapters are gone. -ENOMEM: some may be added already; the model is of no more use. */
int adapters_merge(const struct adapted *model, struct error *error);
/* The base as it was. */
int adapters_detach(const struct adapted *model);
/* Names and shapes of adapters, and which weights use them; no values yet. rank: of a module's adapter, 0 for none. Takes the
 * configuration over on success. */
int adapters_register(const struct adapted *model, struct peft_config *config,
                      int64_t (*rank)(const struct param *weight, const char *module, const void *arg), const void *arg);
