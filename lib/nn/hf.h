/* hf.h - reading a model directory in Hugging Face form: its JSON files, its shards, its small files as they are.
 *
 * Rules that cost days when missed: fields absent from a Llama text_config take the class's defaults, not Llama-2's
 * published configuration (rms_norm_eps 1e-6); the image statistics in use are preprocessor_config.json's
 * tvf_normalize_params when they are there; dataset_statistics.json, if present, replaces config.json's norm_stats.
 * Thread rule: none.  Failure rule: -errno, one line that names the file and the key. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "nn/safetensors.h"

#define _cleanup_json_ _cleanup_(json_decrefp)      /* jansson's own */

/* DIR/NAME as JSON, an object. *ret is the caller's reference. */
int hf_json(const char *dir, const char *name, json_t **ret, struct error *error);

/* A member of an object; absent or null: *ret = fallback. -EINVAL: there, but of another type. */
int hf_integer(const json_t *object, const char *key, int64_t fallback, int64_t *ret, struct error *error);
int hf_real(const json_t *object, const char *key, double fallback, double *ret, struct error *error);

struct hf_llama {
    int64_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads;
    int64_t vocab_size, max_position_embeddings;
    double rms_norm_eps, rope_theta;
};
/* text_config (NULL: all defaults) with LlamaConfig's defaults for what it leaves out. */
int hf_llama(const json_t *text_config, struct hf_llama *ret, struct error *error);

/* Image statistics of preprocessor_config.json: mean and standard deviation per tower and channel. */
int hf_image_statistics(const json_t *preprocessor, int towers, double (*ret_mean)[3], double (*ret_std)[3], struct error *error);

/* What is wrong with a directory, one line each: file, tensor, found, expected. Loading stops at the first (all = NULL: it goes
 * into *error and comes back as -errnum); `gantry model verify` wants to see them all (returns 0, the search goes on). */
struct hf_problems {
    void (*found)(void *arg, const char *line);
    void *arg;
    int count;
};
int hf_problem(struct hf_problems *all, struct error *error, int errnum, const char *format, ...) _printf_(4, 5);

/* The shards of a model: through model.safetensors.index.json, or model.safetensors alone. The index and the shards agree when
 * this returns: no tensor is missing, in another file, or in two, and none is left out. Both, where the index means other
 * files, are two models: -EINVAL. */
struct hf_shards {
    struct safetensors **file;      /* in the order of their names */
    int n;
    int64_t total_size;             /* metadata of the index; -1: none */
};
/* -ENOENT: neither an index nor model.safetensors. Tensors point into the mapped files until hf_shards_close. */
int hf_shards_open(const char *dir, struct hf_shards *ret, struct error *error);
/* One file alone, such as a head or an adapter. */
int hf_shards_open_file(const char *path, struct hf_shards *ret, struct error *error);
void hf_shards_close(struct hf_shards *shards);
const struct st_tensor *hf_shards_find(const struct hf_shards *shards, const char *name);     /* NULL: none of this name */
/* The file a tensor of these shards lies in: its path, and its number if ret_file is not NULL. */
const char *hf_shards_path(const struct hf_shards *shards, const struct st_tensor *tensor, int *ret_file);

/* -EINVAL: a value is NaN or infinite; the line says which. Reads the whole tensor. */
int hf_check_finite(const struct hf_shards *shards, const struct st_tensor *tensor, struct hf_problems *all, struct error *error);

/* Write weights as save_pretrained lays them out: model.safetensors, or shards of at most shard_bytes (0: 5 GB; a larger tensor
 * has one of its own) and their index. `shard`: which shard each tensor goes to, ascending, in the order given; NULL: by size,
 * each shard in the format's own order. The caller owns the directory and makes it durable (base/staged_dir.h). */
int hf_weights_write(const char *dir, const struct st_write *tensors, int n, int64_t shard_bytes, const int *shard,
                     struct error *error);

/* The files of a directory that are not weights, held in memory, so that they can be written beside new weights later: the
 * configuration, processor, tokenizer and statistics files by name, and *.py. */
struct hf_file { char *name; char *bytes; size_t n; };       /* a NUL behind the bytes */
struct hf_files { struct hf_file *list; int n; };
/* Both: -ENOMEM too; *ret is for hf_files_release. */
int hf_files_read(const char *dir, struct hf_files *ret, struct error *error);
int hf_files_copy(const struct hf_files *files, struct hf_files *ret);
/* All to the byte as they were, but for the values of config.json's torch_dtype (NULL: these too). */
int hf_files_write(const struct hf_files *files, const char *dir, const char *torch_dtype, struct error *error);
void hf_files_release(struct hf_files *files);
