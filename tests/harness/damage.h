/* damage.h - seeded damages to the bytes of a file: what disks, copies and people do to it.
 *
 * A file has marks, where its parts begin and end: half of all damages begin there. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/philox.h"

enum damage { FLIP_BIT, FLIP_BYTE, TRUNCATE, ZEROS, SWAP, STRETCH, DAMAGES };

struct damage_file {
    const char *bytes;
    size_t size;
    const size_t *marks;
    size_t n_marks;             /* at least 1 */
};

const char *damage_name(enum damage kind);

/* Any place in the file, or one where a part begins; at most `size`. */
size_t damage_place(struct philox *p, const struct damage_file *file);
/* A damaged copy of `file` into `copy` (file->size bytes); *ret_n: its size. STRETCH takes bytes of `twin` from the same place,
 * or of the file that `stranger` draws from anywhere. False: the draw changed nothing. */
bool damage_draw(struct philox *p, enum damage kind, const struct damage_file *file, const struct damage_file *twin,
                 const struct damage_file *(*stranger)(struct philox *p), char *copy, size_t *ret_n);
