/* arena.h - memory that is given out in order and taken back all at once.
 *
 * One block, fixed at creation; nothing grows inside a step. Pointers are 64-byte aligned. Not for two
 * threads at once. */
#pragma once

#include "base/macro.h"

struct arena {
    char *base;
    size_t size, used, peak;    /* bytes; peak: the most ever used */
};

int arena_init(struct arena *arena, size_t bytes);          /* -ENOMEM */
void arena_release(struct arena *arena);
void *arena_alloc(struct arena *arena, size_t bytes);       /* NULL: full. Not cleared. */
static inline size_t arena_mark(const struct arena *arena) { return arena->used; }
static inline void arena_reset(struct arena *arena, size_t mark) { arena->used = mark; }
