/* smart_resize.h - pictures as Qwen2-VL and Qwen2.5-VL take them: a size that is a multiple of `factor`, then patches in merge
 * order.
 *
 *     image_smart_resize(h, w, patch * merge, min, max, &H, &W, &error)
 *     image_resize_bicubic(rgb, h, w, H, W, resized)
 *     image_qwen_lut(mean, std, lut);  image_qwen_patches(resized, H, W, patch, merge, lut, rows)
 *
 * Pure functions, any thread. Sizes are pixels. */
#pragma once

#include "image/image.h"

/* Each side to the nearest multiple of `factor` (halves to even), then both scaled so that the area lies in
 * min_pixels..max_pixels. -EINVAL: a side below `factor`, an aspect ratio above 200, or limits under which a side would vanish
 * (the original returns 0 there); *error says which. */
int image_smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels, int *ret_height, int *ret_width,
                       struct error *error);

/* Row i of the merge order is patch ret[i] of the row-major grid: groups of merge x merge row by row, row-major within each.
 * -EINVAL: the grid is no multiple of merge. */
int image_merge_order(int grid_height, int grid_width, int merge, int32_t *ret);

/* lut[c][u8] = (u8 * (1/255) - mean[c]) / std[c], rounded where the processor rounds: the product in double to float32, the rest
 * in float32. */
void image_qwen_lut(const double mean[3], const double std[3], float ret_lut[3][256]);

/* The picture cut up: its patches one below the other, in that order, u8 [(H/patch)*(W/patch)*patch][patch][3]. For who looks
 * values up elsewhere. */
int image_qwen_cut(const uint8_t *rgb, int height, int width, int patch, int merge, uint8_t *ret);
/* ((H/patch)*(W/patch), 3*patch*patch), columns c,y,x. A still picture stands twice in time: the processor's row is each
 * channel's part two times over; the two halves of the convolution's kernel may be added instead. */
int image_qwen_patches(const uint8_t *rgb, int height, int width, int patch, int merge, const float lut[3][256], float *ret);
