/* openvla.h - the OpenVLA policy: dual vision tower -> projector -> Llama, action tokens, value and reward heads.
 *
 * One definition serves acting, scoring and training. A directory in Hugging Face form goes in (config.json,
 * preprocessor_config.json, tokenizer.json, safetensors) and the same form comes out. The dims come from
 * config.json and the tensors' shapes. Optional beside the model: value_head.safetensors
 * (value_head.fc1|fc2.{weight,bias}) and reward_head.safetensors (reward_head.fc1|fc2...).
 *
 *   openvla_load -> openvla_pack -> { openvla_act | openvla_score | openvla_forward on a tape ... }
 *
 * Threads: a packed model is read-only; any number of sessions and tapes use it at once. */
#pragma once

#include "image/prepare.h"
#include "nn/hf.h"
#include "nn/ops.h"

enum { OPENVLA_MAX_IMAGES = 8, OPENVLA_ACTION_BINS = 256, OPENVLA_MAX_ACTION_DIMS = 16, OPENVLA_MAX_PROPRIO = 32 };

struct tokenizer;
struct adapters;

struct openvla_tower {
    int dim, depth, heads, mlp;         /* depth: blocks in the file; depth-1 run */
    int patch;                          /* side of a patch, pixels */
    int prefix;                         /* cls and register tokens before the patches */
};
/* The last number of an action, the gripper's: binarise: sign(2g - 1), from data where 1 is open and 0 closed (.5 holds: 0);
 * invert: -g. LIBERO wants both: there -1 is open. */
struct gripper_rule { bool binarise, invert, said /* config.json has one */; };
enum oft_kind { OFT_NONE, OFT_L1, OFT_TOKENS, OFT_LAPLACE, OFT_UNSAID /* while a directory is being read */ };
struct oft_config {
    enum oft_kind kind;
    int chunk;                          /* actions that one pass answers */
    bool aloha;                         /* nothing says otherwise: as the original has it for ALOHA (openvla_oft.h) */
    int images;                         /* pictures of one observation */
    int proprio;                        /* numbers of the robot's own state that become one token; 0: no such token */
    int head_width, head_blocks;        /* of the L1 head; 0: none */
    int scale_width;                    /* of the head for the Laplace scale; 0: none */
    bool film;                          /* the towers' blocks are modulated by the mean of the words (FiLM) */
};
struct openvla_config {
    struct openvla_tower tower[2];      /* 0: DINOv2 (ImageNet statistics), 1: SigLIP */
    int image_height, image_width;
    int patches;                        /* per image */
    struct image_prepare prepare;       /* any picture to that size, as preprocessor_config.json has it */
    char image_chain[64];               /* config.json's gantry_image_chain: how the pictures it was trained on were made; "":
                                         * unsaid */
    float center_crop;                  /* gantry_center_crop: area that is kept of every picture and stretched back; 0: all of
                                         * it */
    int hidden, layers, heads, intermediate;
    int vocab, vocab_padded;            /* 32000, 32064: action ids are vocab-256 .. vocab-1 */
    float rms_eps, rope_theta;
    int max_positions;                  /* of a sequence: what the language model was made for */
    int pad_id, bos_id, eos_id, empty_id;   /* empty_id: the lone space token that ends every prompt (29871) */
    int value_width, reward_width;      /* hidden width of the heads; 0: no such head */
    int reward_history;                 /* recent frames in a reward prompt beside the first and the present one
                                         * (reward_config.h) */
    int value_inputs;                   /* extra inputs of the value head beside the hidden state (time, prm) */
    int action_dims;                    /* K, 7 */
    struct gripper_rule gripper;        /* config.json's gantry_gripper: what the environment wants beyond un-normalising */
    struct oft_config oft;              /* openvla_oft.h; kind OFT_NONE: the autoregressive policy */
};

