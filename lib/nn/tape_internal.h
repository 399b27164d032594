/* tape_internal.h - for lib/nn/tape*.c alone:
 *
 *   tape.c           memory, records, the way back
 *   tape_edges.c     what the host sends and reads
 *   tape_twice.c     blocks that are computed twice
 *   tape_watch.c     which gradients are whole */
#pragma once

#include "nn/tape.h"

/* Remembers the first error. NULL. */
static inline void *tape_fail(struct tape *tape, int error)
{
    if (!tape->error)
        tape->error = error;
    return NULL;
}

/* Where numbers come from: the device's arena, or the host's. */
static inline struct arena *tape_arena(struct tape *tape) { return tape->on ? &tape->numbers : &tape->arena; }

static inline size_t tape_bytes(const struct tape *tape, const struct tensor *x)
{
    return (size_t)(x->rows * x->cols) * tape_element(tape);
}

static inline bool tape_is_large(const struct tensor *x) { return x->rows * x->cols > TAPE_SMALL; }
