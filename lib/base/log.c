#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>

#include "base/plain.h"

enum { RING_LINES = 64, LINE_SIZE = 1024 };

static const char *role = "gantry";
static atomic_int level_now = LOG_LEVEL_INFO;
static char ring[RING_LINES][LINE_SIZE];
static atomic_uint ring_next;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void log_open(const char *name) { role = name; }
void log_set_level(enum log_level level) { atomic_store(&level_now, (int)level); }

int log_level_parse(const char *text, enum log_level *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
        if (!strcmp(text, level_names[i])) {
            *ret = (enum log_level)i;
            return 0;
        }
    return -EINVAL;
}

void log_event(enum log_level level, const char *message, const char *format, ...)
{
    char line[LINE_SIZE], stamp[32];
    struct timespec now;
    struct tm utc;
    va_list args;
    size_t n;
    int w;

    if ((int)level > atomic_load_explicit(&level_now, memory_order_relaxed))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    w = snprintf(line, sizeof line, "ts=%s.%03ldZ level=%s role=%s msg=\"%s\" ", stamp, now.tv_nsec / 1000000,
                 level_names[level], role, message);
    n = w < 0 ? 0 : MIN((size_t)w, sizeof line - 2);
    va_start(args, format);
    w = vsnprintf(line + n, sizeof line - n - 1, format, args);
    va_end(args);
    n += w < 0 ? 0 : MIN((size_t)w, sizeof line - n - 2);
    while (n && line[n - 1] == ' ')
        n--;
    line[n++] = '\n';
    line[n < sizeof line ? n : sizeof line - 1] = '\0';
    memcpy(ring[atomic_fetch_add(&ring_next, 1) % RING_LINES], line, n < LINE_SIZE ? n + 1 : LINE_SIZE);
    if (write(STDERR_FILENO, line, n) < 0)
        return;                 /* nowhere to complain to */
}

const char *log_quote(const char *text, char *buffer, size_t size)
{
    size_t n = 0;

    buffer[n++] = '"';
    for (size_t control; text && *text && n + 4 < size; text += MAX(control, (size_t)1)) {
        control = control_length(text);
        if (control || *text == '"' || *text == '\\')
            buffer[n++] = '\\';
        buffer[n++] = *text == '\n' ? 'n' : control ? '?' : *text;
    }
    buffer[n++] = '"';
    buffer[n] = '\0';
    return buffer;
}

void log_dump_ring(int fd)
{
    unsigned next = atomic_load(&ring_next), i;

    for (i = 0; i < RING_LINES; i++) {
        const char *line = ring[(next + i) % RING_LINES];

        if (line[0] && write(fd, line, strnlen(line, LINE_SIZE)) < 0)
            return;
    }
}
