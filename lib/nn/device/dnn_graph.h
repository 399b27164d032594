/* dnn_graph.h - attention as graphs of cuDNN's backend, built from plain C; no device is needed for that.
 *
 * Forward: scores, scale, causal mask, softmax written out in maxima, exponentials and sums, the log of the sum, values. Engines
 * know the graph by its shape: the log is there even where nobody keeps it, and types are those of NVIDIA's own front end.
 * Backward: the deterministic form, dq made in one product without atomics. Grouped queries: k and v have fewer heads, their
 * gradients are summed over a group. cuDNN's single node for attention knows no causal mask in 9.19, and the one for its gradient
 * does not build.
 *
 * The library is opened, not linked, and seen through this table: descriptors and handles are opaque, types and attributes are
 * numbers of cudnn_graph.h (dnn_graph.c has them by name). Thread rule: none. Failure rule: -errno, `why` has cuDNN's words. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nn/device/dnn_key.h"

struct dnn_calls {
    size_t (*version)(void);
    int (*create)(void **ret_handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*descriptor_new)(int type, void **ret);
    int (*descriptor_free)(void *descriptor);
    int (*set)(void *descriptor, int name, int type, int64_t n, const void *values);
    int (*get)(void *descriptor, int name, int type, int64_t room, int64_t *ret_n, void *ret_values);
    int (*finalize)(void *descriptor);
    int (*execute)(void *handle, void *plan, void *pack);
    const char *(*error_string)(int status);
    void (*last_error)(char *ret, size_t n);
};

/* What is handed over when a plan is carried out; a tensor's id is its number + 1. */
enum dnn_tensor {
    DNN_Q,
    DNN_K,
    DNN_V,
    DNN_OUT,
    DNN_LSE,
    DNN_SCALE,
    DNN_MASKED,
    DNN_DOUT,
    DNN_DQ,
    DNN_DK,
    DNN_DV,
    DNN_SUM,
    DNN_ONE,
    DNN_TENSORS
};

enum { DNN_PARTS = 192 };
struct dnn_graph {
    void *graph; /* finalized */
    void *part[DNN_PARTS];
    int parts, ops;
    bool uses[DNN_TENSORS];
    char why[240]; /* of a failure */
};

/* libcudnn.so.9, or the library at path. *ret_library is for dlclose. -ENOENT: not there; -ENOSYS: a function is missing, or it
 * is older than 9.6 (dq's sum) or one of the versions whose attention is known to be broken; why: a sentence. */
int dnn_calls_open(const char *path, struct dnn_calls *ret, void **ret_library, char *why, size_t why_size);

/* handle may be NULL. dnn_graph_release in every case. -EINVAL: cuDNN does not build it. */
int dnn_graph_build(const struct dnn_calls *calls, void *handle, const struct dnn_key *key, struct dnn_graph *ret);
void dnn_graph_release(const struct dnn_calls *calls, struct dnn_graph *graph);

/* A device that is not here, told in cuDNN's own JSON of one (9.8 and later; nested or missing names are refused in its words).
 * Plans for it are made whole, kernels compiled, wherever a libcuda.so.1 of any kind is loaded; they cannot be carried out.
 * *ret_device: for descriptor_free. */
int dnn_describe_device(const struct dnn_calls *calls, const char *json, void **ret_device, char *why, size_t why_size);
/* A plan for the handle's device, or without a handle for one described: the first engine that the heuristics name, that takes
 * the graph and works in `most` bytes or fewer. *ret_plan: for descriptor_free. -ENOTSUP: none does. */
int dnn_plan_build(const struct dnn_calls *calls, void *handle, void *device, const struct dnn_graph *graph, size_t most,
                   void **ret_plan, size_t *ret_workspace, char *why, size_t why_size);
int dnn_plan_run(const struct dnn_calls *calls, void *handle, void *plan, void *const pointer[DNN_TENSORS],
                 const bool uses[DNN_TENSORS], void *workspace);
