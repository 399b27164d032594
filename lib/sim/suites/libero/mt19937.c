#include "sim/suites/libero/mt19937.h"

#include <math.h>

enum { N = 624, M = 397 };

void mt19937_seed(struct mt19937 *mt, uint32_t seed)
{
    for (int i = 0; i < N; i++) {
        mt->state[i] = seed;
        seed = 1812433253u * (seed ^ seed >> 30) + (uint32_t)i + 1;
    }
    mt->used = N;
    mt->has_gauss = false;
}

static void refill(struct mt19937 *mt)
{
    for (int i = 0; i < N; i++) {
        const uint32_t y = (mt->state[i] & 0x80000000u) | (mt->state[(i + 1) % N] & 0x7fffffffu);

        mt->state[i] = mt->state[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    mt->used = 0;
}

static uint32_t next(struct mt19937 *mt)
{
    uint32_t y;

    if (mt->used == N)
        refill(mt);
    y = mt->state[mt->used++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static double next_double(struct mt19937 *mt)
{
    const uint32_t a = next(mt) >> 5, b = next(mt) >> 6;

    return (a * 67108864.0 + b) / 9007199254740992.0;
}

double mt19937_uniform(struct mt19937 *mt, double lo, double hi)
{
    return lo + (hi - lo) * next_double(mt);
}

double mt19937_normal(struct mt19937 *mt)
{
    double x1, x2, r2, f;

    if (mt->has_gauss) {
        mt->has_gauss = false;
        return mt->gauss;
    }
    do {
        x1 = 2.0 * next_double(mt) - 1.0;
        x2 = 2.0 * next_double(mt) - 1.0;
        r2 = x1 * x1 + x2 * x2;
    } while (r2 >= 1.0 || r2 == 0.0);
    f = sqrt(-2.0 * log(r2) / r2);
    mt->gauss = f * x1;
    mt->has_gauss = true;
    return f * x2;
}
