/* mirror.h - a model's parameters on a device: fp32 values in one arena like the host's, and the same as bf16 for products.
 *
 * Matrices kept as bf16 never change, and are there once for all models of the process whose matrices lie at the same places of the
 * host (nn/base_files.h).
 *
 * param->on_f32 is value's place (NULL for a matrix kept as bf16), on_bf16 the bf16 one's (NULL without `device_half`, but for
 * matrices kept so). params_pack() calls this, and sends the host's values; those are of the past once an optimiser has run there
 * (mirror_changed). */
#pragma once

#include "nn/device/device.h"
#include "nn/param.h"

struct mirror;

/* Everything between these floats of the arena that may have changed; the first call allocates and sends all. serving: adapters
 * that read the same are joined there, too (nn/lora_join.h), but in strict bf16, where a library multiplies and may sum the
 * larger product in another order than the learner's. */
int mirror_update(struct params *params, int64_t begin, int64_t end, bool serving);
/* The device's fp32 values between these floats are newer (an optimiser ran there): bf16 follows; the host's with `download`. */
int mirror_changed(struct params *params, int64_t begin, int64_t end, bool download);
float *mirror_values(struct mirror *mirror);            /* the arena of fp32 values, device memory */
/* No two mirrors of a process have the same: what knows their addresses by it does not mistake one for another. */
uint64_t mirror_id(const struct mirror *mirror);
struct mirror *mirror_free(struct mirror *mirror);
/* Bytes on the device for these parameters; of them those of matrices kept as bf16, which models on one base have once; what joined
 * adapters take beside them. */
size_t mirror_bytes(const struct params *params, bool half);
size_t mirror_shared_bytes(const struct params *params);
size_t mirror_joined_bytes(const struct params *params, bool half, bool strict);
