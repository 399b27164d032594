#include "tests/harness/count_internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>

enum { HEADER = 4096, SMALL = 1 << 16 };

const char *const count_names[COUNT_ALL] = {
#define X(name, text) text,
    COUNT_KINDS(X)
#undef X
};

static struct {
    double bytes, flops;
    size_t memory, taken;
    struct counts now, before;  /* before: what had been counted when the capture under way began */
} c = {.bytes = 4.3e12, .flops = 790e12, .memory = (size_t)139 << 30};

void count_speeds(double bytes, double flops, size_t memory)
{
    c.bytes = bytes;
    c.flops = flops;
    c.memory = memory;
}

void count_clear(void) { c.now = (struct counts) {0}; }
struct counts count_read(void) { return c.now; }

static void add(struct count *to, const struct count *one)
{
    to->launches += one->launches;
    to->bytes += one->bytes;
    to->flops += one->flops;
    to->seconds += one->seconds;
}

int count_launch(enum count_kind kind, unsigned long long launches, double bytes, double flops)
{
    struct count one = {launches, bytes, flops, fmax(bytes / c.bytes, flops / c.flops)};

    add(&c.now.kind[kind], &one);
    add(&c.now.total, &one);
    c.now.issued += launches;
    return 0;
}

/* ---- the machine ------------------------------------------------------------------------------------------------------- */

static int devices(void) { return 1; }

static int memory_now(size_t *ret_free, size_t *ret_all)
{
    *ret_free = c.memory - MIN(c.memory, c.taken);
    *ret_all = c.memory;
    return 0;
}

static int use(_unused_ int ordinal, struct device_facts *facts, _unused_ char *why, _unused_ size_t n)
{
    if (!facts)
        return 0;
    *facts = (struct device_facts) {.name = "a device that counts", .major = 9, .processors = 132, .bandwidth = c.bytes};
    return memory_now(&facts->memory_free, &facts->memory);
}

static int handle_new(void **ret) { return (*ret = malloc(1)) ? 0 : -ENOMEM; }

/* The length stands on a page in front. */
static int alloc(size_t bytes, void **ret)
{
    char *at;

    if (c.taken + bytes > c.memory)
        return -ENOMEM;
    at = mmap(NULL, HEADER + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return -ENOMEM;
    *(size_t *)(void *)at = bytes;
    c.taken += bytes;
    *ret = at + HEADER;
    return 0;
}

static void release(void *memory)
{
    char *at = memory ? (char *)memory - HEADER : NULL;
    size_t bytes = at ? *(size_t *)(void *)at : 0;

    if (!at)
        return;
    c.taken -= bytes;
    (void)munmap(at, HEADER + bytes);
}

static int pinned(size_t bytes, void **ret) { return (*ret = malloc(bytes)) ? 0 : -ENOMEM; }

static int upload(_unused_ void *stream, void *device, const void *host, size_t bytes)
{
    if (bytes <= SMALL)
        memcpy(device, host, bytes);
    c.now.uploads++;
    c.now.issued++;
    c.now.uploaded += (double)bytes;
    return 0;
}

static int download(_unused_ void *stream, void *host, _unused_ const void *device, size_t bytes)
{
    memset(host, 0, bytes);
    c.now.downloads++;
    c.now.issued++;
    c.now.waits++;
    c.now.downloaded += (double)bytes;
    return 0;
}

static int copy(_unused_ void *stream, _unused_ void *to, _unused_ const void *from, size_t bytes)
{
    return count_launch(COUNT_copy, 1, 2 * (double)bytes, 0);
}

static int zero(_unused_ void *stream, _unused_ void *memory, size_t bytes)
{
    return count_launch(COUNT_zero, 1, (double)bytes, 0);
}

static int wait(_unused_ void *stream)
{
    c.now.waits++;
    return 0;
}

static int done(_unused_ void *stream) { return 1; }
static const char *last_error(void) { return "no memory left to count"; }

static int capture_begin(_unused_ void *stream)
{
    c.before = c.now;
    return 0;
}

static int capture_end(_unused_ void *stream, void **ret_graph)
{
    struct counts *graph = malloc(sizeof(*graph));

    if (!graph)
        return -ENOMEM;
    *graph = c.now;
    for (int i = 0; i < COUNT_ALL; i++) {
        const struct count *b = &c.before.kind[i];

        add(&graph->kind[i], &(struct count) {-b->launches, -b->bytes, -b->flops, -b->seconds});
    }
    add(&graph->total, &(struct count) {-c.before.total.launches, -c.before.total.bytes, -c.before.total.flops,
                                        -c.before.total.seconds});
    graph->uploads -= c.before.uploads;
    graph->uploaded -= c.before.uploaded;
    c.now = c.before;
    *ret_graph = graph;
    return 0;
}

static int graph_launch(_unused_ void *stream, void *graph)
{
    const struct counts *of = graph;

    for (int i = 0; i < COUNT_ALL; i++)
        add(&c.now.kind[i], &of->kind[i]);
    add(&c.now.total, &of->total);
    c.now.uploads += of->uploads;
    c.now.uploaded += of->uploaded;
    c.now.issued++;
    return 0;
}

static int event_mark(_unused_ void *stream, _unused_ void *event) { return 0; }

static int event_seconds(_unused_ void *from, _unused_ void *to, double *ret)
{
    *ret = 0;
    return 0;
}

struct device_kernels count_machine(void)
{
    return (struct device_kernels) {
        .name = "counting", .devices = devices, .use = use, .memory = memory_now, .stream_new = handle_new, .stream_free = free,
        .alloc = alloc, .release = release, .pinned = pinned, .unpin = free, .upload = upload, .download = download, .copy = copy,
        .zero = zero, .wait = wait, .done = done, .last_error = last_error, .capture_begin = capture_begin,
        .capture_end = capture_end, .graph_launch = graph_launch, .graph_free = free, .event_new = handle_new, .event_free = free,
        .event_mark = event_mark, .stream_wait = event_mark, .event_seconds = event_seconds,
    };
}
