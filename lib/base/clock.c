#include "base/clock.h"

#include <time.h>

static uint64_t now_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_mono_ms(void) { return now_ns(CLOCK_MONOTONIC) / 1000000u; }
uint64_t clock_mono_ns(void) { return now_ns(CLOCK_MONOTONIC); }
uint64_t clock_wall_ms(void) { return now_ns(CLOCK_REALTIME) / 1000000u; }
uint64_t clock_cpu_ns(void) { return now_ns(CLOCK_THREAD_CPUTIME_ID); }
