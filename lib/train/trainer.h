/* trainer.h - a model in training: its optimisers, its gradient, its learning-rate state, and how one update is made.
 *
 * The arena of parameters has three parts with their own AdamW, clip and learning rate: the trunk (all of the policy), the
 * value head and the reward head. With adapters (LoRA) the trunk's part is their A and B, without weight decay; the base
 * rests. An update whose gradient is not finite is skipped, counted and reported, never applied.
 * Results are equal to the bit for any number of threads and ranks, and after checkpoint_save / checkpoint_load_state.
 *
 * On a device (nn/device) the gradient, its norm, the clip and AdamW stay there (trainer_device.h): the host's values, moments
 * and masters are then of the past until trainer_fetch.
 * Thread rule: one thread (the shards' threads are its own). */
#pragma once

#include "nn/models/openvla.h"
#include "nn/models/qwen_vl.h"
#include "nn/optim.h"
#include "rl/stats.h"
#include "train/shards.h"

struct trainer_device;

enum trainer_part { TRAIN_TRUNK, TRAIN_VALUE, TRAIN_REWARD, TRAIN_PARTS };

struct part {
    struct adamw_range *ranges; int n;  /* in the arena, ascending; n = 0: the model has no such part */
    int64_t begin, end;                 /* the arena's span that moments are kept for */
    struct adamw adamw;                 /* m, v: [end - begin] */
};

struct trainer {
    struct openvla *model;              /* owned; packed for training. NULL: a reward model with a backbone of its own: */
    struct qwen_vl *reward;             /* owned; NULL: `model` is what is trained */
    struct params *params;              /* of the one that there is */
    struct shards *shards;
    float *grad;                        /* flat, like the arena; NULL on a device */
    float *masters;                     /* of the trunk's part in fp32, from its `begin` on; NULL: the values are their own */
    struct part parts[TRAIN_PARTS];
    struct trainer_device *there;       /* the model computes on a device, and this is its optimiser; NULL: on this host */
    struct running returns;             /* what the value head's targets are normalised by */
    int64_t skipped;                    /* updates left out: gradient not finite */
    uint64_t stage;                     /* stage these optimiser moments belong to; 0: none yet */
    uint64_t reference;                 /* policy version the stage started from */
};

/* Takes the model over on success. Packs it. Large models (OPENVLA_LARGE) are trained with shards_recompute; who knows that
 * memory is ample switches it off. */
int trainer_new(struct openvla *model, int threads, const struct group *group, struct trainer **ret);
/* The same for a reward model of Qwen-VL, whose backbone is frozen: its head learns, and its adapters if it has them (the
 * trunk). */
int trainer_new_reward(struct qwen_vl *reward, int threads, const struct group *group, struct trainer **ret);
/* The policy's weights, which came from a bf16 checkpoint, stay bf16: passes see rounded values, AdamW moves fp32 masters, which
 * begin as the values. What is saved is what acts (BF16); the masters lie in the training state. Nothing happens with adapters:
 * they are fp32. -ENOMEM; -EDOM: there are values that bf16 has not: throw the trainer away. */
int trainer_use_bf16(struct trainer *trainer);
int trainer_masters_moved(struct trainer *trainer); /* they were written (read from a checkpoint): the values follow, packed */
struct trainer *trainer_free(struct trainer *trainer);
DEFINE_FREEP(struct trainer, trainer_free)

/* What a device has moved is the host's, too: values, moments, masters. Before any of them is read; cheap when nothing has
 * moved. */
int trainer_fetch(struct trainer *trainer);

/* Forget moments and counters: a new stage begins. */
void trainer_reset(struct trainer *trainer);

struct update { double lr, weight_decay, clip, beta2; };
/* Compute the gradient of some parts over a minibatch (one pass, shards_gradient) and apply update[i] to parts[i], each clipped
 * by its own norm; the model is packed again. ret_norm[i]: norm before clipping; when one is not finite all are skipped.
 * -ENOENT: the model has no such part. */
int trainer_update(struct trainer *trainer, const enum trainer_part *parts, const struct update *update, int n_parts, int samples,
                   shard_fn *fn, void *arg, double *ret_norm);

/* Linear warm-up, then cosine from lr to lr * end over the rest. step counts from 0. */
double lr_cosine(double lr, double end, int64_t step, int64_t warmup, int64_t steps);

/* Told before the first minibatch (loss NAN) and after each; returns false to stop (-ECANCELED). */
typedef bool progress_fn(void *arg, const char *what, int64_t done, int64_t total, double loss);
struct train_watch { progress_fn *fn; void *arg; };
static inline bool train_tell(const struct train_watch *watch, const char *what, int64_t done, int64_t total, double loss)
{
    return !watch || !watch->fn || watch->fn(watch->arg, what, done, total, loss);
}
