/* frames.h - what was observed in one episode, o_0 .. o_T, in one block that messages borrow.
 *
 * An observation is a picture of each camera and the robot's own numbers. Pictures that nobody looks at are not drawn and take no
 * place: the block's frame i is the i-th observation that was drawn (episode.h says which that was); its row t is o_t's numbers.
 * Act, Score and Deliver send bytes of the block without copying them; ZeroMQ lets go of them later and on its own thread. So a
 * block is counted: the slot holds one reference, each borrowed part one more. A slot that starts its next episode gets its own
 * block back when nobody borrows it any more, else a new one.
 *
 * Thread rule: writing into a frame belongs to the sim thread until its job is done; frames_unref may be called anywhere. */
#pragma once

#include "wire/message.h"

enum { FRAMES_CAMERAS_MAX = 8 };

struct frames_shape {
    uint32_t height, width;
    uint32_t cameras;           /* pictures of one observation, 1..FRAMES_CAMERAS_MAX; the first is the one that reward models
                                 * see */
    uint32_t state;             /* numbers of the robot's own; 0: none */
};

struct frames {
    unsigned references;        /* atomic */
    uint32_t capacity;          /* observations */
    struct frames_shape shape;
    uint8_t *rgb;               /* (capacity, cameras, height, width, 3) */
    float *state;               /* (capacity, shape.state), in the suite's units; NULL: none */
};

/* A block of at least `capacity` observations. *frames (may be NULL) is reused if it fits and is not borrowed, else let go and
 * replaced. -ENOMEM: *frames is as it was. */
int frames_renew(struct frames **frames, uint32_t capacity, const struct frames_shape *shape);
struct frames *frames_ref(struct frames *frames);
struct frames *frames_unref(struct frames *frames);     /* NULL ok; returns NULL */

static inline size_t frames_picture_size(const struct frames_shape *shape)      /* bytes of one picture */
{
    return (size_t)shape->height * shape->width * 3;
}
static inline size_t frames_one(const struct frames_shape *shape)       /* bytes of one observation's pictures */
{
    return frames_picture_size(shape) * shape->cameras;
}
/* Frame i: its pictures, camera after camera. Row t: the robot's state. */
static inline uint8_t *frames_at(const struct frames *frames, uint32_t i) { return frames->rgb + frames_one(&frames->shape) * i; }
static inline float *frames_state(const struct frames *frames, uint32_t t)      /* NULL: none */
{
    return frames->state ? frames->state + (size_t)t * frames->shape.state : NULL;
}
/* Where every observation is drawn: frame and row t of one block of the same shape. */
void frames_copy(struct frames *to, uint32_t t, const struct frames *from, uint32_t from_t);

/* Frames first .. first+n-1 as a part to send; takes a reference that the sent message drops. */
struct wire_part frames_part(struct frames *frames, uint32_t first, uint32_t n);
/* One camera's picture likewise. */
struct wire_part frames_picture(struct frames *frames, uint32_t i, uint32_t camera);
