#include "base/philox.h"

#include <math.h>

static void philox_round(uint32_t c[4], const uint32_t k[2])
{
    uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k[0], n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k[1];

    c[1] = (uint32_t)p1;
    c[3] = (uint32_t)p0;
    c[0] = n0;
    c[2] = n2;
}

void philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t ret_words[4])
{
    uint32_t k[2] = {key[0], key[1]}, c[4] = {counter[0], counter[1], counter[2], counter[3]};
    int i;

    for (i = 0; i < 10; i++) {
        philox_round(c, k);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    for (i = 0; i < 4; i++)
        ret_words[i] = c[i];
}

/* The 128+64 bits of (seed, stream, a, b, c) do not fit key and counter beside the block number, so the
 * seed and the stream are mixed with (b, c) into the key by one Philox block. */
struct philox philox_at(uint64_t seed, enum philox_stream stream, uint64_t a, uint32_t b, uint32_t c)
{
    uint32_t words[4], key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {b, c, (uint32_t)stream, 0x67616e74u};

    philox4x32(key, counter, words);
    return (struct philox) {
        .key = {words[0], words[1]},
        .counter = {0, (uint32_t)a, (uint32_t)(a >> 32), words[2]},
        .used = 4,
    };
}

uint32_t philox_u32(struct philox *p)
{
    if (p->used == 4) {
        philox4x32(p->key, p->counter, p->words);
        p->counter[0]++;
        p->used = 0;
    }
    return p->words[p->used++];
}

float philox_uniform(struct philox *p)
{
    return (float)(philox_u32(p) >> 8) * 0x1p-24f;
}

double philox_uniform53(struct philox *p)
{
    uint64_t high = philox_u32(p) >> 5, low = philox_u32(p) >> 6;

    return (double)(high << 26 | low) * 0x1p-53;
}

double philox_normal(struct philox *p)
{
    double u = 1.0 - philox_uniform53(p), v = philox_uniform53(p);

    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint32_t philox_below(struct philox *p, uint32_t n)
{
    uint32_t limit = UINT32_MAX - UINT32_MAX % n, x;

    do
        x = philox_u32(p);
    while (x >= limit);
    return x % n;
}
