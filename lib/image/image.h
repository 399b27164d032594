/* image.h - pictures as u8 [height][width][3] RGB: PIL-exact bicubic resize, PNG in and out. */
#pragma once

#include "base/error.h"

enum { IMAGE_MAX_SIDE = 16384 };        /* pixels; a header may promise more than memory holds */

struct image { int height, width; uint8_t *rgb; };     /* caller frees rgb */

/* Pillow's Image.resize(BICUBIC), exact: 22-bit fixed point, horizontal pass, then vertical, each rounded and clipped. */
int image_resize_bicubic(const uint8_t *rgb, int height, int width, int out_height, int out_width, uint8_t *ret_rgb);
int image_write_png(const char *path, const uint8_t *rgb, int height, int width);
/* To memory; caller frees. */
int image_encode_png(const uint8_t *rgb, int height, int width, uint8_t **ret_bytes, size_t *ret_n);
int image_read_png(const char *path, struct image *ret, struct error *error);
