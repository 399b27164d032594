/* policy_rows.h - one forward of the policy over recorded decisions, whatever its kind, and what it says of their tokens.
 *
 * A decision has data->width tokens at most: those of one action, or of a chunk. Of a chunk that was not executed to its end (the
 * episode was over) only the first `count` are recorded: the rest takes no part in any loss. All arrays are tape memory. */
#pragma once

#include "train/sample.h"

struct policy_rows {
    int width;
    const int *count;           /* (n) tokens recorded of each decision */
    struct openvla_pass pass;
    struct token_stats *stats;  /* (n*width), over their support or of the numbers drawn; NULL: not asked for */
};

/* Numbers that an exact reference keeps of each token (policy_rows' ref, stats->log_probs). */
int policy_ref_width(const struct dataset *data);

/* ref (n*width, policy_ref_width) or NULL. tokens false: hidden states only. -EINVAL: a policy that cannot say how likely a token
 * was (OFT_L1). */
int policy_rows(const struct openvla *model, struct tape *tape, const struct dataset *data, const struct step_ref *steps, int n,
                bool tokens, float temperature, const float *ref, struct policy_rows *ret);
