/* resize.c - bicubic resize with Pillow's numbers: weights in double, quantised to 22-bit fixed point, a horizontal and a
 * vertical pass, each rounded and clipped to u8. A pass whose size does not change is skipped. */
#include <errno.h>
#include <math.h>

#include "image/image.h"

enum { FRACTION_BITS = 32 - 8 - 2 };

void image_taps_release(struct image_taps *taps)
{
    free(taps->first);
    free(taps->count);
    free(taps->weight);
}

/* Keys' cubic convolution kernel, a = -1/2. */
static double cubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

int image_taps_init(struct image_taps *taps, int in, int out)
{
    double scale = (double)in / out;
    double stretch = MAX(scale, 1.0);           /* shrinking widens the kernel: antialiasing */
    double support = 2.0 * stretch;
    _cleanup_free_ double *w = NULL;

    taps->stride = (int)ceil(support) * 2 + 1;
    taps->first = calloc((size_t)out, sizeof(*taps->first));
    taps->count = calloc((size_t)out, sizeof(*taps->count));
    taps->weight = calloc((size_t)out * (size_t)taps->stride, sizeof(*taps->weight));
    w = calloc((size_t)taps->stride, sizeof(*w));
    if (!taps->first || !taps->count || !taps->weight || !w)
        return -ENOMEM;
    for (int i = 0; i < out; i++) {
        double center = (i + 0.5) * scale, sum = 0, step = 1.0 / stretch;
        int first = MAX((int)(center - support + 0.5), 0);
        int count = MIN((int)(center + support + 0.5), in) - first;
        int32_t *q = taps->weight + (size_t)i * (size_t)taps->stride;

        for (int j = 0; j < count; j++) {
            w[j] = cubic((j + first - center + 0.5) * step);
            sum += w[j];
        }
        for (int j = 0; j < count; j++) {
            double v = (sum != 0.0 ? w[j] / sum : w[j]) * (1 << FRACTION_BITS);

            q[j] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
        taps->first[i] = first;
        taps->count[i] = count;
    }
    return 0;
}

static uint8_t clip(int32_t sum)
{
    sum >>= FRACTION_BITS;
    return (uint8_t)CLAMP(sum, 0, 255);
}

/* One pass over `lines` lines; along it neighbours are `step` bytes apart, lines `in_line` and `out_line` bytes. */
static void pass(const uint8_t *in, uint8_t *out, const struct image_taps *taps, int n_out, int lines, size_t step,
                 size_t in_line, size_t out_line)
{
    for (int line = 0; line < lines; line++)
        for (int i = 0; i < n_out; i++) {
            const int32_t *w = taps->weight + (size_t)i * (size_t)taps->stride;
            const uint8_t *p = in + (size_t)line * in_line + (size_t)taps->first[i] * step;
            int32_t sum[3] = {1 << (FRACTION_BITS - 1), 1 << (FRACTION_BITS - 1), 1 << (FRACTION_BITS - 1)};
            uint8_t *q = out + (size_t)line * out_line + (size_t)i * step;

            for (int j = 0; j < taps->count[i]; j++, p += step)
                for (int c = 0; c < 3; c++)
                    sum[c] += p[c] * w[j];
            for (int c = 0; c < 3; c++)
                q[c] = clip(sum[c]);
        }
}

int image_resize_bicubic(const uint8_t *rgb, int height, int width, int out_height, int out_width, uint8_t *ret_rgb)
{
    _cleanup_(image_taps_release) struct image_taps across = {0}, down = {0};
    _cleanup_free_ uint8_t *middle = NULL;
    size_t in_row = (size_t)width * 3, out_row = (size_t)out_width * 3;
    int r;

    if (height < 1 || width < 1 || out_height < 1 || out_width < 1 ||
        MAX(MAX(height, width), MAX(out_height, out_width)) > IMAGE_MAX_SIDE)
        return -EINVAL;
    if (width != out_width) {
        middle = malloc((size_t)height * out_row);
        if (!middle)
            return -ENOMEM;
        r = image_taps_init(&across, width, out_width);
        if (r < 0)
            return r;
        pass(rgb, middle, &across, out_width, height, 3, in_row, out_row);
        rgb = middle;
    }
    if (height == out_height) {
        memcpy(ret_rgb, rgb, (size_t)height * out_row);
        return 0;
    }
    r = image_taps_init(&down, height, out_height);
    if (r < 0)
        return r;
    pass(rgb, ret_rgb, &down, out_height, out_width, out_row, 3, 3);
    return 0;
}
