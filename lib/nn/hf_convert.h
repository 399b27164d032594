/* hf_convert.h - a model directory again, in another dtype or other shards; any architecture, one tensor in memory at a time.
 *
 * Weights keep their names and order; integers keep their dtype, and so do value_head and reward_head. Side files of torch.save
 * (OpenVLA-OFT's action_head--STEP_checkpoint.pt and its like) become action_head.safetensors. Small files are written as they
 * were, but for config.json's torch_dtype. The caller owns the directory (base/staged_dir.h).
 * Thread rule: none.  Failure rule: -errno and one line: file, tensor, found, expected. */
#pragma once

#include "nn/hf.h"

struct hf_conversion {
    bool change_dtype; enum dtype dtype;    /* F32, F16 or BF16 */
    int64_t shard_bytes;                    /* 0: as they are, or 5 GB when the dtype changes */
};
struct hf_converted { int tensors, side_files; int64_t bytes; };       /* of the shards */

/* `to`: a directory that exists and is empty. */
int hf_convert(const char *from, const char *to, const struct hf_conversion *how, struct hf_converted *ret, struct error *error);
/* One file of torch.save to a .safetensors file, wholly or not at all. */
int hf_convert_torch(const char *from, const char *to, int *ret_tensors, struct error *error);
