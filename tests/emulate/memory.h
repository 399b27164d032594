/* memory.h - what the emulated device's memory is made of: malloc, full of NaN at first; or address space (emulate_sparsely); or
 * apart from the host's (emulate_apart). Any thread. */
#pragma once

#include <stddef.h>

/* 0, -ENOMEM. Aligned to 256 bytes. */
int memory_alloc(size_t bytes, void **ret);
int memory_alloc_pinned(size_t bytes, void **ret);      /* the host's: never apart */
void memory_free(void *memory);                         /* either; not NULL */
/* The device's memory can be got at (simt_inside). */
void memory_zero(void *memory, size_t bytes);
