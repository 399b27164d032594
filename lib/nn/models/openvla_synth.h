/* openvla_synth.h - a random checkpoint of a given size, all files, written without ever holding it in memory.
 *
 * For dry runs and tests: names, shapes, dtypes, shards and index are those of a real checkpoint of that size; the values are
 * drawn as for a fresh model, and the vocabulary is made up (byte pieces, the words of the prompt, fillers), since the real
 * one's is not ours to give away. `openvla_load` and `transformers` read it.
 * Failure rule: -errno and one line. */
#pragma once

#include "nn/models/openvla.h"

struct openvla_size {
    const char *name;           /* "openvla-7b", "tiny" */
    const char *help;
    int image, patch;
    struct { int dim, depth, heads, mlp, prefix; } tower[2];
    int hidden, layers, heads, intermediate;
    int vocab, empty_id;        /* vocab_padded is 64 more */
};
/* NULL: there is none of this name. */
const struct openvla_size *openvla_size_find(const char *name);
/* All there are, for a usage line. */
const struct openvla_size *openvla_sizes(int *ret_n);

struct openvla_synthesis { int tensors; int64_t parameters, bytes; };
/* dir exists and is empty (base/staged_dir.h); shard_bytes 0: 5 GB. */
int openvla_synth(const struct openvla_size *size, const char *dir, enum dtype dtype, uint64_t seed, int64_t shard_bytes,
                  struct openvla_synthesis *ret, struct error *error);

/* Everything but the weights (openvla_synth_files.c). */
int openvla_synth_files(const struct openvla_size *size, const char *dir, enum dtype dtype, struct error *error);
