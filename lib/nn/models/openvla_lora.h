/* openvla_lora.h - low-rank adapters of an OpenVLA's linear weights: PEFT's, read, made, trained, merged, written.
 *
 *   openvla_load -> openvla_lora_load | openvla_lora_new -> openvla_pack -> act, score, train
 *                -> openvla_lora_save | openvla_lora_merge | openvla_lora_detach
 *
 * With adapters the base is frozen; A, B and the heads learn. Actor and learner run them unmerged, by the same op, so that
 * their log-probs are the same to the bit; a tape with `plain` set runs the base alone. openvla_save writes the base as if
 * there were no adapters. Merging is done in fp32; the sum is rounded once, by whoever writes it.
 * Memory: adapters are parameters like others (names as in PEFT's file), behind those of the checkpoint.
 * Failure rule: -errno with one line; the model is then as before. The model must be packed again after each of these. */
#pragma once

#include "nn/adapters.h"
#include "nn/models/openvla.h"

static inline struct adapted openvla_adapted(const struct openvla *model)
{
    return (struct adapted) {
        .params = (struct params *)&model->params, .dir = model->dir, .adapters = (struct adapters **)&model->lora,
        .class = {"OpenVLAForActionPrediction", "modeling_prismatic"},
    };
}

/* Fresh adapters: A normal with deviation 1/r under `seed`, B zero. -EINVAL: a target that names nothing; -EEXIST: the model
 * has adapters. */
static inline int openvla_lora_new(struct openvla *model, const struct lora_spec *spec, uint64_t seed, struct error *error)
{
    struct adapted adapted = openvla_adapted(model);

    return adapters_new(&adapted, spec, seed, error);
}

/* A PEFT directory (adapter_config.json, adapter_model.safetensors). Which modules and ranks: what is in the file. */
static inline int openvla_lora_load(struct openvla *model, const char *dir, struct error *error)
{
    struct adapted adapted = openvla_adapted(model);

    return adapters_load(&adapted, dir, error);
}

/* Write one; dir exists. dtype "F32" or "BF16". base: what adapter_config.json calls the base; NULL: what it was called. */
static inline int openvla_lora_save(const struct openvla *model, const char *dir, const char *dtype, const char *base,
                                    struct error *error)
{
    struct adapted adapted = openvla_adapted(model);

    return adapters_save(&adapted, dir, dtype, base, error);
}

/* W += scale B A in fp32; the adapters are gone. */
static inline int openvla_lora_merge(struct openvla *model, struct error *error)
{
    struct adapted adapted = openvla_adapted(model);

    return adapters_merge(&adapted, error);
}

/* The base as it was. */
static inline int openvla_lora_detach(struct openvla *model)
{
    struct adapted adapted = openvla_adapted(model);

    return adapters_detach(&adapted);
}
