/* prepare.c - resize strategies. */
#include <errno.h>
#include <math.h>

#include "image/prepare.h"

/* Borders left and right, or above and below, of equal width: one short of square when the difference is odd. */
static int letterbox(const uint8_t *rgb, int height, int width, const uint8_t fill[3], struct image *ret)
{
    int longer = MAX(height, width), left = (longer - width) / 2, above = (longer - height) / 2;
    struct image out = {.height = height + 2 * above, .width = width + 2 * left};
    size_t n = (size_t)out.height * (size_t)out.width;

    out.rgb = malloc(n * 3);
    if (!out.rgb)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        memcpy(out.rgb + i * 3, fill, 3);
    for (int y = 0; y < height; y++)
        memcpy(out.rgb + ((size_t)(y + above) * (size_t)out.width + (size_t)left) * 3, rgb + (size_t)y * (size_t)width * 3,
               (size_t)width * 3);
    *ret = out;
    return 0;
}

static int center_crop(const uint8_t *rgb, int height, int width, int out_height, int out_width, uint8_t *ret_rgb)
{
    int top = (int)rint((height - out_height) / 2.0), left = (int)rint((width - out_width) / 2.0);  /* halves to even */

    if (out_height > height || out_width > width)
        return -EINVAL;
    for (int y = 0; y < out_height; y++)
        memcpy(ret_rgb + (size_t)y * (size_t)out_width * 3, rgb + ((size_t)(top + y) * (size_t)width + (size_t)left) * 3,
               (size_t)out_width * 3);
    return 0;
}

static int resize_crop(const uint8_t *rgb, int height, int width, const struct image_prepare *how, uint8_t *ret_rgb)
{
    int64_t shorter = MIN(height, width), side = how->short_side;
    int new_height = height < width ? how->short_side : (int)MIN(side * height / shorter, IMAGE_MAX_SIDE + 1);
    int new_width = height < width ? (int)MIN(side * width / shorter, IMAGE_MAX_SIDE + 1) : how->short_side;
    _cleanup_free_ uint8_t *resized = NULL;
    int r;

    if (MAX(new_height, new_width) > IMAGE_MAX_SIDE)
        return -EINVAL;
    resized = malloc((size_t)new_height * (size_t)new_width * 3);
    if (!resized)
        return -ENOMEM;
    r = image_resize_bicubic(rgb, height, width, new_height, new_width, resized);
    return r < 0 ? r : center_crop(resized, new_height, new_width, how->height, how->width, ret_rgb);
}

int image_prepare(const uint8_t *rgb, int height, int width, const struct image_prepare *how, uint8_t *ret_rgb)
{
    struct image square = {0};
    int r;

    if (MIN(height, width) < 1 || MAX(height, width) > IMAGE_MAX_SIDE || MIN(how->height, how->width) < 1)
        return -EINVAL;
    if (how->letterbox) {
        r = letterbox(rgb, height, width, how->fill, &square);
        if (r < 0)
            return r;
        rgb = square.rgb;
        height = square.height;
        width = square.width;
    }
    if (how->short_side)
        r = resize_crop(rgb, height, width, how, ret_rgb);
    else
        r = image_resize_bicubic(rgb, height, width, how->height, how->width, ret_rgb);
    free(square.rgb);
    return r;
}
