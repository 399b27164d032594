/* frames.h - the pictures of one episode, o_0 .. o_T, in one block that messages borrow.
 *
 * Act, Score and Deliver send bytes of the block without copying them; ZeroMQ lets go of them later and on its own
 * thread. So a block is counted: the slot holds one reference, each borrowed part one more. A slot that starts its next
 * episode gets its own block back when nobody borrows it any more, else a new one.
 *
 * Thread rule: writing into a frame belongs to the sim thread until its job is done; frames_unref may be called anywhere. */
#pragma once

#include "wire/message.h"

struct frames {
    unsigned references;        /* atomic */
    uint32_t capacity;          /* frames */
    uint32_t height, width;
    uint8_t *rgb;               /* (capacity, height, width, 3) */
};

/* A block of at least `capacity` frames. *frames (may be NULL) is reused if it fits and is not borrowed, else let go and
 * replaced. -ENOMEM: *frames is as it was. */
int frames_renew(struct frames **frames, uint32_t capacity, uint32_t height, uint32_t width);
struct frames *frames_ref(struct frames *frames);
struct frames *frames_unref(struct frames *frames);     /* NULL ok; returns NULL */

static inline size_t frames_one(const struct frames *frames)     /* bytes of one */
{
    return (size_t)frames->height * frames->width * 3;
}
static inline uint8_t *frames_at(const struct frames *frames, uint32_t t) { return frames->rgb + frames_one(frames) * t; }

/* Frames first .. first+n-1 as a part to send; takes a reference that the sent message drops. */
struct wire_part frames_part(struct frames *frames, uint32_t first, uint32_t n);
