/* synthetic.h - models of the real sizes, in memory, without a checkpoint: matrices bf16 as one has them, the values a small
 * block of random numbers again and again, matrices of one distribution in the same half a gigabyte. For benches: what is
 * multiplied is of the right size, and nobody waits for fifteen gigabytes of random numbers, nor has room for them on the host.
 * Failure rule: -errno with one line. */
#pragma once

#include "nn/models/openvla.h"
#include "nn/models/qwen_vl.h"

/* Matrices of the models made from now on are address space that holds zeros, until the process ends: for a device that only
 * counts (count_device.h). */
void synthetic_hollow(void);
/* size: as `gantry model synth` calls them (nn/models/openvla_synth.h). layers: this many of each of the three stacks (towers:
 * one more, which never runs), 0: all. Not packed. */
int synthetic_policy(const char *size, int layers, struct openvla **ret, struct error *error);
/* OpenVLA-7B by its shapes alone, as its checkpoint has them, all bf16: no values, no tokenizer. NULL: out of memory. */
struct openvla *synthetic_shapes_of_7b(void);
/* Qwen2-VL-2B's dims, or, small, a thousandth of them; a reward head. No tokenizer: prompts are made of ids (synthetic_prompt).
 * Not packed. */
int synthetic_reward(bool small, struct qwen_vl **ret, struct error *error);
/* One picture of side x side pixels, its tokens and `text` more ids. Caller frees *ret_ids. -ENOMEM. */
int synthetic_prompt(const struct qwen_vl *model, int side, int text, int32_t **ret_ids, int *ret_n);
/* Every B of the adapters and every last layer of the heads: small numbers, others by `seed`. So they say something. */
void synthetic_speak(struct params *params, uint64_t seed);
