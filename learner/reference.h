/* reference.h - the policy that a stage started from, held by whoever needs it: the train thread, and who works ahead of it.
 *
 * Packed and never written to again. Thread rule: hold and drop from any thread. */
#pragma once

#include <stdatomic.h>

#include "nn/models/openvla.h"

struct reference {
    atomic_int holders;
    uint64_t version;
    struct openvla *model;
};

/* Takes the model; one holder. NULL: out of memory, the model is the caller's. */
struct reference *reference_new(struct openvla *model, uint64_t version);
struct reference *reference_hold(struct reference *reference);
struct reference *reference_drop(struct reference *reference);     /* the last one frees it; NULL may be given; returns NULL */
DEFINE_FREEP(struct reference, reference_drop)
