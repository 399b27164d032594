/* openvla_oft.h - OpenVLA-OFT: a chunk of actions in one pass, read off empty positions that see the whole sequence.
 *
 *     <s>  patches of 1 or 2 pictures  (robot state)  rest of the prompt  chunk * dims empty positions  </s>
 *
 * The row before an empty position answers it, so the answers are the prompt's last row and all empty rows but the last. What
 * is read off them depends on the kind (config.oft.kind):
 *     OFT_L1        numbers: LayerNorm, Linear, residual blocks over the dims of one action side by side (imitation, inference)
 *     OFT_TOKENS    ids: the language model's head, as the autoregressive policy has it
 *     OFT_LAPLACE   the L1 head as the middle of a Laplace distribution, its scale by a head of its own: what RL can sample from
 *
 * On disk: the directory of an OpenVLA, beside it action_head.safetensors, proprio_projector.safetensors, scale_head.safetensors,
 * vision_backbone.safetensors (FiLM), or what the original training script left (action_head--STEP_checkpoint.pt ...).
 * config.json may say
 *     "gantry_oft": {"kind": "l1", "chunk": 8, "images": 2}
 * which otherwise is: l1, 8, 2 pictures with a robot state and 1 without. Of 14 dims and no chunk said the constants are those of
 * the original for ALOHA: 25, and actions and states lie between min and max, not q01 and q99. kind "none" makes it an OpenVLA
 * again.
 * Thread rule as in openvla.h.  Failure rule: -errno with one line that names file and tensor. */
#pragma once

#include "nn/models/openvla.h"

enum { OFT_MAX_SLOTS = 512 };           /* chunk * dims */

static inline int oft_slots(const struct openvla_config *config) { return config->oft.chunk * config->action_dims; }

const char *oft_kind_name(enum oft_kind kind);      /* as config.json says it; not of OFT_UNSAID */

/* Read the side files of `dir` into a loaded, unpacked model. how: kind, chunk and images are taken, the rest comes from the
 * tensors. -ENOENT: a file that the kind needs is not there. */
int oft_attach(struct openvla *model, const char *dir, const struct oft_config *how, struct error *error);
/* Fresh heads on a loaded, unpacked model without them: where fine-tuning of an OpenVLA begins. The L1 head makes the kind OFT_L1
 * with the given chunk; the head for the scale, which says exp(log_scale) everywhere at first, makes that OFT_LAPLACE. -EEXIST: it
 * is there; -EINVAL: nonsense sizes, or no L1 head for a scale to go with. */
int oft_make_tokens(struct openvla *model, int chunk);          /* OFT_TOKENS: no head of its own */
int oft_add_action_head(struct openvla *model, int chunk, int width, int blocks, uint64_t seed);
int oft_add_state(struct openvla *model, int numbers, uint64_t seed);
int oft_add_scale_head(struct openvla *model, int width, float log_scale, uint64_t seed);
/* Modulation of the vision towers by the words (FiLM, OpenVLA-OFT+): all zero, which changes nothing, where it is not yet.
 * -EINVAL: no OFT. */
int oft_add_film(struct openvla *model);
/* Has it parts beside the checkpoint that are trained whole, also with adapters: heads, the robot state's projector, FiLM? */
bool oft_trains_whole(const struct openvla *model);
/* The values of those parts from the side files of `dir`, as far as there are any, in place of what they are. -EINVAL: for
 * another base. */
int oft_read_trained(struct openvla *model, const char *dir, struct error *error);
/* Write the side files of `dir`, all as one dtype. */
int oft_save(const struct openvla *model, const char *dir, enum dtype dtype, struct error *error);
/* Every tensor of the side files of `dir`, as it is stored, for whoever asks about values before a model is loaded. 0, or what look
 * answered, if that is below 0: it was the last. */
int oft_look(const char *dir, int (*look)(const struct st_tensor *tensor, void *arg), void *arg, struct error *error);

/* The robot's state as the projector takes it: 2 (x - low) / (high - low + 1e-8) - 1, clipped to [-1,1]. */
void oft_normalise_state(const struct action_stats *stats, const double *state, double *ret);

/* ---- one pass on a tape: openvla_forward with item.slots = oft_slots, then ------------------------------------------- */

/* (n*slots, hidden): the rows that answer. */
struct tensor *oft_answers(const struct openvla *model, struct tape *tape, const struct openvla_pass *pass, int n);
/* (n*slots, hidden) -> (n*chunk, dims) normalised actions. -EINVAL on the tape: no such head. */
struct tensor *oft_actions(const struct openvla *model, struct tape *tape, struct tensor *answers);
/* (n*slots, hidden) -> (n*chunk, dims) log b, clamped to [OFT_LOG_SCALE_MIN, OFT_LOG_SCALE_MAX]. */
struct tensor *oft_log_scale(const struct openvla *model, struct tape *tape, struct tensor *answers);
#define OFT_LOG_SCALE_MIN (-5.0f)
#define OFT_LOG_SCALE_MAX 0.5f

/* ---- acting ------------------------------------------------------------------------------------------------------------ */

struct oft_item {
    const uint8_t *images[OPENVLA_MAX_IMAGES]; int n_images;
    const int32_t *prompt; int n_prompt;
    const float *proprio;                           /* normalised; NULL: none */
    float temperature;                              /* 0: greedy */
    bool full;                                      /* ids: softmax over the padded vocabulary instead of the action ids */
    uint64_t seed, episode; uint32_t step, sample;  /* the sampling counter; the slot is the last word of it */
};
struct oft_result {
    double action[OFT_MAX_SLOTS];       /* normalised, action by action; of ids their decoded value */
    int32_t tokens[OFT_MAX_SLOTS];      /* ids; of the other kinds the bits of the number as a float */
    float logp[OFT_MAX_SLOTS];          /* of the tempered distribution drawn from; OFT_L1 has none: 0 */
    float entropy;                      /* mean per slot */
    float value;                        /* 0 without a value head, or when it wants inputs the actor has not */
};
/* n <= max_batch items. Row i does not depend on the other rows. openvla_act_hidden has the states that the first slots' answers
 * were read from. */
int oft_act(const struct openvla *model, struct openvla_session *session, const struct oft_item *items, int n,
            struct oft_result *results);
