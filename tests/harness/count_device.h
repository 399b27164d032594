/* count_device.h - a device that computes nothing and counts: launches, bytes read and written, operations, and the least time
 * that these take. For what a pass puts on a device, and for what putting it there costs the host, without one.
 *
 *   device_wrap(count_kernels(), 0, &device, &error) -> count_clear -> passes -> count_read
 *
 * Its memory is address space: nobody may read numbers there, and seven billion of them take no memory of the host. What is sent
 * in small pieces (indices) is there, since attention over a cache costs what they say; what is downloaded is zeros. Graphs are
 * counted as one launch by the host, and as all that is in them by the device.
 *
 * Of a kernel: each operand is moved once, in and out of memory (what a second kernel finds in the cache of 50 MB is not taken
 * off). The least time is the longer one of its bytes and its operations. Attention is as many kernels as cuDNN would be called
 * with pieces (nn/device/dnn_key.h). Thread rule: one thread. */
#pragma once

#include "nn/device/device.h"

/* Products of an adapter, and of a head of few columns, are thin: a dimension of theirs is at most COUNT_THIN. */
enum { COUNT_THIN = 64 };

#define COUNT_KINDS(X) \
    X(product, "products") \
    X(thin, "products, thin (adapters)") \
    X(attention, "attention") \
    X(attention_backward, "attention, backwards") \
    X(attention_decode, "attention over a cache") \
    X(rmsnorm, "rmsnorm") \
    X(residual_rmsnorm, "sum and rmsnorm") \
    X(rmsnorm_backward, "rmsnorm, backwards") \
    X(layernorm, "layernorm") \
    X(layernorm_backward, "layernorm, backwards") \
    X(residual, "sums with a residual") \
    X(residual_backward, "LayerScale, backwards") \
    X(activation, "GELU and the like") \
    X(activation_backward, "GELU and the like, backwards") \
    X(swiglu, "SwiGLU") \
    X(swiglu_backward, "SwiGLU, backwards") \
    X(rope, "rotation") \
    X(kv_append, "appending to the cache") \
    X(rope_append, "rotating and appending") \
    X(rows, "rows gathered, spliced, scattered") \
    X(copy_rows, "columns and rows copied") \
    X(copy, "copies as a whole") \
    X(zero, "zeroing") \
    X(elements, "scaling, adding, converting") \
    X(column_sum, "sums of columns") \
    X(head, "logits' statistics, sampling") \
    X(optimiser, "norm and AdamW") \
    X(patches, "patches")

enum count_kind {
#define X(name, text) COUNT_##name,
    COUNT_KINDS(X)
#undef X
    COUNT_ALL
};
extern const char *const count_names[COUNT_ALL];

struct count { unsigned long long launches; double bytes, flops, seconds; };
struct counts {
    struct count kind[COUNT_ALL];
    struct count total;
    unsigned long long issued;          /* what the host put on streams: a graph is one; copies to and from the host count */
    unsigned long long uploads, downloads, waits;
    double uploaded, downloaded;        /* bytes */
};

/* Bytes and operations a second, that the least time comes from. Memory: what device_facts says there is. */
void count_speeds(double bytes, double flops, size_t memory);
const struct device_kernels *count_kernels(void);
void count_clear(void);
struct counts count_read(void);
