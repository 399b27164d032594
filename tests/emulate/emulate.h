/* emulate.h - a device that is this CPU, for tests: the kernels of lib/nn/cuda run in tests/emulate/simt_host.cc. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "nn/device/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For device_wrap (nn/device/device.h). */
const struct device_kernels *emulated_kernels(void);
/* The same, but bf16 products and attention sum as libraries on a device do: in an order that depends on how many rows there are,
 * with bf16 weights of attention. What a learner's pass and an actor's decoding step then differ by is what they differ by on a
 * device. */
const struct device_kernels *emulated_reordered(void);
/* From here on its products of fp32 do, too, while strict() is false: what a library makes of them with numerics: fast. */
void emulate_reordered_fp32(bool (*strict)(void));
/* Threads of a block run in this order between barriers; 0: ascending. Results must not depend on it. */
void emulate_order(uint64_t seed);
/* Streams that are lazy carry out what they were given only when something waits for them, so that whoever reads too early, or
 * overwrites what an upload has still to read, gets other numbers. All are, unless a test says which (bit 0: the first that a
 * thread makes, the third, ...; bit 1: the others; 0: none). */
void emulate_lazily(unsigned which);
/* What is allocated from here on only launches and copies can get at: whoever takes an address of the device for one of the host
 * dies of it, as over there. */
void emulate_apart(void);
/* For sizes that no host has. From here on memory is address space: zeros until it is written, and what lies before it or behind
 * its last 256 bytes cannot be touched; and of a launch only the first and the last block of each direction run. */
void emulate_sparsely(bool yes);
/* For stand-ins of libraries: fn when its turn comes on the stream. */
int emulate_put(void *stream, int (*fn)(void *arg), void *arg);

#ifdef __cplusplus
}
#endif
