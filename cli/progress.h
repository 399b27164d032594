/* progress.h - the coordinator's status document as something to print: one line of progress, or a page. */
#pragma once

#include <jansson.h>

#include "base/strbuf.h"

/* What the last document said. Zero it at the beginning. */
struct progress {
    bool seen;
    int64_t stage, iteration;
    bool trouble;                       /* the last try to train failed */
    int64_t doubtful_prm;               /* the stage is paid by this reward model, which did not pass its gate; 0: none */
};

/* Update from a document. True when the stage or iteration is another than the last time, or trouble came or went. */
bool progress_update(struct progress *progress, const json_t *status);

/* "rl: scored by reward model version 1, which did not pass its gate: ..."; to be said when doubtful_prm becomes another. */
void progress_doubt(const json_t *status, struct strbuf *out);

/* "rl/13 of 100  (stage 5 of 6)  playing 20/32 episodes  success 0.62  310 env steps/s  4:10 left in this stage". */
void progress_line(const json_t *status, struct strbuf *out);

/* Minibatches of the update that is being made, done and in all: of 0 when nobody says. */
void progress_training(const json_t *status, double *ret_done, double *ret_total);

/* Several lines with the members; for `gantry status`. */
void progress_page(const json_t *status, struct strbuf *out);
