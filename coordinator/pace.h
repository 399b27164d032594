/* pace.h - which workers are slow: the milliseconds that a worker's slots spend on one environment step, beside the others'.
 *
 * From the sums that heartbeats carry (steps_total, sim_wall_ms_total, act_ms_total), over windows of PACE_STEPS steps: one that
 * waits for work is not slow. It is once PACE_WINDOWS windows in a row took PACE_SLOW times the median of the other workers' last
 * windows, and no more once one took less than PACE_BACK times that. This is said, nothing else: who is slow plays fewer episodes
 * by itself, and the leases of one that stands still end.
 *
 * Thread rule: the coordinator's loop thread only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct gauges;
struct member_gauges;

enum { PACE_STEPS = 100, PACE_WINDOWS = 3, PACE_SLOW = 3, PACE_BACK = 2, PACE_FRESH_MS = 60000 };

struct pace {
    double steps, ms;           /* the sums when this window began */
    double ms_per_step;         /* of the last whole window; 0: none yet */
    uint64_t at_ms;             /* when that was */
    unsigned above;             /* windows in a row */
    bool slow;
};

/* After a worker's gauges are in. True: `slow` has changed; *ret_others is then the others' median. */
bool pace_note(const struct gauges *gauges, struct member_gauges *worker, uint64_t now_ms, double *ret_others);
