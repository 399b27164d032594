#include "wire/proto_arena.h"

enum { FIRST_BLOCK = 2048, LARGEST_BLOCK = 1 << 20, ALIGN = 16 };

struct proto_block {
    struct proto_block *next;
    size_t size, used;
    _Alignas(ALIGN) char bytes[];
};

static void *arena_take(void *data, size_t size)
{
    struct proto_arena *arena = data;
    struct proto_block *block = arena->blocks;
    size_t rounded = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);

    if (rounded < size || rounded > arena->cap - arena->used)
        return NULL;
    if (!block || block->size - block->used < rounded) {
        size_t n = MAX(rounded, block ? MIN(block->size * 2, (size_t)LARGEST_BLOCK) : (size_t)FIRST_BLOCK);

        block = malloc(sizeof *block + n);
        if (!block)
            return NULL;
        *block = (struct proto_block) {.next = arena->blocks, .size = n};
        arena->blocks = block;
    }
    arena->used += rounded;
    block->used += rounded;
    return block->bytes + block->used - rounded;
}

static void arena_leave(void *data, void *pointer)
{
    (void)data;
    (void)pointer;      /* all at once, in proto_arena_release */
}

void proto_arena_init(struct proto_arena *arena, size_t cap)
{
    *arena = (struct proto_arena) {.allocator = {.alloc = arena_take, .free = arena_leave}, .cap = cap};
}

void proto_arena_release(struct proto_arena *arena)
{
    while (arena->blocks) {
        struct proto_block *next = arena->blocks->next;

        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
}

ProtobufCMessage *proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t n,
                               struct proto_arena *arena)
{
    arena->allocator.allocator_data = arena;    /* here, not in init: the arena may have been moved since */
    return protobuf_c_message_unpack(descriptor, &arena->allocator, n, n ? bytes : (const void *)"");
}
