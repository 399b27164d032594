#include "base/arena.h"

#include <errno.h>

int arena_init(struct arena *arena, size_t bytes)
{
    void *base = NULL;

    if (posix_memalign(&base, 64, bytes ? bytes : 64))
        return -ENOMEM;
    *arena = (struct arena) {.base = base, .size = bytes};
    return 0;
}

void arena_release(struct arena *arena)
{
    free(arena->base);
    *arena = (struct arena) {0};
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    size_t rounded = (bytes + 63) & ~(size_t)63;
    void *p;

    if (rounded < bytes || rounded > arena->size - arena->used)
        return NULL;
    p = arena->base + arena->used;
    arena->used += rounded;
    arena->peak = MAX(arena->peak, arena->used);
    return p;
}
