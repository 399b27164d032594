/* machine.cc - the emulated device: its streams, events and graphs, and memory (memory.h) as they see it. Streams do
 * nothing before somebody waits, or, told so (emulate_lazily), everything at once. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"
#include "tests/emulate/emulate.h"
#include "tests/emulate/memory.h"

#include <stdio.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <vector>

/* ---- streams and events ------------------------------------------------------------------------------------------- */

struct emulated_stream {
    std::deque<std::function<int()>> work;
    uint64_t put = 0, ran = 0;
    unsigned number = 0;
    int failed = 0; /* what waiting for it will answer */
};
struct emulated_event {
    emulated_stream *on = nullptr;
    uint64_t at = 0;
};

static thread_local std::vector<emulated_stream *> streams; /* of this thread: nobody else waits for them */
static thread_local unsigned streams_made;
static unsigned lazy = 3;
static std::mutex pinned_lock;
static std::set<const char *> pinned_memory; /* where each begins */

void emulate_lazily(unsigned which) { lazy = which; }

static bool is_lazy(const emulated_stream *s) { return s && lazy >> s->number % 2 & 1; }

static int run_until(emulated_stream *s, uint64_t place)
{
    while (s->ran < place && !s->work.empty()) {
        std::function<int()> next = std::move(s->work.front());
        int r;

        s->work.pop_front();
        s->ran++;
        r = next();
        s->failed = s->failed < 0 ? s->failed : r;
    }
    return s->failed;
}

static void run_all_streams(void)
{
    for (emulated_stream *s : streams)
        (void)run_until(s, s->put);
}

/* A thread that never made the device its own works on device 0, whichever it was meant to be: here there is but one, so that is
 * fatal. */
static thread_local bool owned;

void simt_owned(void)
{
    if (owned)
        return;
    fprintf(stderr, "emulated device: a thread works on it without having made it its own (use)\n");
    abort();
}

static int stream_new(void **ret)
{
    simt_owned();
    emulated_stream *s = new emulated_stream();

    s->number = streams_made++;
    streams.push_back(s);
    *ret = s;
    return 0;
}

static void stream_free(void *stream)
{
    emulated_stream *s = (emulated_stream *)stream;

    if (!s)
        return;
    simt_owned();
    (void)run_until(s, s->put);
    streams.erase(std::remove(streams.begin(), streams.end(), s), streams.end());
    delete s;
}

/* ---- graphs: what a stream was given, in order. As CUDA has it, waiting or asking for it, taking or giving back memory, and
 * copies from memory that is not pinned spoil a capture; what other streams are given is not part of it. */

struct emulated_graph {
    std::vector<std::function<int()>> work;
};
static thread_local emulated_graph *capturing;
static thread_local void *captured_stream;
static thread_local bool spoilt;

bool simt_kept(void *stream, const std::function<int()> &work)
{
    emulated_stream *s = (emulated_stream *)stream;

    if (capturing && stream == captured_stream) {
        capturing->work.push_back(work);
        return true;
    }
    if (!is_lazy(s))
        return false;
    s->work.push_back(work);
    s->put++;
    return true;
}

int emulate_put(void *stream, int (*fn)(void *arg), void *arg)
{
    auto work = [=]() {
        simt_inside inside;

        return fn(arg);
    };

    return simt_kept(stream, work) ? 0 : work();
}

/* -ENOTSUP: not in a capture. */
static int spoil()
{
    spoilt |= capturing != nullptr;
    return capturing ? -ENOTSUP : 0;
}

static int capture_begin(void *stream)
{
    simt_owned();
    if (capturing)
        return -EIO;
    capturing = new emulated_graph();
    captured_stream = stream;
    spoilt = false;
    return 0;
}

static int capture_end(void *stream, void **ret)
{
    simt_owned();
    emulated_graph *graph = capturing;

    if (!graph || stream != captured_stream)
        return -EIO;
    capturing = nullptr;
    if (spoilt) {
        delete graph;
        return -ENOTSUP;
    }
    *ret = graph;
    return 0;
}

static int graph_launch(void *stream, void *graph)
{
    simt_owned();
    int r = 0;

    for (auto &work : ((emulated_graph *)graph)->work)
        if (r >= 0 && !simt_kept(stream, work))
            r = work();
    return r;
}

static void graph_free(void *graph)
{
    simt_owned();
    delete (emulated_graph *)graph;
}

/* ---- devices, memory, streams */

static int devices(void) { return 1; }

/* A device that falls off: from the moment the file named by GANTRY_EMULATED_LOST is there nothing works in this process any
 * more. */
int simt_gone(void)
{
    static const char *const file = getenv("GANTRY_EMULATED_LOST");
    static std::atomic<bool> gone;

    if (file && !gone && access(file, F_OK) == 0)
        gone = true;
    return gone ? -EIO : 0;
}

static std::mutex taken_lock;
static std::map<void *, size_t> taken; /* what each piece of device memory has */
static size_t taken_bytes;

static size_t has(void) { return getenv("GANTRY_EMULATED_MEMORY") ? (size_t)atoll(getenv("GANTRY_EMULATED_MEMORY")) : (size_t)1 << 32; }

static int memory_now(size_t *ret_free, size_t *ret_all)
{
    std::lock_guard<std::mutex> guard(taken_lock);

    simt_owned();
    *ret_all = has();
    *ret_free = *ret_all - std::min(*ret_all, taken_bytes);
    return 0;
}

