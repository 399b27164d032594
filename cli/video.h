/* video.h - an MP4 (H.264, as players want it) by the ffmpeg program: raw pictures go down a pipe. */
#pragma once

#include <stdint.h>

#include "base/error.h"

struct video;

/* Pictures of (height, width, 3) bytes. -ENOENT: ffmpeg is not installed. */
int video_open(const char *path, int height, int width, double fps, struct video **ret, struct error *error);
int video_add(struct video *video, const uint8_t *rgb); /* -EPIPE: ffmpeg has gone */
/* Waits for ffmpeg. -EIO: it failed; what it said is on stderr. NULL ok. */
int video_close(struct video *video, struct error *error);