/* How normalised actions become the environment's: one dataset's statistics. */
struct action_stats {
    char *key;
    int dims;
    double q01[OPENVLA_MAX_ACTION_DIMS], q99[OPENVLA_MAX_ACTION_DIMS];
    bool mask[OPENVLA_MAX_ACTION_DIMS];
    int proprio;                        /* numbers of the robot's own state; 0: the data set has none */
    double proprio_low[OPENVLA_MAX_PROPRIO], proprio_high[OPENVLA_MAX_PROPRIO];
    bool extremes;                      /* min and max of all of them are there, too */
    double min[OPENVLA_MAX_ACTION_DIMS], max[OPENVLA_MAX_ACTION_DIMS];
    double proprio_min[OPENVLA_MAX_PROPRIO], proprio_max[OPENVLA_MAX_PROPRIO];
};

struct openvla {
    struct openvla_config config;
    struct params params;
    struct tokenizer *tokenizer;
    float lut[6][256];                  /* pixel value of u8 per channel: tower 0, tower 1 */
    char *dir;                          /* where it was loaded from, for messages */
    struct hf_shards mapped;            /* files that matrices kept as bf16 lie in; none: n = 0 */
    struct base_files *base;            /* its own, or its base's, which other versions share (nn/base_files.h); NULL: nobody does */
    struct hf_files files;              /* all but the weights, as they were: written again on save */
    struct action_stats *stats;         /* one per dataset */
    int n_stats;
    struct openvla_weights *w;          /* parameters by role (openvla_internal.h) */
    struct adapters *lora;              /* low-rank ones (openvla_lora.h); NULL: none */
};

/* Load a directory, also one that holds an adapter and names its base (openvla_adapter.h), or has it beside the base's files.
 * -ENOENT, -EINVAL...: *error names the file, the tensor and what was expected. */
int openvla_load(const char *dir, struct openvla **ret, struct error *error);
/* The same for acting, scoring and adapters: in models of at least `from` parameters the matrices that lie as bf16 stay where
 * they are, in the mapped files (nn/param.h), frozen. What is computed is the same to the bit; small models are faster in
 * fp32. */
enum { OPENVLA_LARGE = 1 << 29 };
int openvla_load_halves(const char *dir, int64_t from, struct openvla **ret, struct error *error);
/* All that load does but for the values: configuration, tokenizer, names, shapes and dtypes, from the files' headers alone.
 * problems: told every missing, unexpected or wrong tensor (may be NULL: the first is the error); *ret_shards (may be NULL) is
 * for the caller to close. The parameters have no values. */
int openvla_open(const char *dir, struct hf_problems *problems, struct openvla **ret, struct hf_shards *ret_shards,
                 struct error *error);
/* The same of a directory that may hold adapters alone (nn/base_link.h): of what they sit on. */
int openvla_open_below(const char *dir, struct openvla **ret, struct error *error);
/* Write all files into `dir` (must exist, empty): weights as dtype "F32", "F16" or "BF16" in one file or shards of 5 GB, or,
 * NULL, each tensor as it was read, in the same order and shards; the small files as they were loaded; what OpenVLA-OFT has beside
 * them as dtype, or F32; heads for value and reward, if any, as F32. The caller makes the directory durable and renames it
 * (base/staged_dir.h). */
int openvla_save(const struct openvla *model, const char *dir, const char *dtype, struct error *error);
int openvla_save_sharded(const struct openvla *model, const char *dir, const char *dtype, int64_t shard_bytes,
                         struct error *error);
/* A fresh random model: config and tokenizer files of `dir`, weights by initialisation under `seed`. (`gantry model new`.)
 * config.json's gantry_vision must give each tower's dim, depth and mlp, which otherwise come from the tensors. */
int openvla_new(const char *dir, uint64_t seed, struct openvla **ret, struct error *error);
struct openvla *openvla_free(struct openvla *model);
DEFINE_FREEP(struct openvla, openvla_free)
int openvla_clone(const struct openvla *model, struct openvla **ret);           /* deep copy, unpacked */
int openvla_pack(struct openvla *model, bool training);         /* params_pack, where the process computes. -ENOMEM */
/* Add a head of hidden width `width` (last layer zero, first by `seed`) where there is none. */
int openvla_add_value_head(struct openvla *model, int width, int extra_inputs, uint64_t seed);
int openvla_add_reward_head(struct openvla *model, int width, uint64_t seed);

