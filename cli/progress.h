/* progress.h - the coordinator's status document as something to print: one line of progress, or a page. */
#pragma once

#include <jansson.h>

#include "base/strbuf.h"
#include "daemon/run_config.h"

/* What is remembered between two looks, for rates and time left. Zero it at the beginning. */
struct progress {
    uint64_t seen_ms;                   /* monotonic; 0: nothing seen yet */
    double env_steps, episodes;         /* totals then */
    double rate_steps, rate_episodes;   /* per second, smoothed */
    int64_t stage, iteration;
    uint64_t stage_ms;                  /* when the stage was first seen, and at which iteration */
    int64_t stage_iteration;
};

/* Update from a document. True when the stage or iteration is another than the last time. */
bool progress_update(struct progress *progress, const json_t *status, uint64_t now_ms);

/* "rl 13/100  playing 20/32  success 0.62  policy 12  310 env steps/s  4:10 left in this stage". config may be NULL. */
void progress_line(const struct progress *progress, const json_t *status, const struct run_config *config, struct strbuf *out);

/* Several lines with the members; for `gantry status`. */
void progress_page(const struct progress *progress, const json_t *status, const struct run_config *config, struct strbuf *out);
