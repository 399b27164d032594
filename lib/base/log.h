/* log.h - one event, one logfmt line on stderr.
 *
 *   log_info("lease granted", "episode=%" PRIu64 " member=%u", id, member);
 *   -> ts=2026-01-02T03:04:05.678Z level=info role=coordinator msg="lease granted" episode=7 member=2
 *
 * Daemons log; library code never logs above debug. The last lines are kept in a ring for the crash
 * report. Thread-safe; one write(2) a line. */
#pragma once

#include "base/macro.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_open(const char *role);                /* who is writing: `role=` on each line; borrowed */
void log_set_level(enum log_level level);
int log_level_parse(const char *text, enum log_level *ret);     /* error|warn|info|debug; -EINVAL */

/* `message` is constant text; `format` gives key=value pairs (values with blanks: use log_quote). */
void log_event(enum log_level level, const char *message, const char *format, ...) _printf_(3, 4);
#define log_error(message, ...) log_event(LOG_LEVEL_ERROR, message, "" __VA_ARGS__)
#define log_warn(message, ...) log_event(LOG_LEVEL_WARN, message, "" __VA_ARGS__)
#define log_info(message, ...) log_event(LOG_LEVEL_INFO, message, "" __VA_ARGS__)
#define log_debug(message, ...) log_event(LOG_LEVEL_DEBUG, message, "" __VA_ARGS__)

/* `text` as a quoted logfmt value, control characters escaped, cut to the buffer. Returns buffer. */
const char *log_quote(const char *text, char *buffer, size_t size);
#define LOG_Q(text) log_quote((text), (char[512]) {0}, 512)

/* Write the ring of recent lines to fd (async-signal-safe). */
void log_dump_ring(int fd);
