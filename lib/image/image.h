/* image.h - pictures as u8 [height][width][3] RGB: PIL-exact bicubic resize, PNG and JPEG in and out.
 *
 * Nothing here trusts a file: sides of 1 to IMAGE_MAX_SIDE and at most IMAGE_MAX_PIXELS pixels are read. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum { IMAGE_MAX_SIDE = 16384, IMAGE_MAX_PIXELS = 1 << 26 };    /* a header may promise more than memory holds */

struct image { int height, width; uint8_t *rgb; };     /* caller frees rgb */

/* Pillow's Image.resize(BICUBIC), exact: 22-bit fixed point, horizontal pass, then vertical, each rounded and clipped. */
int image_resize_bicubic(const uint8_t *rgb, int height, int width, int out_height, int out_width, uint8_t *ret_rgb);

/* One axis of that: output i sums `count[i]` inputs from `first[i]` on, weight[i * stride ...], 22 bits behind the point. For
 * whoever carries it out elsewhere (nn/device/kernels.h). Release in every case. -ENOMEM. */
struct image_taps { int32_t *first, *count, *weight; int stride; };
int image_taps_init(struct image_taps *taps, int in, int out);
void image_taps_release(struct image_taps *taps);

/* 0 when a file may be as large as its header says, else -EINVAL with the line. For the decoders. */
int image_check_size(int64_t height, int64_t width, const char *name, struct error *error);
/* A picture from outside, PNG or JPEG by its first bytes; grey and palette become RGB, transparency is laid over black. `name`
 * stands in messages. -EINVAL: neither, damaged, cut short, of zero size or too large a side. */
int image_decode(const void *bytes, size_t n, const char *name, struct image *ret, struct error *error);
int image_read(const char *path, struct image *ret, struct error *error);

/* For people: a link at `path` is followed (atomic_file_write_through). */
int image_write_png(const char *path, const uint8_t *rgb, int height, int width);
/* To memory; caller frees. */
int image_encode_png(const uint8_t *rgb, int height, int width, uint8_t **ret_bytes, size_t *ret_n);
int image_decode_png(const void *bytes, size_t n, const char *name, struct image *ret, struct error *error);

/* Baseline JPEG, chroma at half resolution, standard tables; the accurate integer transform. Caller frees. */
int image_encode_jpeg(const uint8_t *rgb, int height, int width, int quality, uint8_t **ret_bytes, size_t *ret_n);
/* `fast`: the fast integer transform, as TensorFlow decodes; otherwise the accurate one, as Pillow does. */
int image_decode_jpeg(const void *bytes, size_t n, bool fast, const char *name, struct image *ret, struct error *error);