static int use(int ordinal, struct device_facts *facts, char *why, size_t why_size)
{
    if (ordinal > 0) {
        snprintf(why, why_size, "there is 1 emulated device, numbered from 0");
        return -ENODEV;
    }
    owned = true;
    if (facts) {
        *facts = {};
        snprintf(facts->name, sizeof(facts->name), "emulated");
        facts->major = 9;
        facts->memory = facts->memory_free = has();
    }
    return 0;
}

/* ---- memory */

static int alloc(size_t bytes, void **ret)
{
    simt_owned();
    if (spoil() < 0)
        return -ENOTSUP;
    if (simt_gone() < 0)
        return -EIO;
    int r = memory_alloc(bytes, ret);

    if (r == 0) {
        std::lock_guard<std::mutex> guard(taken_lock);

        taken[*ret] = bytes;
        taken_bytes += bytes;
    }
    return r;
}

/* Whoever still works in it is waited for, as cudaFree does. */
static void release(void *memory)
{
    if (!memory)
        return;
    simt_owned();
    (void)spoil();
    run_all_streams();
    {
        std::lock_guard<std::mutex> guard(taken_lock);

        taken_bytes -= taken[memory];
        taken.erase(memory);
    }
    memory_free(memory);
}

static int pinned(size_t bytes, void **ret)
{
    int r = spoil();

    simt_owned();
    r = r < 0 ? r : simt_gone();
    r = r < 0 ? r : memory_alloc_pinned(bytes, ret);
    if (r == 0) {
        std::lock_guard<std::mutex> guard(pinned_lock);

        pinned_memory.insert((const char *)*ret);
    }
    return r;
}

static void unpin(void *memory)
{
    simt_owned();
    std::lock_guard<std::mutex> guard(pinned_lock);

    (void)spoil();
    pinned_memory.erase((const char *)memory);
    memory_free(memory);
}

static bool is_pinned(const void *memory)
{
    std::lock_guard<std::mutex> guard(pinned_lock);
    auto after = pinned_memory.upper_bound((const char *)memory);

    return after != pinned_memory.begin() && (const char *)memory - *std::prev(after) < 64 << 20; /* the block before it: near
                                                                                                   * enough */
}

static int move(void *stream, void *to, const void *from, size_t bytes)
{
    simt_owned();
    if (simt_kept(stream, [=]() { return move(nullptr, to, from, bytes); }))
        return 0;
    if (simt_gone() < 0)
        return -EIO;
    simt_inside inside;
    if (bytes)
        memcpy(to, from, bytes);
    return 0;
}

/* Read when its turn comes, pageable memory too: CUDA only says that such a copy may be over when the call returns. */
static int upload(void *stream, void *device, const void *host, size_t bytes)
{
    if (capturing && stream == captured_stream && !is_pinned(host))
        return spoil();
    return move(stream, device, host, bytes);
}

static int wait(void *stream)
{
    simt_owned();
    emulated_stream *s = (emulated_stream *)stream;
    int r = spoil();

    r = r < 0 ? r : simt_gone();
    return r < 0 || !s ? r : run_until(s, s->put);
}

static int download(void *stream, void *host, const void *device, size_t bytes)
{
    int r = wait(stream);

    return r < 0 ? r : move(nullptr, host, device, bytes);
}

static int zero(void *stream, void *memory, size_t bytes)
{
    simt_owned();
    if (simt_kept(stream, [=]() { return zero(nullptr, memory, bytes); }))
        return 0;
    simt_inside inside;
    memory_zero(memory, bytes);
    return 0;
}

static int done(void *stream)
{
    int r = wait(stream);

    return r < 0 ? r : 1;
}

static int event_new(void **ret)
{
    simt_owned();
    *ret = new emulated_event();
    return 0;
}
static void event_free(void *event)
{
    simt_owned();
    delete (emulated_event *)event;
}
static int event_mark(void *stream, void *event)
{
    simt_owned();
    *(emulated_event *)event = {(emulated_stream *)stream, ((emulated_stream *)stream)->put};
    return 0;
}
static int stream_wait(void *stream, void *event)
{
    simt_owned();
    emulated_event e = *(emulated_event *)event;
    auto work = [=]() { return run_until(e.on, e.at); };

    return simt_kept(stream, work) ? 0 : work();
}
static int event_seconds(void *from, void *to, double *ret)
{
    (void)wait(((emulated_event *)from)->on);
    *ret = 0;
    return wait(((emulated_event *)to)->on);
}

static const char *last_error(void) { return simt_gone() < 0 ? "the GPU has fallen off the bus" : "an emulated error"; }

extern "C" void NAME(fill_machine)(struct device_kernels *k)
{
    k->name = "emulated";
    k->devices = devices;
    k->use = use;
    k->memory = memory_now;
    k->stream_new = stream_new;
    k->stream_free = stream_free;
    k->alloc = alloc;
    k->release = release;
    k->pinned = pinned;
    k->unpin = unpin;
    k->upload = upload;
    k->download = download;
    k->copy = move;
    k->zero = zero;
    k->wait = wait;
    k->done = done;
    k->last_error = last_error;
    k->capture_begin = capture_begin;
    k->capture_end = capture_end;
    k->graph_launch = graph_launch;
    k->graph_free = graph_free;
    k->event_new = event_new;
    k->event_free = event_free;
    k->event_mark = event_mark;
    k->stream_wait = stream_wait;
    k->event_seconds = event_seconds;
}
