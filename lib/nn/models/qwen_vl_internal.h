/* qwen_vl_internal.h - the parameters of a Qwen2(.5)-VL by role, and the steps a pass is made of. */
#pragma once

#include "nn/models/qwen_vl.h"

#define QWEN_HEAD_FILE "reward_head.safetensors"

struct qwen_affine { const struct param *weight, *bias; };

struct qwen_block {
    struct qwen_affine norm1, qkv, proj, norm2;     /* norms of Qwen2.5 have no bias */
    struct qwen_affine fc1, fc2;                    /* Qwen2 */
    struct qwen_affine gate, up, down;              /* Qwen2.5 */
};

struct qwen_layer {
    const struct param *norm1, *norm2, *o, *gate, *up, *down;
    struct qwen_affine q, k, v;
};

struct qwen_weights {
    const struct param *patch;                      /* (dim, 3, temporal, patch, patch) */
    struct qwen_block *blocks;
    struct qwen_affine merger_norm, merger[2];
    const struct param *embedding, *norm, *lm_head; /* lm_head: the embedding when tied */
    struct qwen_layer *layers;
    struct { struct qwen_affine fc1, fc2; } reward;
    int reward_begin;                               /* number of the head's first parameter; params.count: none */
};

int qwen_vl_configure(struct qwen_vl *model, const char *dir, struct error *error);
/* shards NULL: all that the configuration asks for, none of which is in a file. */
int qwen_vl_register(struct qwen_vl *model, const struct hf_shards *shards, struct hf_problems *problems, struct error *error);
int qwen_vl_register_head(struct qwen_vl *model, int width);
int qwen_vl_find_words(struct qwen_vl *model, struct error *error);     /* ids of the tokenizer that the prompt needs */

/* ---- where everything of a pass lies (qwen_vl_layout.c) ------------------------------------------------------ */

struct qwen_layout {
    int n;                              /* sequences */
    int rows, text;                     /* tokens of all sequences, those that are text */
    int32_t *ids;                       /* [text] */
    int32_t *splice;                    /* [rows] >= 0: text row, else -1 - merged row */
    int32_t *position[3];               /* [rows] t, h, w */
    int32_t *delta;                     /* [n] largest position + 1 - length */
    int32_t *start;                     /* [n+1] */
    int32_t *last;                      /* [n] last row of each */
    int32_t *ones;                      /* [n+1] 0, 1, 2...: spans of the last rows */
    int n_pictures;
    struct qwen_picture *pictures;      /* [n_pictures], each once */
    int patches, merged;                /* rows of all pictures: patches, tokens */
    int32_t *picture_start;             /* [n_pictures+1] first patch row */
    int n_windows, n_windows_raw;
    int32_t *window_order;              /* [merged] Qwen2.5: unit i of the tower's order is this unit of the pictures' */
    int32_t *window_back;               /* [merged] its inverse */
    int32_t *window_rows;               /* [patches] the same for patch rows */
    int32_t *window_start, *window_start_raw;   /* first patch row of each window; raw: as built, empty ones too */
};
/* In tape memory. -EINVAL: pictures and ids do not fit one another or the model. */
int qwen_layout(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n, struct qwen_layout *ret);

/* qwen_vl_window.c: fills the window_* fields. */
void qwen_windows(const struct qwen_vision_config *config, struct qwen_layout *layout);
/* Most windows, empty ones included, that a picture of these merged sides is cut into. */
int qwen_windows_most(const struct qwen_vision_config *config, int height, int width);

/* ---- angles (qwen_vl_positions.c) ------------------------------------------------------------------------------ */

/* Positions of one sequence; ids of a picture are `merged` = height/merge x width/merge each. Returns the largest + 1. */
int qwen_positions(const struct qwen_vl_config *config, const struct qwen_item *item, int32_t *t, int32_t *h, int32_t *w);
/* (rows, head_dim) cos and sin for op_rope_table. NULL in a dry run or with tape->error set. */
float *qwen_text_table(const struct qwen_vl_config *config, struct tape *tape, int32_t *const position[3], const int32_t *rows,
                       int n);
/* (patches, dim/heads) for the tower, in the order of its rows. */
float *qwen_vision_table(const struct qwen_vision_config *config, struct tape *tape, const struct qwen_layout *layout);

/* ---- the two halves ----------------------------------------------------------------------------------------------- */

struct tensor *qwen_vision(const struct qwen_vl *model, struct tape *tape, const struct qwen_layout *layout,
                           struct qwen_pass *pass);
/* Hidden states after the final norm: of the last rows (tail) or of all. */
struct tensor *qwen_text(const struct qwen_vl *model, struct tape *tape, struct tensor *x, const struct qwen_layout *layout,
                         bool tail, struct tensor **layer);
