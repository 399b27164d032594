/* delivery.h - trajectories that workers have handed over and that are not settled yet.
 *
 * Each Deliver request is kept, frames and all, under a number that stands for it in intake's events, both as the token of its
 * bytes and as the request to answer. Intake answers it after the journal is done with the bytes, never before, so the answer
 * frees it. Thread rule: the loop's thread; the bytes may be read by another until the answer. */
#pragma once

#include "learner/admission.h"
#include "learner/intake.h"
#include "wire/server.h"

struct delivery {
    uint64_t number;
    struct request *request;
    bool answers;               /* it is refused for what servers have answered */
};
struct deliveries {
    struct delivery *list; size_t n, capacity;
    uint64_t last;
    struct error why;           /* the last that was refused was: the event's text */
};
void deliveries_free(struct deliveries *d);

/* Keep a request, check what it carries, and describe it for intake (an INTAKE_DELIVER event). What is not admitted is kept too:
 * the event says why it is not valid, until the next is taken. -ENOMEM: not kept. */
int delivery_take(struct deliveries *d, struct request *request, const struct admission *terms, struct intake_event *ret_event);

/* Trajectory bytes and frames. -ENOENT: there is no such delivery. */
int delivery_bytes(const struct deliveries *d, uint64_t number, const void **ret_meta, size_t *ret_n_meta,
                   const void **ret_frames, size_t *ret_n_frames);
/* Answer as intake says, or refuse with BUSY (effect NULL); ends it. */
void delivery_answer(struct deliveries *d, uint64_t number, const struct intake_effect *effect);
