/* narrow.h - products of few rows, a decoding step's: the own kernel (nn/cuda/narrow.cu) or the library's, whichever this device
 * does faster.
 *
 * Each shape is done by both in turns until each has had a few, timed by the device where they stand in their pass: then its
 * weights come from memory as they will later, not from a cache that a trial of its own would have filled. The faster one of its
 * fastest does it from then on. Until that is known, what is captured into a graph is the library's. The two add in different
 * orders: what a server answers may differ in its last bits from one start to the next, which numerics: strict is there for (it
 * has no choice to make).
 *
 * Thread rule: any. Failure rule: -errno. */
#pragma once

#include "nn/device/kernels.h"

struct device_stream;
struct narrow;

/* NARROW_EACH: times that each way is taken before one is chosen. */
enum { NARROW_ROWS = 8, NARROW_EACH = 8 };
enum narrow_way { NARROW_LIBRARY, NARROW_OWN, NARROW_WAYS };

/* Is it one that the own kernel takes: at most NARROW_ROWS rows, bf16, B stored (n,k), rows of whole sixteen bytes? */
static inline bool narrow_takes(const struct device_gemm *g)
{
    uint64_t batch = g->batch > 1 ? (uint64_t)g->a_apart | (uint64_t)g->b_apart : 0;

    return g->m > 0 && g->m <= NARROW_ROWS && g->n > 0 && g->k > 0 && g->a_type == DEVICE_BF16 && g->b_type == DEVICE_BF16 &&
        !g->a_transposed && g->b_transposed && ((uint64_t)g->k | (uint64_t)g->a_row | (uint64_t)g->b_row | batch) % 8 == 0 &&
        (((uintptr_t)g->a | (uintptr_t)g->b) & 15) == 0 && !(g->bias && g->batch > 1);
}

#ifndef __cplusplus
/* library: what the own kernel is compared with; -ENOTSUP from it: never asked about that shape again. NULL: -ENOMEM. */
struct narrow *narrow_new(int (*library)(struct device_stream *s, const struct device_gemm *g));
/* The device must be this thread's. NULL is fine; returns NULL. */
struct narrow *narrow_free(struct narrow *narrow);
/* g: narrow_takes. */
int narrow_gemm(struct narrow *narrow, struct device_stream *s, const struct device_gemm *g);
/* Shapes that each way was chosen for so far, and those still tried. */
struct narrow_counts { int chosen[NARROW_WAYS], open; };
struct narrow_counts narrow_counts(struct narrow *narrow);
#endif
