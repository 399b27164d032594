#include "coordinator/pace.h"

#include <stdlib.h>

#include "coordinator/member_gauges.h"

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of the other workers' last windows, where those are fresh; 0: there is none. */
static double others_median(const struct gauges *gauges, uint32_t member, uint64_t now_ms)
{
    _cleanup_free_ double *values = calloc(gauges->n + 1, sizeof *values);
    size_t n = 0;

    for (size_t i = 0; values && i < gauges->n; i++) {
        const struct pace *pace = &gauges->items[i].pace;

        if (gauges->items[i].role == MEMBER_WORKER && gauges->items[i].member != member && pace->ms_per_step > 0 &&
            now_ms - pace->at_ms <= PACE_FRESH_MS)
            values[n++] = pace->ms_per_step;
    }
    if (!n)
        return 0;
    qsort(values, n, sizeof *values, by_size);
    return values[n / 2];
}

bool pace_note(const struct gauges *gauges, struct member_gauges *worker, uint64_t now_ms, double *ret_others)
{
    double steps = gauges_value(worker, "steps_total"),
           ms = gauges_value(worker, "sim_wall_ms_total") + gauges_value(worker, "act_ms_total"), others;
    struct pace *pace = &worker->pace;
    bool before = pace->slow;

    if (worker->role != MEMBER_WORKER || steps - pace->steps < PACE_STEPS)
        return false;
    pace->ms_per_step = (ms - pace->ms) / (steps - pace->steps);
    pace->at_ms = now_ms;
    pace->steps = steps;
    pace->ms = ms;
    others = others_median(gauges, worker->member, now_ms);
    if (others <= 0 || pace->ms_per_step < PACE_BACK * others) {
        pace->above = 0;
        pace->slow = false;
    } else if (pace->ms_per_step < PACE_SLOW * others) {
        pace->above = 0;
    } else if (++pace->above >= PACE_WINDOWS) {
        pace->slow = true;
    }
    if (pace->slow == before)
        return false;
    *ret_others = others;
    return true;
}
