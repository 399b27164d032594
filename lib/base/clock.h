/* clock.h - the only place that asks what time it is. Pure code takes `now_ms` as an argument. */
#pragma once

#include <stdint.h>

uint64_t clock_mono_ms(void);       /* CLOCK_MONOTONIC, milliseconds; this process's comparisons only */
uint64_t clock_mono_ns(void);
uint64_t clock_wall_ms(void);       /* since 1970; for people and files, never for timeouts */
uint64_t clock_cpu_ns(void);        /* CPU time of the calling thread */
