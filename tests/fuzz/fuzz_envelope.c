/* Frame 0 and the frames behind it, as a stranger may send them. Input: u16 size of frame 0, frame 0, then the rest as one
 * frame. */
#include <stddef.h>
#include <stdint.h>

#include "wire/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct envelope envelope;
    struct part_table parts;
    struct error error;
    uint8_t again[WIRE_ENVELOPE_MAX];
    size_t size;

    if (n < 2)
        return 0;
    size = MIN((size_t)(bytes[0] | bytes[1] << 8), n - 2);
    if (envelope_unpack(bytes + 2, size, &envelope, &parts, &error) < 0)
        return 0;
    if (parts.n < 1 || parts.n > 1 + WIRE_PARTS_MAX || strlen(envelope.error) >= WIRE_ERROR_MAX)
        abort();
    if (envelope_check_limits(&envelope, &parts, &error) == 0) {
        for (unsigned i = 0; i < parts.n; i++)
            (void)envelope_check_part(&parts, i, bytes + 2 + size, n - 2 - size, &error);
        if (envelope_size(&envelope, &parts) <= sizeof again && envelope_pack(&envelope, &parts, again, sizeof again) < 0)
            abort();
    }
    return 0;
}
