#include "base/array.h"

#include <errno.h>

#include "base/macro.h"

enum { FIRST = 16 };

int array_room(void *items, size_t n, size_t *capacity, size_t size)
{
    size_t more = *capacity ? 2 * *capacity : (size_t)FIRST;
    size_t bytes;
    void *old, *larger;

    if (n < *capacity)
        return 0;
    if (__builtin_mul_overflow(more, size, &bytes))
        return -ENOMEM;
    memcpy(&old, items, sizeof old);            /* a pointer to any type has this size, and may not be read as one to void */
    larger = realloc(old, bytes);
    if (!larger)
        return -ENOMEM;
    memcpy(items, &larger, sizeof larger);
    *capacity = more;
    return 0;
}
