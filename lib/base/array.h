/* array.h - an array that grows: room for one more at its end.
 *
 *   if (array_room(&list->items, list->n, &list->capacity, sizeof *list->items) < 0)
 *       return -ENOMEM;
 *   list->items[list->n++] = one;
 */
#pragma once

#include <stddef.h>

/* items: the address of the pointer to n items of `size` bytes, in memory for *capacity of them; NULL and 0 before the first. Twice
 * as many have room when it is full. -ENOMEM: all is as it was. */
int array_room(void *items, size_t n, size_t *capacity, size_t size);
