/* sft_chunk.h - imitation with an OpenVLA-OFT: at each frame, the actions of a whole chunk from there on.
 *
 * By kind: mean absolute error (OFT_L1), cross-entropy over the vocabulary (OFT_TOKENS), negative log-likelihood of the Laplace
 * distribution (OFT_LAPLACE). What would lie behind the episode's end takes no part. Internal to lib/train. */
#pragma once

#include "train/sample.h"

/* Numbers to imitate from a frame on: dims times the actions that are left, at most data->width. */
int sft_chunk_labels(const struct dataset *data, struct step_ref at);

/* The losses of steps[n] and their gradients; `count`: labels of the whole minibatch. augmented[n]: pictures instead of those
 * recorded, or NULL. Adds to *loss. */
int sft_chunk(const struct openvla *model, struct tape *tape, const struct dataset *data, const struct step_ref *steps, int n,
              const uint8_t *const *augmented, int64_t count, double *loss);
