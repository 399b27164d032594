/* metrics.h - numbers about a daemon, in Prometheus' words: counters and gauges.
 *
 *   struct metric *steps = metrics_counter(m, "gantry_env_steps_total", "", "environment steps played");
 *   metric_add(steps, 1);
 *
 * Counters are monotone totals: a rate is the difference of two snapshots over their time and is never stored.
 * metric_add and metric_set are lock-free and may be called from any thread; registering and writing
 * belong to the owner's thread. Registering the same name and labels again gives the same metric.
 * A NULL metric is accepted and does nothing (registering may fail with NULL: out of memory). */
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

void metric_add(struct metric *metric, double amount);          /* counters: amount >= 0 */
void metric_set(struct metric *metric, double value);           /* gauges; counters kept elsewhere: must not shrink */
double metric_value(const struct metric *metric);

/* Prometheus text format 0.0.4, families in the order registered. */
void metrics_write(struct metrics *metrics, struct strbuf *out);

/* Gauges of this process that every daemon has: rss bytes, CPU seconds, open descriptors; refreshed by metrics_write. */
void metrics_add_process(struct metrics *metrics);
uint64_t process_rss_bytes(void);
uint64_t process_peak_rss_bytes(void);
