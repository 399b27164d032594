/* param.h - the parameters of a model: Hugging Face names, shapes, and one flat fp32 arena for all values.
 *
 * A matrix may be kept as bf16 instead (`half`, set before params_allocate): half the memory, and no packed form beside it; the
 * GEMM widens a panel of it at a time, so the numbers are those of the same values in fp32, to the bit. It does not learn, has no
 * place in the arena, and only linear ops and embeddings can use it.
 *
 * Two phases: param_add() registers names and shapes, params_allocate() makes one allocation. A gradient
 * buffer is a flat array of the same layout (params->numel floats), so that summing shards, clipping and
 * AdamW are loops over flat memory. Each linear weight also has packed forms for the GEMM, made once per
 * version by params_pack(): call it after loading and after every optimiser step.
 * Threads: values and packs are read-only between params_pack() calls; any number of readers. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct device;
struct gemm_pack;
struct lora_join;
struct mirror;
struct param;

/* A low-rank adapter of a linear weight W (out, in): y += scale * (x A^T) B^T. */
struct lora {
    const struct param *a, *b;  /* A (r, in), B (out, r); a NULL: the weight has none */
    float scale;
    struct lora_join *join;     /* of weights that read the same: all their A in one (nn/lora_join.h); NULL */
};

struct param {
    char *name;                 /* e.g. language_model.model.layers.0.self_attn.q_proj.weight */
    int ndim;
    int64_t dim[5];             /* as in the file: linear weights are [out][in] */
    int64_t numel;
    int64_t offset;             /* floats from the start of the arena, multiple of 16 */
    float *value;               /* NULL before params_allocate, and with `half` */
    bool half;                  /* kept as bf16, frozen */
    uint16_t *bf16;             /* its values then; set before params_allocate they stay where they are, e.g. in a mapped file */
    bool frozen;                /* no gradient is wanted (e.g. modules that never run) */
    bool fast;                  /* as its params: products with it in bf16 */
    bool linear;                /* packed by params_pack: [dim0][dim1*...] as out x in */
    bool adapter;               /* the A or B of another weight: no part of the checkpoint (nn/adapters.h) */
    struct lora lora;           /* of a linear weight: the adapter it is used with */
    struct gemm_pack *forward;  /* B of y = x W^T */
    struct gemm_pack *backward; /* B of dx = dy W; NULL when packed for inference only */
    const float *on_f32;        /* on the parameters' device (nn/device/mirror.h); NULL: there is no such form */
    const void *on_bf16;
};

struct params {
    struct param **list;        /* registration order */
    int count;
    int64_t numel;              /* floats in the arena, padding included */
    bool fast;                  /* numerics: fast (params_use_fast) */
    float *values;
    uint16_t *halves;           /* what is kept as bf16, but for what others hold */
    struct device *device;      /* where passes run; a reference; NULL: here. Set by params_use_device */
    bool device_half;           /* activations there are bf16 */
    struct mirror *mirror;
    struct lora_join **joins;   /* nn/lora_join.h */
    int n_joins;
};

/* Register; the returned pointer stays valid until params_free. NULL: out of memory or the name exists. */
struct param *param_add(struct params *params, const char *name, int ndim, const int64_t *dim, bool linear);
struct param *param_find(const struct params *params, const char *name);
int params_allocate(struct params *params);                     /* zeroed; -ENOMEM */
/* After param_add to parameters that hold values: room for all; the values of the first `held` floats stay. -ENOMEM: as
 * before. */
int params_grow(struct params *params, int64_t held);
/* Forget every adapter: its parameters, their values, and that weights were used with them. -ENOMEM: as before. */
int params_drop_adapters(struct params *params);
/* numerics: fast: products with linear weights, forwards, backwards and for their gradients, round both operands to bf16 and sum
 * in fp32 (nn/cpu/kernels.h, docs/adr/0003-fast-numerics.md); values stay what they are. Holds for parameters that come later,
 * too; before params_pack, and made for all at once. Returns whether it is so: without VDPBF16PS, or a device, products stay
 * strict, and the caller says so. */
bool params_use_fast(struct params *params);
/* Passes run on this device from the next params_pack on, which then sends values there instead of packing. half: activations are
 * bf16 there, products of bf16 operands summed in fp32. Takes a reference. NULL: back to the CPU. */
void params_use_device(struct params *params, struct device *device, bool half);
/* The same with the process's device (device_set_process), if it has one and they are not there yet: bf16 when any matrix is, or
 * with `fast`. */
void params_use_process_device(struct params *params);
/* Is any matrix kept as bf16? Then passes on a device should be, too. */
bool params_are_half(const struct params *params);
/* Pack every linear weight; for training also the backward form (without it, one left from before is dropped). -ENOMEM; the
 * first call allocates, later ones refill: those of frozen parameters only when param_changed said so. */
int params_pack(struct params *params, bool training);
/* The same of the parameters between these floats of the arena, when only they have changed. */
int params_pack_span(struct params *params, bool training, int64_t begin, int64_t end);
/* The values of a frozen parameter were written: its packs are of the past. */
void param_changed(struct param *param);
/* n values from `first` on, in fp32, whatever they are kept as. */
void param_read(const struct param *param, int64_t first, int64_t n, float *ret);
/* Frees what it holds and empties it; the struct itself is its owner's (it is usually part of a model). Returns NULL. */
struct params *params_free(struct params *params);
DEFINE_FREEP(struct params, params_free)
