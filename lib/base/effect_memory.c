#include "base/effect_memory.h"

#include <string.h>

#include "base/macro.h"

struct block {
    struct block *next;         /* an older, smaller one */
    size_t size, used;
    _Alignas(16) char bytes[];
};

struct effect_memory { struct block *newest; };

static size_t round_up(size_t bytes) { return (bytes + 15) & ~(size_t)15; }

void *effect_memory_take(struct effect_memory **memory, size_t bytes)
{
    struct block *block;
    void *taken;

    if (!*memory) {
        *memory = calloc(1, sizeof(**memory));
        if (!*memory)
            return NULL;
    }
    bytes = round_up(MAX(bytes, (size_t)1));
    block = (*memory)->newest;
    if (!block || block->size - block->used < bytes) {
        size_t size = MAX(bytes, block ? 2 * block->size : (size_t)4096);

        block = malloc(sizeof(*block) + size);
        if (!block)
            return NULL;
        *block = (struct block) { .next = (*memory)->newest, .size = size };
        (*memory)->newest = block;
    }
    taken = block->bytes + block->used;
    block->used += bytes;
    memset(taken, 0, bytes);
    return taken;
}

static void free_blocks(struct block *block)
{
    while (block) {
        struct block *next = block->next;

        free(block);
        block = next;
    }
}

void effect_memory_reset(struct effect_memory *memory)
{
    if (!memory || !memory->newest)
        return;
    free_blocks(memory->newest->next);
    memory->newest->next = NULL;
    memory->newest->used = 0;
}

struct effect_memory *effect_memory_free(struct effect_memory *memory)
{
    if (memory)
        free_blocks(memory->newest);
    free(memory);
    return NULL;
}
