/* machine.cc - the emulated device's memory: malloc, full of NaN at first. Streams do everything at once. */
#include "nn/cuda/simt.h"
#include "nn/cuda/tables.h"
#include "tests/emulate/emulate.h"

#include <stdio.h>

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
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);

    if (!memory)
        return -ENOMEM;
    simt_poison(memory, bytes);
    *ret = memory;
    return 0;
}

static int move(void *, void *to, const void *from, size_t bytes)
{
    if (bytes)
        memcpy(to, from, bytes);
    return 0;
}

static int zero(void *, void *memory, size_t bytes)
{
    if (bytes)
        memset(memory, 0, bytes);
    return 0;
}

static int wait(void *) { return 0; }
static int done(void *) { return 1; }
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
    k->download = move;
    k->copy = move;
    k->zero = zero;
    k->wait = wait;
    k->done = done;
    k->last_error = last_error;
}
