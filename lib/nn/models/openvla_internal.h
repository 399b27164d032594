/* openvla_internal.h - the parameters of an OpenVLA by role, and the steps a pass is made of.
 *
 * Used by openvla_*.c and by the golden check, which looks between the steps. */
#pragma once

#include "base/philox.h"
#include "nn/models/openvla.h"
#include "nn/adapters.h"

struct affine { const struct param *weight, *bias; };

struct vit_block {
    struct affine norm1, qkv, proj, norm2, fc1, fc2;
    const struct param *scale1, *scale2;        /* LayerScale; NULL: none */
    struct affine gamma, beta;                  /* FiLM: (dim, hidden); NULL: none */
};

struct vit {
    struct affine patch;                        /* convolution [dim][3][p][p] as a linear map */
    const struct param *position, *cls, *reg;   /* cls, reg: NULL without prefix tokens */
    struct vit_block *blocks;                   /* [depth]; the last never runs */
};

struct llama_layer {
    const struct param *norm1, *q, *k, *v, *o, *norm2, *gate, *up, *down;
};

struct head { struct affine fc1, fc2; };

/* How a tensor lay in the files that were read. */
struct openvla_layout { int shard, place; enum dtype dtype; };

enum { OFT_MAX_BLOCKS = 8 };
struct oft_weights {                            /* nothing but parameter pointers: openvla_clone translates them */
    struct affine norm1, fc1, norm2, fc2;       /* the L1 head, ... */
    struct affine block_norm[OFT_MAX_BLOCKS], block[OFT_MAX_BLOCKS];    /* ... and its residual blocks */
    struct affine proprio[2];
    struct head scale;
};

struct openvla_weights {
    struct vit vit[2];
    struct affine projector[3];
    const struct param *embedding, *norm, *lm_head;
    struct llama_layer *layers;                 /* [layers] */
    struct head value, reward;
    struct oft_weights oft;
    int trunk;                                  /* the first parameters are the checkpoint's; heads come behind */
    uint8_t *init;                              /* [trunk] how a fresh model fills it (openvla_weights.c) */
    struct openvla_layout *layout;              /* [trunk] */
    bool fresh;                                 /* never read: the layout says nothing */
};

/* openvla_load_halves of what lies in DIR without adapters. sha256: of its manifest, when other models are loaded on the same files,
 * which they then share (nn/base_files.h); else NULL. */
int openvla_load_alone(const char *dir, const char *sha256, int64_t halves_from, struct openvla **ret, struct error *error);
/* openvla_load of an adapter's directory (openvla_adapter.h, or PEFT's), its base being at `base`, which is shared as above. */
int openvla_adapter_load(const char *dir, const char *base, const char *sha256, int64_t halves_from, struct openvla **ret,
                         struct error *error);
/* value_head.safetensors and reward_head.safetensors of the heads that there are. */
int openvla_save_heads(const struct openvla *model, const char *dir, struct error *error);

/* Registration of all parameters (openvla_weights.c), by what is in the shards; NULL for a fresh model: everything that the
 * configuration asks for. problems: all of them, or NULL: the first is the error. */
int openvla_register(struct openvla *model, const struct hf_shards *shards, struct hf_problems *problems, struct error *error);
/* openvla_new without the values. */
int openvla_plan(const char *dir, struct openvla **ret, struct error *error);
int openvla_register_head(struct openvla *model, const char *name, int inputs, int width, struct head *head);
void openvla_initialise(struct openvla *model, uint64_t seed);      /* a fresh model's values */
/* The same values piece by piece, for a model that is never in memory at once. */
struct openvla_init { uint8_t kind; struct philox random; float bound; };
void openvla_init_begin(const struct param *param, uint8_t kind, uint64_t seed, struct openvla_init *ret);
void openvla_init_next(struct openvla_init *init, float *ret, int64_t n);
void openvla_initialise_affine(const struct affine *map, uint64_t seed);        /* +-1/sqrt(inputs), bias 0 */
void openvla_initialise_norm(const struct affine *norm);                        /* 1, 0 */
void openvla_initialise_head(const struct head *head, uint64_t seed);

/* config.json and its companions (openvla_config.c). shards NULL: a fresh model, dims from gantry_vision. */
int openvla_configure(struct openvla *model, const char *dir, const struct hf_shards *shards, struct error *error);
int openvla_read_stats(const json_t *norm_stats, struct action_stats **ret, int *ret_n, struct error *error);
/* -EINVAL: one of the n ranges (those where mask says so; NULL: all) ends below where it begins, which would turn what the policy
 * says round, or is too wide for a number. One value is a range. */
int openvla_check_range(const char *what, const char *low_name, const double *low, const char *high_name, const double *high,
                        const bool *mask, int n, struct error *error);
