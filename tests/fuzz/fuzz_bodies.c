/* Every kind's body through the capped arena. Input: one byte that picks the kind, then the body. */
#include <stddef.h>
#include <stdint.h>

#include "wire/kinds.h"
#include "wire/proto_arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct wire_kind *kind = n ? wire_kind(bytes[0]) : NULL;
    struct proto_arena arena;
    ProtobufCMessage *body;

    if (!kind || !kind->body || n - 1 > kind->body_max)
        return 0;
    proto_arena_init(&arena, proto_arena_cap(n - 1));
    body = proto_unpack(kind->body, bytes + 1, n - 1, &arena);
    if (arena.used > arena.cap)
        abort();
    if (body) {
        size_t size = protobuf_c_message_get_packed_size(body);
        uint8_t *again = malloc(size + 1);

        if (!protobuf_c_message_check(body) || (again && protobuf_c_message_pack(body, again) != size))
            abort();
        free(again);
    }
    proto_arena_release(&arena);
    return 0;
}
