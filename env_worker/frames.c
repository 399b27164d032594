#include "env_worker/frames.h"

#include <errno.h>

struct frames *frames_ref(struct frames *frames)
{
    __atomic_add_fetch(&frames->references, 1, __ATOMIC_RELAXED);
    return frames;
}

struct frames *frames_unref(struct frames *frames)
{
    if (frames && __atomic_sub_fetch(&frames->references, 1, __ATOMIC_ACQ_REL) == 0) {
        free(frames->rgb);
        free(frames);
    }
    return NULL;
}

int frames_renew(struct frames **frames, uint32_t capacity, uint32_t height, uint32_t width)
{
    struct frames *fresh, *old = *frames;

    if (old && old->capacity >= capacity && old->height == height && old->width == width &&
        __atomic_load_n(&old->references, __ATOMIC_ACQUIRE) == 1)
        return 0;

    fresh = calloc(1, sizeof(*fresh));
    if (!fresh)
        return -ENOMEM;
    *fresh = (struct frames) { .references = 1, .capacity = capacity, .height = height, .width = width };
    fresh->rgb = malloc(frames_one(fresh) * capacity);
    if (!fresh->rgb) {
        free(fresh);
        return -ENOMEM;
    }
    frames_unref(old);
    *frames = fresh;
    return 0;
}

static void release(void *arg)
{
    frames_unref(arg);
}

struct wire_part frames_part(struct frames *frames, uint32_t first, uint32_t n)
{
    return (struct wire_part) {
        .bytes = frames_at(frames, first),
        .size = frames_one(frames) * n,
        .release = release,
        .arg = frames_ref(frames),
    };
}