/* Prompt ids of an instruction: <s>, BPE of the prompt text, the empty token. Caller frees. -E2BIG: with the pictures and the
 * actions it is longer than the model's context. */
int openvla_prompt(const struct openvla *model, const char *instruction, int32_t **ret_ids, int *ret_n);
/* A line about an instruction that made no prompt. Returns r. */
int openvla_prompt_failed(const struct openvla *model, int r, struct error *error);
/* The reward model's prompt: the policy's own words, so that the trunk it starts from reads them as before; the second
 * image (first frame, then current frame) tells the two apart. -E2BIG: with its pictures it is longer than the model's
 * context. */
int openvla_reward_prompt(const struct openvla *model, const char *instruction, int32_t **ret_ids, int *ret_n);
int openvla_reward_prompt_failed(const struct openvla *model, int r, struct error *error);

/* From here on the policy says that it was trained on pictures of this chain ("": unsaid still), with random crops of this share
 * of the area (0: none). Every pass then crops the middle of its pictures, unless item.augmented. -EINVAL: it has said
 * otherwise. */
int openvla_set_pictures(struct openvla *model, const char *chain, float center_crop, struct error *error);

/* Action codec: normalised value -> id, id -> normalised value, normalised -> environment's units. */
int32_t openvla_encode(const struct openvla_config *config, double value);
double openvla_decode(const struct openvla_config *config, int32_t id);
const struct action_stats *openvla_stats(const struct openvla *model,
                                         const char *key); /* NULL key: the only one; NULL: none or several */
void openvla_unnormalise(const struct action_stats *stats, const double *normalised, double *ret_action);
/* As OpenVLA's data loading does it: 2 (a - q01) / (q99 - q01 + 1e-8) - 1, clipped to [-1,1], where the mask says so. Returns how
 * many numbers were outside. In place is fine. */
int openvla_normalise(const struct action_stats *stats, const double *action, double *ret_normalised);
void gripper_to_environment(const struct gripper_rule *rule, double *action, int dims);
/* What the policy answers as the suite takes it, un-normalised and its gripper turned, and the way back, for what a demonstrator
 * played in the suite: clipped to what the policy can say; returns how many numbers were outside. The model has one data set's
 * statistics (openvla_fit.h). In place is fine. */
void openvla_to_environment(const struct openvla *model, const double *normalised, double *ret_action);
int openvla_from_environment(const struct openvla *model, const double *action, double *ret_normalised);
/* OpenVLA-OFT's: the range is widened by 1e-8. */
void oft_unnormalise(const struct action_stats *stats, const double *normalised, double *ret_action);

/* ---- one pass on a tape ------------------------------------------------------------------------------- */

/* A batch: n sequences <s> + images' patches + (robot state) + prompt[1..] + actions, or + empty slots + </s>. With slots
 * attention has no direction, and all items of the batch must have some. */
struct openvla_item {
    const uint8_t *images[OPENVLA_MAX_IMAGES]; int n_images;    /* u8 [H][W][3], already the model's size */
    const int32_t *prompt; int n_prompt;                        /* from openvla_prompt */
    const int32_t *actions;
    int n_actions; /* teacher-forced ids (SFT: K + eos in the labels; here K or fewer); may be 0 */
    int slots;              /* OpenVLA-OFT: positions to be answered at once, zero vectors; 0: autoregressive */
    bool augmented;         /* the pictures are cropped already (training): all items of the batch, or none */
    const float *proprio;   /* [config.oft.proprio] normalised, or NULL: no such token */
};

