/* frame.h - what goes over the stream between gantry and a simulator that is not ours: JSON heads and raw bytes (docs/remote.md).
 *
 *   frame_send(fd, head, head_n, body, body_n, deadline, &error)  ->  frame_receive(fd, &frame, body_max, deadline, &error)
 *   -> frame.head, frame.body  ->  frame_release
 *
 * Both wait, at most until `deadline` (clock_mono_ns; UINT64_MAX: for ever). A frame keeps its memory for the next one. After any
 * failure the stream is out of step: close it.
 * Failure: -ETIMEDOUT; -EPIPE: the other side has gone; -EPROTO: lengths beyond the limits; -ENOMEM; another -errno. */
#pragma once

#include "base/error.h"

enum { FRAME_HEAD_MAX = 1 << 20, FRAME_BODY_MAX = 256 << 20 };

struct frame {
    char *head;                 /* NUL behind it */
    uint8_t *body;
    size_t head_n, body_n;
    size_t head_room, body_room;
};

int frame_send(int fd, const char *head, size_t head_n, const void *body, size_t body_n, uint64_t deadline, struct error *error);
/* body_max: more than this nobody has a reason to send now. */
int frame_receive(int fd, struct frame *frame, size_t body_max, uint64_t deadline, struct error *error);
void frame_release(struct frame *frame);
