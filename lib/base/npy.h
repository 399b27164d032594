/* npy.h - read the arrays of a numpy .npz file (a ZIP of .npy entries), for reference data.
 *
 *   zip_open -> npy_read(archive, "qpos") -> npy_number(array, i) ... -> npy_release
 *
 * Little-endian float32/64, integers, bools and text (U) in C order, up to 8 dimensions. Objects (pickles) are refused. */
#pragma once

#include "base/zip.h"

enum { NPY_MAX_DIMS = 8 };

struct npy {
    char kind;                  /* f, i, u, b, U */
    int size;                   /* bytes of an element (U: 4 x characters) */
    int dims;
    size_t shape[NPY_MAX_DIMS]; /* 0 dims: a single number */
    size_t count;               /* product of shape */
    const uint8_t *elements;
    void *memory;               /* what to free; NULL: elements lie in the archive */
};

/* The array `name` (the entry name.npy). -ENOENT: not there.  -EINVAL: not as above; the line says what. */
int npy_read(const struct zip_archive *archive, const char *name, struct npy *ret, struct error *error);
/* From memory: borrows bytes; `source` for messages. */
int npy_parse(const char *source, const uint8_t *bytes, size_t n, struct npy *ret, struct error *error);
void npy_release(struct npy *array);

double npy_number(const struct npy *array, size_t i);           /* i < count; not for U */
/* Element i of a U array as UTF-8; -ENAMETOOLONG: does not fit. */
int npy_text(const struct npy *array, size_t i, char *ret, size_t n);
/* All elements as doubles; caller frees. NULL: out of memory or text. */
double *npy_doubles(const struct npy *array);
