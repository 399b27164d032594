#include "tests/emulate/memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include <map>
#include <mutex>

#include "tests/emulate/emulate.h"

/* ---- sparse memory: address space, pages when they are written, and pages that nobody may touch before and behind */

static bool sparse;
static std::mutex maps_lock;
static std::map<const void *, std::pair<void *, size_t>> maps;

void emulate_sparsely(bool yes)
{
    sparse = yes;
    simt_corners(yes);
}

static int map_sparsely(size_t bytes, void **ret)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), used = (bytes + 255) / 256 * 256;
    size_t size = (used + page - 1) / page * page + 2 * page;
    char *all = (char *)mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (all == MAP_FAILED || mprotect(all + page, size - 2 * page, PROT_READ | PROT_WRITE) < 0)
        return -ENOMEM;
    *ret = all + size - page - used;
    std::lock_guard<std::mutex> guard(maps_lock);
    maps[*ret] = {all, size};
    return 0;
}

static bool unmap(void *memory)
{
    std::lock_guard<std::mutex> guard(maps_lock);
    auto map = maps.find(memory);

    if (map == maps.end())
        return false;
    munmap(map->second.first, map->second.second);
    maps.erase(map);
    return true;
}

/* ---- memory apart: all of it in one place, that only launches and copies can get at */

enum { APART_GIB = 64 };
static std::recursive_mutex apart_lock;
static char *apart;                     /* NULL: it is memory like any other */
static size_t apart_used;
static int apart_inside;
static std::multimap<size_t, char *> apart_free;
static std::map<const void *, size_t> apart_sizes;

void emulate_apart(void)
{
    void *all = apart ? apart : mmap(nullptr, (size_t)APART_GIB << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                                     0);

    apart = all == MAP_FAILED ? nullptr : (char *)all;
}

simt_inside::simt_inside()
{
    std::lock_guard<std::recursive_mutex> guard(apart_lock);

    if (apart && apart_inside++ == 0)
        mprotect(apart, (apart_used + 4095) / 4096 * 4096, PROT_READ | PROT_WRITE);
}

simt_inside::~simt_inside()
{
    std::lock_guard<std::recursive_mutex> guard(apart_lock);

    if (apart && --apart_inside == 0)
        mprotect(apart, (apart_used + 4095) / 4096 * 4096, PROT_NONE);
}

static int alloc_apart(size_t bytes, void **ret)
{
    std::lock_guard<std::recursive_mutex> guard(apart_lock);
    size_t size = (bytes + 256) / 256 * 256;
    auto unused = apart_free.find(size);

    if (unused == apart_free.end() && apart_used + size > (size_t)APART_GIB << 30)
        return -ENOMEM;
    *ret = unused == apart_free.end() ? apart + apart_used : unused->second;
    if (unused == apart_free.end()) {
        apart_used += size;
        if (apart_inside)
            mprotect(apart, (apart_used + 4095) / 4096 * 4096, PROT_READ | PROT_WRITE);
    } else {
        apart_free.erase(unused);
    }
    apart_sizes[*ret] = size;
    simt_inside inside;
    simt_poison(*ret, bytes);
    return 0;
}

static bool free_apart(void *memory)
{
    std::lock_guard<std::recursive_mutex> guard(apart_lock);
    auto found = apart_sizes.find(memory);

    if (found == apart_sizes.end())
        return false;
    apart_free.emplace(found->second, (char *)memory);
    apart_sizes.erase(found);
    return true;
}

/* ---- either, or malloc */

int memory_alloc_pinned(size_t bytes, void **ret)
{
    if (sparse)
        return map_sparsely(bytes, ret);
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);

    if (!memory)
        return -ENOMEM;
    simt_poison(memory, bytes);
    *ret = memory;
    return 0;
}

int memory_alloc(size_t bytes, void **ret)
{
    return apart && !sparse ? alloc_apart(bytes, ret) : memory_alloc_pinned(bytes, ret);
}

void memory_free(void *memory)
{
    if (!unmap(memory) && !free_apart(memory))
        free(memory);
}

void memory_zero(void *memory, size_t bytes)
{
    if (sparse) {               /* whole pages are given back: they are zeros again */
        size_t page = (size_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)memory + page - 1) / page * page - (uintptr_t)memory;
        size_t to = ((uintptr_t)memory + bytes) / page * page - (uintptr_t)memory;

        if (from < to && to <= bytes && madvise((char *)memory + from, to - from, MADV_DONTNEED) == 0) {
            memset(memory, 0, from);
            memset((char *)memory + to, 0, bytes - to);
            return;
        }
    }
    if (bytes)
        memset(memory, 0, bytes);
}
