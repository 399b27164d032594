/* mt19937.h - numpy's legacy global generator: Mersenne Twister, doubles of 53 bits, Gaussians by the polar method.
 *
 * LIBERO places its fixtures with numpy.random after numpy.random.seed(s): equal seeds must give equal draws here. The second
 * Gaussian of a pair is kept for the next call, across calls, as numpy does. Matsumoto and Nishimura 1998. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct mt19937 {
    uint32_t state[624];
    int used;                   /* words of state handed out */
    bool has_gauss;
    double gauss;
};

void mt19937_seed(struct mt19937 *mt, uint32_t seed);           /* numpy.random.seed(seed) */
double mt19937_uniform(struct mt19937 *mt, double lo, double hi);        /* numpy.random.uniform; lo may exceed hi */
double mt19937_normal(struct mt19937 *mt);                      /* numpy.random.randn */
