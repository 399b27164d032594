/* philox.h - counter-based random numbers: Philox 4x32-10 (Salmon et al., SC 2011).
 *
 * The same (key, counter) gives the same numbers on every machine, in every order of calls: what is drawn
 * never depends on who draws or when. gantry's counters are (episode, step, sample, token) under the run
 * seed; `stream` keeps the uses apart. */
#pragma once

#include <stdint.h>

enum philox_stream {            /* which use of randomness; never renumber */
    PHILOX_SAMPLE = 1,          /* action tokens */
    PHILOX_STATE = 2,           /* initial states of episodes */
    PHILOX_NOISE = 3,           /* demonstrators' noise and pauses */
    PHILOX_INIT = 4,            /* weights */
    PHILOX_SHUFFLE = 5,         /* order of minibatches */
    PHILOX_CURRICULUM = 6,      /* which task an episode row gets */
    PHILOX_PROPOSE = 7,         /* test-time proposals */
    PHILOX_WORDING = 8,         /* which wording of an instruction */
    PHILOX_BOOTSTRAP = 9,       /* resampled statistics */
    PHILOX_AUGMENT = 10,        /* how a picture is changed in training */
    PHILOX_PERTURB = 11,        /* when and how the world interferes with an episode */
    PHILOX_TEST = 100,
};

/* Four 32-bit words for one counter. */
void philox4x32(const uint32_t key[2], const uint32_t counter[4], uint32_t ret_words[4]);

/* A sequence of draws from one (seed, stream, a, b, c); cheap to set up, never shared. */
struct philox {
    uint32_t key[2];
    uint32_t counter[4];        /* counter[0] counts blocks of four */
    uint32_t words[4];
    unsigned used;              /* words handed out of the current block; 4 = none left */
};

/* Equal arguments give equal sequences. a, b, c: e.g. episode, step, sample<<16 | token. */
struct philox philox_at(uint64_t seed, enum philox_stream stream, uint64_t a, uint32_t b, uint32_t c);

uint32_t philox_u32(struct philox *p);
float philox_uniform(struct philox *p);                 /* [0,1), 24 bits */
double philox_uniform53(struct philox *p);              /* [0,1), 53 bits */
double philox_normal(struct philox *p);                 /* N(0,1), Box-Muller, two draws each */
uint32_t philox_below(struct philox *p, uint32_t n);    /* 0..n-1 without bias; n > 0 */
