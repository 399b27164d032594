/* checkpoint.h - a trainer on disk: the model in Hugging Face form, and beside it what training needs to go on to the bit.
 *
 * With adapters (LoRA) the directory holds them in fp32, the heads, and the base's name and digest (nn/models/openvla_adapter.h);
 * a reward model whose backbone lies elsewhere holds head and adapters likewise (qwen_vl_save_trained).
 * With bf16 weights (trainer_use_bf16) they are written as BF16, and the fp32 masters lie in train_state.
 * train_state.safetensors holds AdamW's moments of each part and one F64 tensor of scalars (steps, running normaliser,
 * counters, stage, reference). A directory without it is a plain checkpoint: moments start at zero.
 * The caller makes the directory before; it is durable and renamed after (lib/run/manifest.h). */
#pragma once

#include "train/trainer.h"

#define CHECKPOINT_STATE "train_state.safetensors"

int checkpoint_save(struct trainer *trainer, const char *dir, struct error *error);

/* Restore moments and counters into a trainer made from the model of the same directory. 0: restored; 1: there is no state file
 * (nothing changed). -EBADMSG: torn, or of another shape; the line says which tensor. The trainer is unchanged on failure. */
int checkpoint_load_state(struct trainer *trainer, const char *dir, struct error *error);
/* Without a trainer: the policy version that this stage (as trainer->stage counts) started from. 1: the directory is of another
 * stage, or has no state. */
int checkpoint_reference(const char *dir, uint64_t stage, uint64_t *ret, struct error *error);
