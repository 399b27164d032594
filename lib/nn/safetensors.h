/* safetensors.h - read and write .safetensors files: u64 LE header length, JSON header, raw data.
 *
 * Reading maps the file; tensors point into the map and are valid until safetensors_close. Bounds, overlaps, dtypes and
 * sizes are checked at open: nothing in the header can make a later read go astray. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_I64, DTYPE_I32, DTYPE_I16, DTYPE_I8, DTYPE_U8, DTYPE_BOOL };
size_t dtype_size(enum dtype dtype);            /* bytes of one element */
const char *dtype_name(enum dtype dtype);       /* F32, BF16, ... as in the file */
const char *dtype_torch_name(enum dtype dtype); /* float32, bfloat16, ... as in config.json */
int dtype_parse(const char *name, enum dtype *ret);     /* of the file's names; -EINVAL */
bool dtype_is_weight(enum dtype dtype);         /* F32, F16 or BF16 */
uint16_t float_to_bf16(float value);            /* to nearest, ties to even */
uint16_t float_to_f16(float value);             /* the same; beyond 65504 infinity */
/* n values to F32, F16 or BF16 bytes. -EINVAL: another dtype; -ERANGE: a finite value became infinite (F16). */
int floats_to_dtype(const float *values, int64_t n, enum dtype dtype, void *ret_bytes);

struct st_tensor {
    char *name;
    enum dtype dtype;
    int ndim;
    int64_t dim[8];
    int64_t numel;
    const void *data;
    size_t bytes;
};

/* "2,3" of a shape, for messages; cut off when it does not fit. */
void shape_text(const int64_t *dim, int ndim, char *ret, size_t size);

struct safetensors {
    char *path;                             /* NULL: from memory */
    const uint8_t *bytes;                   /* the whole file */
    size_t size;
    bool mapped;                            /* ours to unmap */
    struct st_tensor *list;                 /* in file order */
    int count;
};

/* -ENOENT and what else open(2) says; -EINVAL: no such file, or a damaged one, with the line. */
int safetensors_open(const char *path, struct safetensors **ret, struct error *error);
/* From memory (fuzzing, messages): borrows bytes. */
int safetensors_parse(const void *bytes, size_t n, struct safetensors **ret, struct error *error);
struct safetensors *safetensors_close(struct safetensors *file);
DEFINE_FREEP(struct safetensors, safetensors_close)
const struct st_tensor *safetensors_find(const struct safetensors *file, const char *name);   /* NULL: none of this name */
/* Widen any float dtype to fp32 (or read an integer dtype): n elements from `first`. -EINVAL: not a number type; -ERANGE: not
 * so many there. */
int st_read_f32(const struct st_tensor *tensor, int64_t first, int64_t n, float *ret);
/* Index of the first NaN or infinity, -1: none. Integers have none. */
int64_t st_not_finite(const struct st_tensor *tensor);

/* Write, header padded with spaces to 8. Not durable yet, and a failed write leaves a torn file behind: write into a directory
 * that is made durable and renamed when it is whole (base/staged_dir.h). The values come from one of three places; a `fill` makes
 * files larger than memory. */
struct st_write {
    const char *name;
    enum dtype dtype;
    int ndim;
    int64_t dim[8];
    const void *raw;            /* these bytes, as they are */
    const float *values;        /* or these, converted to dtype (F32, F16 or BF16) */
    int (*fill)(void *context, int64_t first, int64_t n, float *ret);   /* or what this gives, asked for once, in order; -errno */
    void *context;
};
/* The format's own order: wide dtypes first, then by name. */
int safetensors_write(const char *path, const struct st_write *tensors, int n, struct error *error);
/* The order given: what was read in another one keeps it. */
int safetensors_write_as_given(const char *path, const struct st_write *tensors, int n, struct error *error);
size_t st_write_bytes(const struct st_write *tensor);
