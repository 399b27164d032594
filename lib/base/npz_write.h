/* npz_write.h - write a numpy .npz: a ZIP of .npy arrays, deflated, as numpy.load reads it.
 *
 *   npz_create(path) -> npz_add(&npz, "action", "<f4", shape, dims, bytes)* -> npz_close
 *
 * Entries and files below 4 GB. The file is written in place: the caller makes it durable and renames it where that matters.
 * Thread rule: none.  Failure rule: -errno, one line; after one, only npz_close. */
#pragma once

#include <stdio.h>

#include "base/error.h"

struct npz_entry;
struct npz {
    FILE *file;
    char *path;
    struct npz_entry *entries;
    int n;
};
/* A new file; one of that name is overwritten. */
int npz_create(const char *path, struct npz *ret, struct error *error);
/* descr: numpy's, "|u1", "<f4", "<f8", "|b1". 0 dims: a single value. */
int npz_add(struct npz *npz, const char *name, const char *descr, const size_t *shape, int dims, const void *bytes,
            struct error *error);
int npz_add_text(struct npz *npz, const char *name, const char *text, struct error *error); /* a single value of type U */
/* Writes the directory of the archive, if nothing failed before. Frees in every case. */
int npz_close(struct npz *npz, struct error *error);
