/* sha256.h - SHA-256 (FIPS 180-4): digests of trajectories, files, plans and manifests. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { SHA256_SIZE = 32, SHA256_HEX = 65 };

struct sha256 {
    uint32_t state[8];
    uint64_t length;            /* bytes so far */
    uint8_t block[64];
};

void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *bytes, size_t n);
void sha256_end(struct sha256 *s, uint8_t ret_digest[SHA256_SIZE]);

void sha256_of(const void *bytes, size_t n, uint8_t ret_digest[SHA256_SIZE]);
int sha256_file(const char *path, uint8_t ret_digest[SHA256_SIZE]);     /* -errno */
void sha256_hex(const uint8_t digest[SHA256_SIZE], char ret_hex[SHA256_HEX]);

/* One block by the portable code, for tests: whatever the CPU has, the digests are the same. */
void sha256_block_for_test(uint32_t state[8], const uint8_t block[64]);
