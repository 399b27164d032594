/* machine.cc - the emulated device's memory: malloc, full of NaN at first. Streams do everything at once. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"
#include "tests/emulate/emulate.h"

#include <stdio.h>
#include <vector>

/* ---- graphs: what a stream was given, in order. As CUDA has it, waiting for it or asking for memory spoils a capture. */

struct emulated_graph {
    std::vector<std::function<int()>> work;
};
static thread_local emulated_graph *capturing;
static thread_local bool spoilt;

bool simt_kept(const std::function<int()> &work)
{
    if (capturing)
        capturing->work.push_back(work);
    return capturing != nullptr;
}

/* -ENOTSUP: not in a capture. */
static int spoil()
{
    spoilt = capturing != nullptr;
    return capturing ? -ENOTSUP : 0;
}

static int capture_begin(void *)
{
    capturing = new emulated_graph();
    spoilt = false;
    return 0;
}

static int capture_end(void *, void **ret)
{
    emulated_graph *graph = capturing;

    capturing = nullptr;
    if (spoilt) {
        delete graph;
        return -ENOTSUP;
    }
    *ret = graph;
    return 0;
}

static int graph_launch(void *, void *graph)
{
    int r = 0;

    for (auto &work : ((emulated_graph *)graph)->work)
        r = r < 0 ? r : work();
    return r;
}

static void graph_free(void *graph) { delete (emulated_graph *)graph; }

/* ---- devices, memory, streams */

static int devices(void) { return 1; }

static int use(int ordinal, struct device_facts *facts, char *why, size_t why_size)
{
    if (ordinal > 0) {
        snprintf(why, why_size, "there is 1 emulated device, numbered from 0");
        return -ENODEV;
    }
    if (facts) {
        *facts = {};
        snprintf(facts->name, sizeof(facts->name), "emulated");
        facts->major = 9;
        facts->memory = facts->memory_free = (size_t)1 << 32;
    }
    return 0;
}

static int stream_new(void **ret)
{
    *ret = malloc(1);
    return *ret ? 0 : -ENOMEM;
}

static void stream_free(void *stream) { free(stream); }

static int alloc(size_t bytes, void **ret)
{
    if (spoil() < 0)
        return -ENOTSUP;
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);

    if (!memory)
        return -ENOMEM;
    simt_poison(memory, bytes);
    *ret = memory;
    return 0;
}

static int move(void *, void *to, const void *from, size_t bytes)
{
    if (simt_kept([=]() { return move(nullptr, to, from, bytes); }))
        return 0;
    if (bytes)
        memcpy(to, from, bytes);
    return 0;
}

static int download(void *stream, void *host, const void *device, size_t bytes)
{
    int r = spoil();

    return r < 0 ? r : move(stream, host, device, bytes);
}

static int zero(void *, void *memory, size_t bytes)
{
    if (simt_kept([=]() { return zero(nullptr, memory, bytes); }))
        return 0;
    if (bytes)
        memset(memory, 0, bytes);
    return 0;
}

static int wait(void *) { return spoil(); }
static int done(void *) { return spoil() < 0 ? -ENOTSUP : 1; }
static const char *last_error(void) { return "an emulated error"; }

extern "C" void NAME(fill_machine)(struct device_kernels *k)
{
    k->name = "emulated";
    k->devices = devices;
    k->use = use;
    k->stream_new = stream_new;
    k->stream_free = stream_free;
    k->alloc = alloc;
    k->release = free;
    k->pinned = alloc;
    k->unpin = free;
    k->upload = move;
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
}