void openvla_free_stats(struct action_stats *stats, int n);
/* Strategy, chain and crop of pictures (openvla_pictures.c). */
int openvla_read_pictures(struct openvla_config *config, const json_t *preprocessor, struct error *error);
/* Put `"key": value` in front of config.json's first member: all else stays to the byte. -EINVAL: it is no object. */
int openvla_say(struct hf_files *files, const char *member);
int openvla_read_chain(struct openvla_config *config, const json_t *json, struct error *error);

/* ---- the steps of a pass ------------------------------------------------------------------------------- */

/* Rows of one pass through the language model: whose they are and where. Arrays of `rows` entries. */
struct llama_rows {
    struct spans spans;                         /* of each sequence's keys and values */
    struct spans own;                           /* of the rows themselves: the last ones of their sequences, or all */
    const int32_t *keys;                        /* row of each key and value; NULL: a row is its own */
    const int32_t *position;
    struct kv_cache *cache;                     /* [layers]; NULL: nothing is kept */
    const int32_t *slot;                        /* of each row, with a cache */
    bool bidirectional;                         /* every row sees its whole sequence; no tail then */
    const int32_t *tail;                        /* rows whose queries the last layer answers and goes on with; NULL: all */
    struct spans tail_spans;
    const int32_t *tail_position;
};

struct vision_pass { struct tensor *dino, *siglip, *projector; };
/* words (n, hidden): what each picture is modulated by; NULL without FiLM. */
struct vision_pass openvla_vision(const struct openvla *model, struct tape *tape, const uint8_t *const *images, int n,
                                  struct tensor *words);

/* All layers and the final norm; layer[0..layers] are written if not NULL. */
struct tensor *openvla_llama(const struct openvla *model, struct tape *tape, struct tensor *x, const struct llama_rows *rows,
                             struct tensor **layer);
/* One row per sequence, against what the caches hold. */
struct tensor *openvla_llama_step(const struct openvla *model, struct tape *tape, struct tensor *x, const int32_t *slot,
                                  const int32_t *position, struct kv_cache *cache);

/* The files beside the checkpoint (openvla_oft_io.c). oft_configure reads config.json's gantry_oft, oft_register opens the files
 * and registers what they hold, oft_read fills it once there is memory. */
enum oft_file { OFT_ACTION_HEAD, OFT_PROPRIO, OFT_SCALE_HEAD, OFT_VISION, OFT_FILES };
struct oft_files {
    char *path[OFT_FILES];                      /* NULL: there is none */
    struct safetensors *file[OFT_FILES];        /* either this, ... */
    struct torch_file *saved[OFT_FILES];        /* ... or what the training script left */
};
int oft_configure(struct openvla *model, const json_t *config, struct error *error);
int oft_register(struct openvla *model, const char *dir, struct oft_files *files, struct error *error);
int oft_read(struct openvla *model, const struct oft_files *files, struct error *error);
void oft_files_close(struct oft_files *files);
/* Scale and shift of every block (openvla_film.c): registered by what the file has, or, file NULL, fresh ones. */
int film_register(struct openvla *model, const struct oft_files *files, struct error *error);
/* Their values, and those of the towers that the file has beside them, adapters added (fp32 sums). */
int film_read(struct openvla *model, const struct oft_files *files, struct error *error);
bool film_is(const struct param *param);                        /* a scale or shift of FiLM */
bool film_brings(const struct oft_files *files, const struct param *param);     /* a tower's value that comes from the file */
const struct st_tensor *oft_find(const struct oft_files *files, enum oft_file file, const char *name);
/* (n, proprio) normalised states -> (n, hidden) tokens (openvla_oft.c). */
struct tensor *oft_state_tokens(const struct openvla *model, struct tape *tape, const float *states, int n);

/* openvla_forward_tail; keys and values of all rows go into cache[layers] (slot = number of the sequence), unless NULL. */
int openvla_forward_cached(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                           struct kv_cache *cache, struct openvla_pass *ret);

/* Sequences per pass over prompts: their activations stay in the caches; any number gives the same bits. */
enum { OPENVLA_PREFILL_CHUNK = 4 };

/* ---- acting, step by step (openvla_act.c) ------------------------------------------------------------------ */

/* Tensors on the session's tape: gone with its next pass. Row i belongs to sequence slot[i]: those that act, not value_only. */
struct act_pass {
    int rows;
    const int32_t *slot;
    struct tensor *logits;      /* (rows, 256), or all of the padded vocabulary */
    struct tensor *value;       /* (n, 1), of the prefill only; NULL: no head, or it wants inputs */
};
int openvla_prefill(const struct openvla *model, struct openvla_session *session, const struct act_item *items, int n,
                    bool action_only, struct act_pass *ret);
/* Append token[i] to sequence slot[i] of the prefill, for each of its rows. */
int openvla_step(const struct openvla *model, struct openvla_session *session, const int32_t *token, bool action_only,
                 struct act_pass *ret);
