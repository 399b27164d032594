/* smart_resize.c - sizes and patch order of Qwen's picture processor. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "image/smart_resize.h"

enum { MAX_ASPECT = 200 };

int image_smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels, int *ret_height, int *ret_width,
                       struct error *error)
{
    double area = (double)height * width, h, w, beta;

    if (height < 1 || width < 1 || factor < 1 || min_pixels < 1 || max_pixels < min_pixels)
        return error_set(error, EINVAL, "picture of %dx%d pixels: factor %d, %lld..%lld pixels make no size", width, height,
                         factor, (long long)min_pixels, (long long)max_pixels);
    if (MIN(height, width) < factor)
        return error_set(error, EINVAL, "picture of %dx%d pixels: both sides must be at least %d", width, height, factor);
    if ((double)MAX(height, width) / MIN(height, width) > MAX_ASPECT)
        return error_set(error, EINVAL, "picture of %dx%d pixels: one side is more than %d times the other", width, height,
                         MAX_ASPECT);
    h = rint((double)height / factor) * factor; /* the default rounding mode: halves to even */
    w = rint((double)width / factor) * factor;
    if (h * w > (double)max_pixels) {
        beta = sqrt(area / (double)max_pixels);
        h = floor(height / beta / factor) * factor;
        w = floor(width / beta / factor) * factor;
    } else if (h * w < (double)min_pixels) {
        beta = sqrt((double)min_pixels / area);
        h = ceil(height * beta / factor) * factor;
        w = ceil(width * beta / factor) * factor;
    }
    if (h < factor || w < factor || MAX(h, w) > IMAGE_MAX_SIDE)
        return error_set(error, EINVAL, "picture of %dx%d pixels: within %lld..%lld pixels it would become %.0fx%.0f", width,
                         height, (long long)min_pixels, (long long)max_pixels, w, h);
    *ret_height = (int)h;
    *ret_width = (int)w;
    return 0;
}

int image_merge_order(int grid_height, int grid_width, int merge, int32_t *ret)
{
    if (merge < 1 || grid_height < 1 || grid_width < 1 || grid_height % merge || grid_width % merge)
        return -EINVAL;
    for (int y = 0; y < grid_height; y += merge)
        for (int x = 0; x < grid_width; x += merge)
            for (int i = 0; i < merge; i++)
                for (int j = 0; j < merge; j++)
                    *ret++ = (y + i) * grid_width + x + j;
    return 0;
}

void image_qwen_lut(const double mean[3], const double std[3], float ret_lut[3][256])
{
    for (int c = 0; c < 3; c++)
        for (int u = 0; u < 256; u++)
            ret_lut[c][u] = ((float)(u * (1.0 / 255.0)) - (float)mean[c]) / (float)std[c];
}

/* The order of a picture's patches; caller frees. NULL: *ret_error. */
static int32_t *order_of(int height, int width, int patch, int merge, int *ret_n, int *ret_error)
{
    _cleanup_free_ int32_t *order = NULL;

    *ret_error = -EINVAL;
    if (patch < 1 || height < patch || width < patch || height % patch || width % patch)
        return NULL;
    *ret_n = height / patch * (width / patch);
    order = malloc((size_t)*ret_n * sizeof(*order));
    if (!order)
        *ret_error = -ENOMEM;
    return order && image_merge_order(height / patch, width / patch, merge, order) >= 0 ? TAKE_PTR(order) : NULL;
}

static const uint8_t *corner_of(const uint8_t *rgb, int width, int patch, int32_t at)
{
    int across = width / patch;

    return rgb + ((size_t)(at / across) * (size_t)width + (size_t)(at % across)) * (size_t)patch * 3;
}

int image_qwen_cut(const uint8_t *rgb, int height, int width, int patch, int merge, uint8_t *ret)
{
    size_t bytes = (size_t)patch * 3;
    int n, r;
    _cleanup_free_ int32_t *order = order_of(height, width, patch, merge, &n, &r);

    for (int i = 0; order && i < n; i++) {
        const uint8_t *corner = corner_of(rgb, width, patch, order[i]);

        for (int y = 0; y < patch; y++, ret += bytes)
            memcpy(ret, corner + (size_t)y * (size_t)width * 3, bytes);
    }
    return order ? 0 : r;
}

int image_qwen_patches(const uint8_t *rgb, int height, int width, int patch, int merge, const float lut[3][256], float *ret)
{
    int n, r;
    _cleanup_free_ int32_t *order = order_of(height, width, patch, merge, &n, &r);

    for (int i = 0; order && i < n; i++) {
        const uint8_t *corner = corner_of(rgb, width, patch, order[i]);

        for (int c = 0; c < 3; c++)
            for (int y = 0; y < patch; y++)
                for (int x = 0; x < patch; x++)
                    *ret++ = lut[c][corner[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)c]];
    }
    return order ? 0 : r;
}
