/* augment.c - random crop and colour changes. */
#include <errno.h>
#include <math.h>

#include "image/augment.h"
#include "image/tf_image.h"

const struct augment augment_openvla = {
    .area = 0.9f, .brightness = 0.2f, .contrast = {0.8f, 1.2f}, .saturation = {0.8f, 1.2f}, .hue = 0.05f};

static void clip(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = CLAMP(x[i], 0.0f, 1.0f);
}

void augment_contrast(float *rgb, size_t n, float factor)
{
    double sum[3] = {0};

    for (size_t i = 0; i < 3 * n; i++)
        sum[i % 3] += (double)rgb[i];
    for (size_t i = 0; i < 3 * n; i++) {
        float mean = (float)(sum[i % 3] / (double)n);

        rgb[i] = (rgb[i] - mean) * factor + mean;
    }
}

struct hsv { float h, s, v; };          /* each in [0,1] */

static struct hsv to_hsv(const float rgb[3])
{
    float r = rgb[0], g = rgb[1], b = rgb[2], v = MAX(MAX(r, g), b), range = v - MIN(MIN(r, g), b), h = 0.0f;

    if (range > 0.0f) {
        if (v == r)
            h = (g - b) / range;
        else if (v == g)
            h = (b - r) / range + 2.0f;
        else
            h = (r - g) / range + 4.0f;
        h /= 6.0f;
        if (h < 0.0f)
            h += 1.0f;
    }
    return (struct hsv){h, v > 0.0f ? range / v : 0.0f, v};
}

static void from_hsv(struct hsv x, float ret_rgb[3])
{
    float chroma = x.s * x.v, low = x.v - chroma, h = x.h * 6.0f;
    const float part[3] = {fabsf(h - 3.0f) - 1.0f, 2.0f - fabsf(h - 2.0f), 2.0f - fabsf(h - 4.0f)};

    for (int c = 0; c < 3; c++)
        ret_rgb[c] = CLAMP(part[c], 0.0f, 1.0f) * chroma + low;
}

void augment_saturation(float *rgb, size_t n, float factor)
{
    for (size_t i = 0; i < n; i++, rgb += 3) {
        struct hsv x = to_hsv(rgb);

        x.s = CLAMP(x.s * factor, 0.0f, 1.0f);
        from_hsv(x, rgb);
    }
}

void augment_hue(float *rgb, size_t n, float turn)
{
    for (size_t i = 0; i < n; i++, rgb += 3) {
        struct hsv x = to_hsv(rgb);

        x.h += turn;
        x.h -= floorf(x.h);
        from_hsv(x, rgb);
    }
}

static float between(struct philox *random, float low, float high)
{
    return low + philox_uniform(random) * (high - low);
}

int augment_picture(const struct augment *how, struct philox *random, const uint8_t *rgb, int height, int width,
                    uint8_t *ret_rgb)
{
    size_t pixels = (size_t)MAX(height, 0) * (size_t)MAX(width, 0), n = pixels * 3;
    _cleanup_free_ float *in = malloc(2 * n * sizeof(*in) + 1);
    float side = sqrtf(how->area), y, x, delta, *out = in + n;

    if (!in)
        return -ENOMEM;
    if (n == 0 || !(side > 0.0f && side <= 1.0f))
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        in[i] = (float)rgb[i] / 255.0f;
    y = between(random, 0.0f, 1.0f - side);
    x = between(random, 0.0f, 1.0f - side);
    tf_crop_and_resize(in, height, width, (struct tf_box){y, x, y + side, x + side}, height, width, out);
    delta = between(random, -how->brightness, how->brightness);
    for (size_t i = 0; i < n; i++)
        out[i] = CLAMP(out[i] + delta, 0.0f, 1.0f);
    augment_contrast(out, pixels, between(random, how->contrast[0], how->contrast[1]));
    clip(out, n);
    augment_saturation(out, pixels, between(random, how->saturation[0], how->saturation[1]));
    clip(out, n);
    augment_hue(out, pixels, between(random, -how->hue, how->hue));
    clip(out, n);
    for (size_t i = 0; i < n; i++)
        ret_rgb[i] = (uint8_t)(out[i] * 255.0f);        /* cut off, as the original casts */
    return 0;
}
