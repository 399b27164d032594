/* qwen_vl.h - Qwen2-VL and Qwen2.5-VL as process reward models: pictures and text in, progress in [0,1] out.
 *
 * vision tower -> merger -> spliced into the text -> Qwen2 with M-RoPE -> hidden state of the prompt's last token -> reward head,
 * or P(Yes) against P(No) without one. A directory in Hugging Face form goes in (config.json, preprocessor_config.json,
 * tokenizer.json, safetensors; hub or save_pretrained form; tensors below model.* and visual.*, or model.language_model.* and
 * model.visual.*), with reward_head.safetensors (reward_head.fc1|fc2.{weight,bias}) optional beside it.
 *
 *   qwen_vl_load -> qwen_vl_pack -> { qwen_vl_picture_size, qwen_vl_prompt_text, qwen_vl_prompt_ids -> qwen_vl_score |
 *   qwen_vl_forward on a tape }
 *
 * Threads: a packed model is read-only; any number of sessions and tapes use it at once.
 * Failure rule: -errno; with a struct error, one line that names file, tensor or key, found and expected. */
#pragma once

#include "nn/adapters.h"
#include "nn/hf.h"
#include "nn/ops.h"

enum { QWEN_MAX_PICTURES = 64, QWEN_MAX_DEPTH = 128 };

struct tokenizer;

enum qwen_family { QWEN2_VL, QWEN2_5_VL };

struct qwen_vision_config {
    int dim, depth, heads, mlp;
    int patch, temporal, merge; /* side of a patch, frames of a patch, side of a group of patches that becomes one token */
    int window;                 /* Qwen2.5: side of an attention window in merged units; 0: every block sees the whole picture */
    bool whole[QWEN_MAX_DEPTH];         /* Qwen2.5: this block sees the whole picture */
    float rope_theta;
};

struct qwen_vl_config {
    enum qwen_family family;
    struct qwen_vision_config vision;
    int hidden, layers, heads, kv_heads, head_dim, intermediate, vocab;
    int section[3];                     /* of the rotary frequencies: so many follow time, height, width */
    float rms_eps, rope_theta;
    bool tied;                          /* the vocabulary's logits use the embedding */
    int max_positions;
    int image_id, vision_start_id, vision_end_id, yes_id, no_id;    /* yes, no: -1 when the tokenizer has no such word */
    int64_t min_pixels, max_pixels;
    int reward_width;                   /* of the head; 0: none */
};

struct qwen_vl {
    struct qwen_vl_config config;
    struct params params;
    struct tokenizer *tokenizer;
    float lut[3][256];                  /* pixel value of u8 per channel */
    char *dir;
    char *base;                         /* where the frozen backbone lies, as a version names it (nn/base_link.h); NULL: in dir */
    struct hf_files files;              /* all but the weights, as they were: written again on save */
    struct qwen_weights *w;             /* parameters by role (qwen_vl_internal.h) */
    struct hf_shards mapped;            /* what bf16 matrices lie in; n 0: none do */
    struct base_files *below;           /* its backbone's, which other versions share (nn/base_files.h); NULL: nobody does */
    enum dtype dtype;                   /* of the backbone's tensors as read: BF16, F16 or, when they differ, F32 */
    int history;                        /* recent past frames in a prompt beside the first (reward_config.json; else 4) */
    struct adapters *adapters;          /* low-rank ones (nn/adapters.h, by qwen_vl_adapted); NULL: none */
};

/* Is the model of this directory one of these two? By the model_type in its config.json, or in its base's. */
bool qwen_vl_is(const char *dir);
/* Also a directory of qwen_vl_save_trained: the backbone then comes from its base, whose digest is checked. */
int qwen_vl_load(const char *dir, struct qwen_vl **ret, struct error *error);
/* All but the values, from the files' headers; problems: told every missing, unexpected or wrong tensor (NULL: the first is the
 * error). The shards are for the caller to close; head and adapters are not looked at. */
int qwen_vl_open(const char *dir, struct hf_problems *problems, struct qwen_vl **ret, struct hf_shards *ret_shards,
                 struct error *error);
/* The same for scoring and for a frozen backbone: in models of at least `from` parameters the matrices that lie as bf16 stay
 * where they are, in the mapped files (nn/param.h). What is computed is the same to the bit; small models are faster in fp32. */
enum { QWEN_LARGE = 1 << 29 };
int qwen_vl_load_halves(const char *dir, int64_t from, struct qwen_vl **ret, struct error *error);
/* Into `dir` (exists, empty): weights as "F32" or "BF16" (NULL: as they were read), shards of 5 GB, the small files; the head,
 * the adapters (adapter_model.safetensors, adapter_config.json) and reward_config.json. Load reads all of it. Durable when the
 * directory is (base/staged_dir.h). */
