/* crc32c.h - CRC-32C (Castagnoli) of bytes, by the SSE4.2 instruction where there is one.
 *
 *   crc = crc32c(0, a, na); crc = crc32c(crc, b, nb);      equals the CRC of a followed by b */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* crc: of what came before; 0 at the beginning. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t n);

/* The table version, for tests: always the same value as crc32c(). */
uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t n);
