/* proto_arena.h - memory for one unpacked protobuf, with a cap.
 *
 * protobuf-c allocates once for every sub-message, whatever the sender likes: 1 MiB of empty ones asks for
 * 88 MB. This allocator bumps through a few blocks and refuses beyond `cap`; the unpack then fails cleanly.
 *
 *   struct proto_arena arena;
 *   proto_arena_init(&arena, proto_arena_cap(n));
 *   message = proto_unpack(&gantry__lease__descriptor, bytes, n, &arena);      NULL: malformed or over the cap
 *   proto_arena_release(&arena);                                               message is gone
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/macro.h"

struct proto_block;
struct proto_arena {
    ProtobufCAllocator allocator;   /* hand this to protobuf-c */
    struct proto_block *blocks;     /* newest first */
    size_t cap, used;               /* bytes; cap counts what was asked for */
};

void proto_arena_init(struct proto_arena *arena, size_t cap);
void proto_arena_release(struct proto_arena *arena);

/* What an honest body of n bytes can need. A small sub-message of 10 bytes becomes a struct of 48, a pointer, and while parsing
 * two slots of protobuf-c's scanner, 150 bytes in all; big bodies are arrays of numbers, which grow less. */
static inline size_t proto_arena_cap(size_t n) { return MIN(24 * n, 4 * n + (16u << 20)) + 8192; }

/* The message lives in the arena. NULL: not a message of this type, or it needs more than the cap.
 * The arena may have grown either way. */
ProtobufCMessage *proto_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t n,
                               struct proto_arena *arena);
