/* smart_resize.c - sizes and patch order of Qwen's picture processor. */
#include <errno.h>
#include <math.h>

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

int image_qwen_patches(const uint8_t *rgb, int height, int width, int patch, int merge, const float lut[3][256], float *ret)
{
    _cleanup_free_ int32_t *order = NULL;
    int across, n;

    if (patch < 1 || height < patch || width < patch || height % patch || width % patch)
        return -EINVAL;
    across = width / patch;
    n = height / patch * across;
    order = malloc((size_t)n * sizeof(*order));
    if (!order)
        return -ENOMEM;
    if (image_merge_order(height / patch, across, merge, order) < 0)
        return -EINVAL;
    for (int i = 0; i < n; i++) {
        const uint8_t *corner =
            rgb + ((size_t)(order[i] / across) * (size_t)width + (size_t)(order[i] % across)) * (size_t)patch * 3;

        for (int c = 0; c < 3; c++)
            for (int y = 0; y < patch; y++)
                for (int x = 0; x < patch; x++)
                    *ret++ = lut[c][corner[((size_t)y * (size_t)width + (size_t)x) * 3 + (size_t)c]];
    }
    return 0;
}
