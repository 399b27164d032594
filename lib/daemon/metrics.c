#include "daemon/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <sys/resource.h>

enum metric_type { COUNTER, GAUGE };

struct metric {
    struct metric *next;
    enum metric_type type;
    char *name, *labels, *help;
    double value;
};

struct metrics {
    struct metric *first, **tail;
    struct metric *rss, *cpu, *descriptors;     /* metrics_add_process */
};

struct metrics *metrics_new(void)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);

    if (metrics)
        metrics->tail = &metrics->first;
    return metrics;
}

static struct metric *metric_free(struct metric *m)
{
    free(m->name);
    free(m->labels);
    free(m->help);
    free(m);
    return NULL;
}
DEFINE_FREEP(struct metric, metric_free)

struct metrics *metrics_free(struct metrics *metrics)
{
    if (!metrics)
        return NULL;
    for (struct metric *m = metrics->first, *next; m; m = next) {
        next = m->next;
        metric_free(m);
    }
    free(metrics);
    return NULL;
}

static struct metric *metric_register(struct metrics *metrics, enum metric_type type, const char *name, const char *labels,
                                      const char *help)
{
    _cleanup_(metric_freep) struct metric *m = NULL;

    if (!metrics)
        return NULL;
    for (m = metrics->first; m; m = m->next)
        if (!strcmp(m->name, name) && !strcmp(m->labels, labels)) {
            assert(m->type == type);
            return TAKE_PTR(m);
        }
    m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->type = type;
    m->name = strdup(name);
    m->labels = strdup(labels);
    m->help = strdup(help);
    if (!m->name || !m->labels || !m->help)
        return NULL;
    *metrics->tail = m;
    metrics->tail = &m->next;
    return TAKE_PTR(m);
}

struct metric *metrics_counter(struct metrics *metrics, const char *name, const char *labels, const char *help)
{
    return metric_register(metrics, COUNTER, name, labels, help);
}

struct metric *metrics_gauge(struct metrics *metrics, const char *name, const char *labels, const char *help)
{
    return metric_register(metrics, GAUGE, name, labels, help);
}

void metric_set(struct metric *m, double value)
{
    if (m)
        m->value = value;
}

static void write_number(double value, struct strbuf *out)
{
    if (isnan(value))
        strbuf_adds(out, "NaN");
    else if (isinf(value))
        strbuf_adds(out, value > 0 ? "+Inf" : "-Inf");
    else
        strbuf_addf(out, "%.17g", value);
}

static void write_sample(const struct metric *m, struct strbuf *out)
{
    strbuf_addf(out, m->labels[0] ? "%s{%s} " : "%s%s ", m->name, m->labels);
    write_number(m->value, out);
    strbuf_addc(out, '\n');
}

/* All metrics of one name stand together, under one HELP and TYPE. */
static void write_family(const struct metric *first, struct strbuf *out)
{
    static const char *const types[] = {"counter", "gauge"};

    strbuf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", first->name, first->help, first->name, types[first->type]);
    for (const struct metric *m = first; m; m = m->next)
        if (!strcmp(m->name, first->name))
            write_sample(m, out);
}

/* ---- this process ------------------------------------------------------------------------------------------- */

uint64_t process_rss_bytes(void)
{
    _cleanup_close_ int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    unsigned long long pages = 0;
    char text[128] = "";

    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0 || sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t process_peak_rss_bytes(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) < 0 ? 0 : (uint64_t)usage.ru_maxrss * 1024;
}

static double seconds(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

static double cpu_seconds(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) < 0 ? 0 : seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

static unsigned open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned n = 0;

    if (!directory)
        return 0;
    for (const struct dirent *entry = readdir(directory); entry; entry = readdir(directory))
        n += entry->d_name[0] != '.';
    closedir(directory);
    return n - 1;               /* without the one that looked */
}

void metrics_add_process(struct metrics *metrics)
{
    metrics->rss = metrics_gauge(metrics, "process_resident_memory_bytes", "", "resident memory");
    metrics->cpu = metrics_counter(metrics, "process_cpu_seconds_total", "", "user and system CPU time");
    metrics->descriptors = metrics_gauge(metrics, "process_open_fds", "", "open file descriptors");
}

void metrics_write(struct metrics *metrics, struct strbuf *out)
{
    if (metrics->rss) {
        metric_set(metrics->rss, (double)process_rss_bytes());
        metric_set(metrics->cpu, cpu_seconds());
        metric_set(metrics->descriptors, open_descriptors());
    }
    for (const struct metric *m = metrics->first; m; m = m->next) {
        bool seen = false;

        for (const struct metric *before = metrics->first; before != m && !seen; before = before->next)
            seen = !strcmp(before->name, m->name);
        if (!seen)
            write_family(m, out);
    }
}
