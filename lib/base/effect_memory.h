/* effect_memory.h - what a step's effects point at: taken in any number, given back all at once before the next step.
 *
 *   struct effect_memory *memory = NULL;
 *   uint64_t *ids = effect_memory_take(&memory, n * sizeof(*ids));     NULL: no memory
 *   effect_memory_reset(memory);     effect_memory_free(memory);
 *
 * Unlike an arena it grows; blocks stay where they are. One thread. */
#pragma once

#include <stddef.h>

struct effect_memory;

void *effect_memory_take(struct effect_memory **memory, size_t bytes);      /* zeroed, 16-byte aligned */
void effect_memory_reset(struct effect_memory *memory);                     /* keeps the largest block */
struct effect_memory *effect_memory_free(struct effect_memory *memory);
