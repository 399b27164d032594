/* golden_internal.h - the check's book-keeping: groups of tensors, tolerances from the manifest, what has been looked at. */
#pragma once

#include "nn/golden.h"
#include "nn/models/openvla_internal.h"

enum { GOLDEN_SAMPLES = 3, GOLDEN_TOKENS = 7 };

struct golden {
    const char *dir;
    FILE *out;
    struct error *error;
    json_t *manifest, *seen;            /* seen: "file/tensor" of what was compared or taken as input */
    struct { char name[32]; struct safetensors *file; } files[16];
    int n_files;
    struct openvla *model;
    bool fast;                          /* numerics */
    const char *dtype;                  /* "fp32", "bf16": which of the reference's runs is compared with */
    int32_t *prompt[GOLDEN_SAMPLES];    /* by openvla_prompt, once they agree with the reference's */
    int n_prompt[GOLDEN_SAMPLES];
    const uint8_t *image[GOLDEN_SAMPLES];
    int32_t actions[GOLDEN_SAMPLES][GOLDEN_TOKENS];
    /* the group at hand */
    int count, failures;
    double worst;                       /* error as a part of its tolerance: 1 is the limit */
    char worst_name[128];
    int groups_failed;
};

/* Everything between begin and end makes one line. */
void golden_begin(struct golden *g);
void golden_end(struct golden *g, const char *group);
void golden_skip(struct golden *g, const char *group, int count, const char *reason);

/* The tensor of golden/FILE.safetensors, taken as given. NULL: *error is set. */
const struct st_tensor *golden_input(struct golden *g, const char *file, const char *name);
/* FOLDER/NAME.safetensors below the set's directory ("golden/" or ""), for the functions below. */
int golden_open(struct golden *g, const char *folder, const char *name);
bool golden_is_open(const struct golden *g, const char *name);
bool golden_has(struct golden *g, const char *file, const char *name);

/* "fp32.WHAT" or "bf16.WHAT": a tensor of the run at hand. */
const char *golden_name(const struct golden *g, const char *what, char ret[64]);
/* `id`, unless the manifest says "exact where margin > x" of those ids and the reference's best two are closer than that at `at`,
 * in this run or in its fp32 run (which does choose another there now and then): either may come first, and its own is taken. */
int32_t golden_undecided(struct golden *g, const char *file, const char *ids_of, const char *margins_of, int64_t at, int32_t id);

/* Compare n numbers with the reference under the manifest's tolerance. A difference is counted, not an error. */
int golden_compare(struct golden *g, const char *file, const char *name, const float *x, int64_t n);
int golden_compare_int(struct golden *g, const char *file, const char *name, const int32_t *x, int64_t n);
int golden_compare_double(struct golden *g, const char *file, const char *name, const double *x, int64_t n);
/* Differences of two logits. Of "bf16 abs" only the absolute bound is meant for them: what they cancel to says nothing about how
 * small the logits' own relative error is. */
int golden_compare_margin(struct golden *g, const char *file, const char *name, const float *x, int64_t n);
/* The tolerance holds for what a difference exceeds noise[i] by. */
int golden_compare_noisy(struct golden *g, const char *file, const char *name, const double *x, const double *noise, int64_t n);
/* Bytes or bf16 words. */
int golden_compare_bytes(struct golden *g, const char *file, const char *name, const void *x, size_t bytes);
/* A whole tensor of which the file may hold every k-th element ("what" says so), or only some rows (NAME.rows or `rows`). */
int golden_compare_sampled(struct golden *g, const char *file, const char *name, const float *x, int64_t n);
int golden_compare_rows(struct golden *g, const char *file, const char *name, const char *rows, const float *x, int64_t row_count,
                        int64_t cols);
/* A promise that is not in a file. */
void golden_expect(struct golden *g, bool true_, const char *name);

/* The three samples as a batch: prompt and the 7 action ids. */
void golden_items(const struct golden *g, struct openvla_item items[GOLDEN_SAMPLES]);

/* Imitation of the three samples in one batch: mean cross-entropy over K actions and </s> of each. */
enum { GOLDEN_LABELS = GOLDEN_TOKENS + 1 };
struct golden_sft {
    struct golden *g;
    int32_t position[GOLDEN_SAMPLES][GOLDEN_LABELS];    /* within each sequence */
    struct tensor *logits;      /* (samples * labels, vocab) */
    struct token_stats *stats;
    double loss;
};
/* Runs it on the tape; with a training one also backwards, into tape->param_grad. */
int golden_sft(struct golden *g, struct tape *tape, struct golden_sft *ret);
/* A training tape and a gradient for it: zeroed, the caller's to free. */
int golden_training_tape(struct golden *g, struct tape *tape, float **ret_grad);

/* The manifest's entry of golden/FILE.safetensors' tensor NAME; NULL: none. */
const json_t *golden_entry(struct golden *g, const char *file, const char *name);

int golden_check_inputs(struct golden *g);
int golden_check_forward(struct golden *g);
int golden_check_generate(struct golden *g);
int golden_check_logprobs(struct golden *g);
int golden_check_sft(struct golden *g);
int golden_check_adamw(struct golden *g);
int golden_check_ppo(struct golden *g);
int golden_check_oft(struct golden *g);           /* leaves the model with OFT's heads: the last check */
int golden_check_resize(struct golden *g);
int golden_check_lora(struct golden *g);        /* every adapter that the manifest has */
/* The forward pass, generation, log-probabilities and adapters against the reference's bf16 run. The weights are kept as bf16,
 * what is computed with them is fp32: nearer to the fp32 run than the reference's own bf16 run is. */
int golden_check_bf16(struct golden *g);
