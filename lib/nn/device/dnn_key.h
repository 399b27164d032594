/* dnn_key.h - attention cut into calls that cuDNN takes, and what a plan for one depends on. Plain numbers: no library and no
 * device.
 *
 * Its graphs are made for sequences all alike, so many at once, and a plan takes tens to hundreds of milliseconds to find.
 * Batches of any size and prompts of any length would make plans without end. So the sequences of a call are taken in pieces:
 * neighbours of equal length, sixteen, four or one at a time. What is left to tell plans apart are the lengths, of which a run
 * has some dozens (tests/nn/test_device_dnn.c counts them). Thread rule: none. */
#pragma once

#include "nn/device/kernels.h"

/* No padding: compared as bytes. */
struct dnn_key {
    int64_t n, heads, group, dim, keys, asking; /* group: heads of q per head of k and v */
    int64_t q_stride, kv_stride, out_stride;    /* elements between rows */
    int64_t dq_stride, dkv_stride;              /* backward: of the gradients */
    uint32_t causal, stats, backward, fresh;    /* stats: the log of the sum is wanted; fresh: gradients go where they belong */
};

enum { DNN_PIECE = 16 };        /* the largest */

/* The piece that begins with sequence `first`: places and lengths are its own. Returns how many sequences it has, 1 or more.
 * Without the host's lengths (start_here NULL) all that there are. */
int dnn_piece(const struct device_attention *a, int first, struct device_attention *ret);
/* What a piece is to cuDNN; false: nothing for it. */
bool dnn_key_of(enum device_type type, const struct device_attention *a, bool backward, struct dnn_key *ret);
/* Does this version (cudnnGetVersion) get it right? Up to 9.15.0 gradients are wrong where the keys are no multiple of 128, and
 * up to 9.9.0 one query under a mask is not taken (NVIDIA's own front end works around both). */
bool dnn_is_sound(size_t version, const struct dnn_key *key);
/* What a score becomes that a mask hides: up to 9.9 the least number there is, for where a tile has nothing else its engines
 * subtract that from itself; from 9.10 on minus infinity. (So NVIDIA's own front end has it.) */
float dnn_masked(size_t version);

/* The backward's outputs, in the stream's scratch before the plan's own: offsets, and all of it. */
struct dnn_scratch { size_t dq, dk, dv, sum, plan, bytes; };
struct dnn_scratch dnn_lay_out(const struct dnn_key *key, size_t plan_bytes);
/* The most that a plan may work in, or it is not taken: the scores in fp32, on the way back with rows and keys rounded up to 128,
 * and dq in fp32 (9.19's engines take half of that, and next to nothing forward). So that what a device must hold can be foretold
 * without asking the library. */
size_t dnn_plan_most(const struct dnn_key *key);
