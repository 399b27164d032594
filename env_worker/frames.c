#include "env_worker/frames.h"

#include <errno.h>
#include <string.h>

struct frames *frames_ref(struct frames *frames)
{
    __atomic_add_fetch(&frames->references, 1, __ATOMIC_RELAXED);
    return frames;
}

struct frames *frames_unref(struct frames *frames)
{
    if (frames && __atomic_sub_fetch(&frames->references, 1, __ATOMIC_ACQ_REL) == 0) {
        free(frames->rgb);
        free(frames->state);
        free(frames);
    }
    return NULL;
}

int frames_renew(struct frames **frames, uint32_t capacity, const struct frames_shape *shape)
{
    struct frames *fresh, *old = *frames;

    if (old && old->capacity >= capacity && memcmp(&old->shape, shape, sizeof(*shape)) == 0 &&
        __atomic_load_n(&old->references, __ATOMIC_ACQUIRE) == 1)
        return 0;

    fresh = calloc(1, sizeof(*fresh));
    if (!fresh)
        return -ENOMEM;
    *fresh = (struct frames) { .references = 1, .capacity = capacity, .shape = *shape };
    fresh->rgb = malloc(frames_one(shape) * capacity);
    fresh->state = shape->state ? calloc((size_t)shape->state * capacity, sizeof(*fresh->state)) : NULL;
    if (!fresh->rgb || (shape->state && !fresh->state)) {
        frames_unref(fresh);
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
        .size = frames_one(&frames->shape) * n,
        .release = release,
        .arg = frames_ref(frames),
    };
}

struct wire_part frames_picture(struct frames *frames, uint32_t i, uint32_t camera)
{
    size_t size = frames_picture_size(&frames->shape);

    return (struct wire_part) {
        .bytes = frames_at(frames, i) + size * camera,
        .size = size,
        .release = release,
        .arg = frames_ref(frames),
    };
}

void frames_copy(struct frames *to, uint32_t t, const struct frames *from, uint32_t from_t)
{
    memcpy(frames_at(to, t), frames_at(from, from_t), frames_one(&to->shape));
    if (to->state)
        memcpy(frames_state(to, t), frames_state(from, from_t), to->shape.state * sizeof(*to->state));
}
