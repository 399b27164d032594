#include "base/arena.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

int arena_init(struct arena *arena, size_t bytes)
{
    bool large = bytes >= 2 * (size_t)HUGE_PAGE;
    void *base = NULL;

    if (posix_memalign(&base, large ? HUGE_PAGE : 64, bytes ? bytes : 64))
        return -ENOMEM;
    if (large)      /* fewer page faults and TLB misses; only a hint */
        (void)madvise(base, bytes, MADV_HUGEPAGE);
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