int qwen_vl_save(const struct qwen_vl *model, const char *dir, const char *dtype, struct error *error);
/* What was trained alone: head, adapters, reward_config.json, and base.json, which names `base`: seen from dir, the directory of
 * the backbone as it is in memory, with its manifest.json. */
int qwen_vl_save_trained(const struct qwen_vl *model, const char *dir, struct error *error);
/* What qwen_vl_save_trained names from here on; NULL: nothing. -ENOMEM. */
int qwen_vl_set_base(struct qwen_vl *model, const char *base);
struct qwen_vl *qwen_vl_free(struct qwen_vl *model);
DEFINE_FREEP(struct qwen_vl, qwen_vl_free)
int qwen_vl_pack(struct qwen_vl *model, bool training);         /* params_pack, where the process computes. -ENOMEM */
/* The head of a reward_head.safetensors somewhere else, for a model without one. Pack again after it. */
int qwen_vl_load_reward_head(struct qwen_vl *model, const char *path, struct error *error);
/* For adapters_new, _load, _save, _merge, _detach. */
struct adapted qwen_vl_adapted(struct qwen_vl *model);
/* A reward head of hidden width `width` where there is none: last layer zero, first by `seed`. */
int qwen_vl_add_reward_head(struct qwen_vl *model, int width, uint64_t seed);

/* ---- what the model reads ---------------------------------------------------------------------------------- */

/* A picture of a size the tower takes: sides are multiples of patch * merge. */
struct qwen_picture { const uint8_t *rgb; int height, width; };

/* The size that a picture of height x width is resized to, and how many tokens it then is. -EINVAL: one line says why not. */
int qwen_vl_picture_size(const struct qwen_vl_config *config, int height, int width, int *ret_height, int *ret_width,
                         int *ret_tokens, struct error *error);

/* Past frames shown before frame t: the `recent` most recent ones, every stride-th, and the first; ascending, no repeats. Returns
 * how many; ret has room for recent + 1. */
int qwen_vl_kept_frames(int t, int recent, int stride, bool keep_first, int *ret);

/* One step of the past as the prompt tells it. */
struct qwen_step { int frame; const float *action; int dims; };
/* The text before pictures are expanded: chat frame, task, past steps, the question. Each picture is one <|image_pad|>. */
int qwen_vl_prompt_text(const char *instruction, const struct qwen_step *past, int n_past, char **ret, size_t *ret_n);
/* Ids of such a text; picture k of it becomes tokens[k] ids. Caller frees. -EINVAL: not n pictures in it, or not UTF-8; -E2BIG:
 * more ids than the model has positions. */
int qwen_vl_prompt_ids(const struct qwen_vl *model, const char *text, size_t n, const int *tokens, int n_pictures,
                       int32_t **ret_ids, int *ret_n);

/* ---- one pass on a tape ------------------------------------------------------------------------------------- */

struct qwen_item {
    const int32_t *ids; int n_ids;
    struct qwen_picture pictures[QWEN_MAX_PICTURES]; int n_pictures;    /* the same rgb twice in a pass is encoded once */
};

struct qwen_pass {
    struct tensor *last;        /* (n, hidden): each sequence's last row, after the final norm */
    struct tensor *hidden;      /* (rows, hidden) of all rows; NULL after a pass for scores */
    /* for goldens: */
    struct tensor *patches, **block, *merged, *embeds;  /* vision: patch embedding, each block, merger's order, own order */
    struct tensor **layer;      /* [layers+1] embeddings in, and after each layer */
    const struct qwen_layout *layout;
};
/* The last rows alone: the last layer asks and goes on with no others. */
int qwen_vl_forward(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n, struct qwen_pass *ret);
/* All rows and everything between. */
int qwen_vl_forward_full(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n,
                         struct qwen_pass *ret);
/* (n, hidden) -> (n, 1) logit; progress = sigmoid. */
struct tensor *qwen_vl_reward(const struct qwen_vl *model, struct tape *tape, struct tensor *last);
/* Logits of chosen ids of the vocabulary. */
struct tensor *qwen_vl_logits(const struct qwen_vl *model, struct tape *tape, struct tensor *rows, const int32_t *ids, int64_t n);

/* ---- scoring --------------------------------------------------------------------------------------------------- */

enum { QWEN_SCORES_THERE = 32 };        /* prompts of a pass on a device */

struct qwen_session;            /* one thread's scratch */
/* -ENOMEM. */
int qwen_session_new(struct qwen_session **ret);
struct qwen_session *qwen_session_free(struct qwen_session *session);
DEFINE_FREEP(struct qwen_session, qwen_session_free)
/* Progress of n items: by the reward head, or without one by P(Yes) / (P(Yes) + P(No)). Item i does not depend on the others.
 * -ENOTSUP: neither a head nor the words. */
int qwen_vl_score(const struct qwen_vl *model, struct qwen_session *session, const struct qwen_item *items, int n,
                  float *ret_progress);