/* Everything a loss may want. All hidden states are after the final norm. */
struct openvla_pass {
    struct tensor *hidden;      /* (sum S, hidden) of all sequences, packed */
    struct spans spans;         /* where each sequence is in it */
    int32_t *first;             /* [n] row that predicts the first action token (the prompt's last) */
    struct tensor *dino, *siglip, *projector;   /* (sum patches, .): kept for goldens */
    struct tensor **layer;      /* [layers+1] embeddings in and after each layer, before the final norm: for goldens;
                                 * openvla_forward's alone */
};
int openvla_forward(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                    struct openvla_pass *ret);
/* The same for losses and actors: the last layer asks and goes on only with the rows from each sequence's `first` to
 * its end (1 + n_actions of them). hidden, first and spans then count these rows; they are equal to the bit. With slots: all
 * rows. */
int openvla_forward_tail(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                         struct openvla_pass *ret);

/* Logits at rows of hidden: all of the padded vocabulary, or the 256 action ids only. */
struct tensor *openvla_logits(const struct openvla *model, struct tape *tape, struct tensor *rows, bool action_only);
/* (N, hidden [+ extra]) -> (N,1) value; extra (N,value_inputs) or NULL; detach stops the gradient at the trunk. */
struct tensor *openvla_value(const struct openvla *model, struct tape *tape, struct tensor *rows, const float *extra,
                             bool detach);
/* (N, hidden) -> (N,1) logit; progress = sigmoid. */
struct tensor *openvla_reward(const struct openvla *model, struct tape *tape, struct tensor *rows);

/* ---- acting and scoring (no tape needed by the caller) --------------------------------------------------- */

struct openvla_session;         /* one thread's scratch: arena and KV cache, for up to max_batch sequences */
/* For models of this configuration. -ENOMEM. */
int openvla_session_new(const struct openvla_config *config, int max_batch, struct openvla_session **ret);
struct openvla_session *openvla_session_free(struct openvla_session *session);
DEFINE_FREEP(struct openvla_session, openvla_session_free)

struct act_item {
    const uint8_t *images[OPENVLA_MAX_IMAGES]; int n_images;
    const int32_t *prompt; int n_prompt;
    float temperature;                              /* 0: greedy */
    uint64_t seed, episode; uint32_t step, sample;  /* the sampling counter; token is the last word of it */
    bool value_only;
    bool full;                                      /* softmax over the padded vocabulary instead of the 256 action ids */
    bool ended;                                     /* with full: one more token behind the action's; it ends nothing */
    int shadow_of;                                  /* 0: samples by itself. k: follows the tokens of item k-1, an earlier one of
                                                     * this call, under a prompt of its own: how far apart the two are is
                                                     * k-1's confidence */
};
struct act_result {
    int32_t tokens[OPENVLA_MAX_ACTION_DIMS + 1]; float logp[OPENVLA_MAX_ACTION_DIMS + 1]; /* K, with ended K + 1 */
    float entropy;                                  /* mean per token */
    float value;                                    /* 0 without a value head, or when it wants inputs the actor has not */
    float confidence;                               /* with a shadow: KL(own || shadow's) of the 256 action ids at T 1, summed
                                                     * over the tokens */
};
/* n <= max_batch items; prompts may differ in length. Row i does not depend on the other rows. */
int openvla_act(const struct openvla *model, struct openvla_session *session, const struct act_item *items, int n,
                struct act_result *results);
/* (hidden) state that predicted item i's first token, of the last openvla_act or oft_act; the session's, until its next call.
 * Equal to the bit to openvla_forward's row `first`. */
const float *openvla_act_hidden(const struct openvla_session *session, int i);

struct score_item { const uint8_t *images[OPENVLA_MAX_IMAGES]; int n_images; const int32_t *prompt; int n_prompt; };
/* Progress in (0,1) of n <= max_batch items, by the reward head. Item i does not depend on the others. -ENOTSUP: there is no such
 * head; -EINVAL: the session was made for another model. */
int openvla_score(const struct openvla *model, struct openvla_session *session, const struct score_item *items, int n,
                  float *ret_progress);
