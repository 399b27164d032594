/* metrics.h - numbers about a daemon, in Prometheus' words: counters and gauges.
 *
 *   struct metric *steps = metrics_counter(m, "gantry_env_steps_total", "", "environment steps played");
 *   metric_set(steps, 1200);
 *   metrics_write(m, &out);
 *
 * Counters are monotone totals: a rate is the difference of two snapshots over their time and is never stored. One thread has
 * them all. Registering the same name and labels again gives the same metric. A NULL metric is accepted and does nothing
 * (registering may fail with NULL: out of memory). */
#pragma once

#include "base/strbuf.h"

struct metrics;
struct metric;

struct metrics *metrics_new(void);      /* NULL: out of memory */
struct metrics *metrics_free(struct metrics *metrics);
DEFINE_FREEP(struct metrics, metrics_free)

/* `labels` as in the text format, without braces: `role="actor",member="3"`; "" for none. All text is copied. */
struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *labels, const char *help);
struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *labels, const char *help);

void metric_set(struct metric *metric, double value);           /* a counter's must not shrink */

/* Prometheus text format 0.0.4, families in the order registered. */
void metrics_write(struct metrics *metrics, struct strbuf *out);

/* Of this process: resident bytes, CPU seconds, open descriptors; refreshed by metrics_write. */
void metrics_add_process(struct metrics *metrics);
uint64_t process_rss_bytes(void);               /* 0: not known, as below */
uint64_t process_peak_rss_bytes(void);
