/* device.h - a GPU and one worker's stream on it (docs/adr/0004-devices.md).
 *
 *   device_open("cuda:0", &device, &error)     once per process; "cpu": NULL
 *   params.device = device; params_pack(...)   the mirror of the parameters
 *   tape_attach(&tape, params)                 a stream of the tape's own
 *
 * Threads: a device is shared; a stream belongs to one thread at a time. Nothing here allocates in a steady stream of passes.
 * Failure rule: -ENODEV no device or no driver, -EBUSY another process has it for itself, -ENOMEM too little of its memory, -EIO
 * whatever else the driver reports. */
#pragma once

#include <stdatomic.h>

#include "base/error.h"
#include "nn/device/kernels.h"

struct blas;
struct dnn;
struct narrow;

struct device {
    const struct device_kernels *k;
    int ordinal;
    char name[24]; /* as it was asked for: cuda:0 */
    struct device_facts facts;
    bool strict; /* one pinned plan per weight, whatever the batch */
    atomic_uint references;
    atomic_ullong gemm_fallbacks, attention_fallbacks; /* products and attentions that a library refused */
    struct blas *blas;                                 /* cuBLASLt and cuDNN when they could be opened; NULL: the own kernels */
    struct dnn *dnn;
    char no_dnn[160]; /* why cuDNN could not be opened */
    struct narrow *narrow; /* device_find_faster; NULL: products of few rows are the library's like all others */
    _Atomic(size_t) memory_used; /* device_memory_used */
    _Atomic(uint64_t) looked_ns;
    atomic_int lost;  /* 2: it answers nothing but errors any more, 1: lost_why is being written */
    char lost_why[160];
};

/* "cpu" (*ret = NULL), "cuda" or "cuda:N". -EINVAL: another name. The error says what to do. */
int device_open(const char *name, struct device **ret, struct error *error);
/* Is it there, and what is it? Opens no library and keeps nothing but the driver's context of this process. "cpu": -EINVAL. */
int device_look(const char *name, struct device_facts *ret, struct error *error);
/* Any table; for tests. */
int device_wrap(const struct device_kernels *k, int ordinal, struct device **ret, struct error *error);
/* With numerics: fast, products of few rows are from now on done by cuBLASLt or by the own kernel, whichever is found to be
 * faster (nn/device/narrow.h). For who serves: what a learner adds up should not depend on a clock. Before the device is shared;
 * -ENOMEM. */
int device_find_faster(struct device *device);
/* Where this process computes, said once at its start; models that are packed later go there. NULL: the CPU. Takes a
 * reference. */
void device_set_process(struct device *device);
struct device *device_process(void);
struct device *device_ref(struct device *device);   /* NULL is fine, in all of these */
struct device *device_unref(struct device *device); /* returns NULL */
DEFINE_FREEP(struct device, device_unref)
/* Products and attentions that a library refused and the own kernels did, so far. NULL: none. */
struct device_fallbacks { unsigned long long gemm, attention; };
struct device_fallbacks device_fallbacks(const struct device *device);
/* Bytes of the device that were in use, by all processes on it, when a pass of this one last began (looked at once a second at most:
 * the driver may keep whoever asks waiting). 0: none has, or NULL. Any thread. */
size_t device_memory_used(const struct device *device);
/* As the libraries number themselves (130100 is cuBLASLt's 13.1.0, 91900 cuDNN's 9.19.0); 0: not there. */
struct device_versions { size_t blas, dnn; };
struct device_versions device_versions(const struct device *device);
/* What cuDNN said when it refused for the first time; "": it has not. cuBLASLt, and of which product. */
const char *device_refusal(const struct device *device);
const char *device_product_refusal(const struct device *device);
/* The device fell off, or a kernel spoilt its context: nothing of this process works on it any more, a new process may. NULL: it
 * has not happened; else the driver's words. From any thread. */
const char *device_lost(const struct device *device);
/* After something has failed, whatever it was: does the device still answer? If not, device_lost has why from now on. NULL: yes.
 * From any thread but a loop's: it takes as long as the driver takes. */
bool device_ask(struct device *device);
/* What went wrong: the driver's words for -EIO and -ENOMEM. Of this thread. */
const char *device_error_text(const struct device *device, int r);
/* The table of real devices; NULL in a build with GPU=0. */
const struct device_kernels *cuda_kernels(void);

/* Bytes: of the staging that a stream begins with, on the device and pinned on the host; of what products by cuBLASLt work in. */
enum { DEVICE_STAGING = 4 << 20, DEVICE_WORKSPACE = 32 << 20 };

struct device_sent {
    size_t bytes;
    const void *host, *device;
    const void *kept; /* where the bytes came from, when they stay as they are (device_send_kept); else NULL */
};
struct device_chunk {
    char *host, *device;
    size_t size, used;
};

struct device_stream {
    struct device *device;
    const struct device_kernels *k;
    void *stream;
    struct device_chunk *chunks;
    int n_chunks; /* staging: pinned, and the same on the device */
    struct device_sent *sent;
    int n_sent, room_sent; /* of this pass */
    char *workspace;
    size_t workspace_size; /* for libraries */
    bool capturing;        /* into a graph (graphs.h): nothing new can be sent, nothing grows */
};

/* -ENOMEM, -EIO; begin comes before the first use. */
int device_stream_new(struct device *device, struct device_stream **ret);
struct device_stream *device_stream_free(struct device_stream *s);
DEFINE_FREEP(struct device_stream, device_stream_free)
/* A new pass: waits, makes the device this thread's, forgets what was sent. */
int device_stream_begin(struct device_stream *s);
/* A copy of host memory on the device, until the next begin. Equal bytes are sent once: do not write to it. NULL: -ENOMEM. */
const void *device_send(struct device_stream *s, const void *host, size_t bytes);
/* The same of memory that nobody changes before the next begin: found again by its address, not by its bytes. For large arrays
 * that many ops read. */
const void *device_send_kept(struct device_stream *s, const void *host, size_t bytes);
/* At least this much of scratch for a library; grows rarely. NULL: -ENOMEM. */
void *device_workspace(struct device_stream *s, size_t bytes);
/* cuBLASLt, else an own kernel: for few rows, unless numerics are strict, the one for few rows. */
int device_gemm(struct device_stream *s, const struct device_gemm *g);
/* cuDNN with numerics: fast and bf16, else the own kernel. */
int device_attention(struct device_stream *s, enum device_type type, const struct device_attention *a, bool backward);
