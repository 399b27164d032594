/* prm_internal.h - the check of reward models: one manifest for several models, one line for each tensor.
 *
 * A set holds manifest.json (files, tolerances), stats.json, common/ (pictures, tables) and a folder per model: model/ (a
 * Qwen2-VL or Qwen2.5-VL directory), prompts.json, inputs, reward_head, lora/, forward_*, train_* (the set's README defines every
 * tensor). */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "nn/models/qwen_vl_internal.h"

struct prm_check {
    const char *dir;
    FILE *out;
    struct error *error;
    json_t *manifest, *stats;
    json_t *seen;                       /* "path of the file: tensor" of what was compared */
    struct safetensors *pictures;       /* common/images.safetensors */
    uint8_t **resized;                  /* [n_pictures] by our own resize, once it has been compared */
    struct qwen_picture *picture; int n_pictures;
    int failed;

    /* the model at hand */
    const char *name;
    bool bf16;                          /* matrices kept as bf16, held against the fp32 numbers with the tolerances of bf16 */
    struct qwen_vl *model;
    json_t *prompts;
    struct qwen_item *items; int n;
    int32_t **ids;                      /* [n], owned */
    float *labels;                      /* [n] */
};

/* ---- lines (prm_compare.c) ------------------------------------------------------------------------------------ */
enum prm_rule { PRM_EXACT, PRM_REL_L2, PRM_ABS, PRM_REL };      /* PRM_REL: one number, relative */
/* n numbers against a tensor of the file (or `values`); what is missing or of another size fails. */
void prm_tensor(struct prm_check *p, const struct safetensors *file, const char *name, const float *x, int64_t n,
                enum prm_rule rule, double limit);
void prm_integers(struct prm_check *p, const struct safetensors *file, const char *name, const int32_t *x, int64_t n);
void prm_values(struct prm_check *p, const char *name, const double *x, const double *ref, int64_t n, enum prm_rule rule,
                double limit);
/* Things that are right or wrong: so many of them, the first wrong one. */
void prm_count(struct prm_check *p, const char *name, int count, int wrong, const char *first_wrong);
struct prm_tally { int wrong; char first[128]; };
_printf_(2, 3) void prm_wrong(struct prm_tally *tally, const char *format, ...);       /* one more: which it is */
void prm_count_tally(struct prm_check *p, const char *name, int count, const struct prm_tally *tally);
/* A list of whole numbers. */
bool prm_same_integers(const json_t *want, const int *x, int n);
/* This tensor is compared in a way of its own. */
void prm_note(struct prm_check *p, const struct safetensors *file, const char *name);
/* Tensors that the manifest lists for FILE and nothing compared: one FAIL. */
void prm_expect_all(struct prm_check *p, const char *file);
void prm_skip(struct prm_check *p, const char *name, const char *reason);
/* tolerance.fp32.KEY of the manifest; with p->bf16 the number of tolerance.bf16.KEY or KEY_to_fp32. */
double prm_tolerance(const struct prm_check *p, const char *key);
/* Relative L2 that a tensor of the forward pass may be off. bf16: twice what the reference's own bf16 is off, at least 2e-3. */
double prm_forward_limit(const struct prm_check *p, const char *name);

/* DIR/FORMAT; NULL: not there (no error), or unreadable (*error says why). */
struct safetensors *prm_open(struct prm_check *p, const char *file);
json_t *prm_json(struct prm_check *p, const char *file);
bool prm_has(const struct prm_check *p, const char *file);

/* ---- groups ------------------------------------------------------------------------------------------------------ */
int prm_check_common(struct prm_check *p);      /* tables and pictures, before any model */
int prm_check_inputs(struct prm_check *p);      /* tokenizer, prompts, positions, windows; fills items */
int prm_check_forward(struct prm_check *p);     /* every intermediate, logits, scores */
int prm_check_full(struct prm_check *p);        /* gradients of all parameters, three updates; the model is spent after it */
int prm_check_adapters(struct prm_check *p);    /* the same with adapters, head and adapters learning; they are gone after it */
int prm_forward_adapted(struct prm_check *p);   /* scores with the adapters that are attached */
