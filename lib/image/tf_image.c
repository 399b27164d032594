/* tf_image.c - lanczos3, crop-and-resize and the evaluation chain as TensorFlow computes them. */
#include <errno.h>
#include <math.h>

#include "image/tf_image.h"

enum { JPEG_QUALITY = 95 };

static const float pi = 3.14159265358979323846f;

/* ---- lanczos3 ---------------------------------------------------------------------------------------------------- */

/* Output i of an axis sums count[i] inputs from first[i] with weight[i*stride ..]. */
struct axis {
    int *first, *count;
    float *weight;
    int stride;
};

static void axis_release(struct axis *s)
{
    free(s->first);
    free(s->count);
    free(s->weight);
}

static float lanczos3(float x)
{
    x = fabsf(x);
    if (x > 3.0f)
        return 0.0f;
    if (x <= 1e-3f)
        return 1.0f;
    x *= pi;
    return 3.0f * sinf(x) * sinf(x / 3.0f) / (x * x);
}

static int axis_init(struct axis *s, int in, int out)
{
    float inverse = 1.0f / ((float)out / (float)in), stretch = MAX(inverse, 1.0f), shrink = 1.0f / stretch;
    float radius = 3.0f * stretch;

    s->stride = (int)ceilf(2.0f * radius) + 2;
    s->first = calloc((size_t)out, sizeof(*s->first));
    s->count = calloc((size_t)out, sizeof(*s->count));
    s->weight = calloc((size_t)out * (size_t)s->stride, sizeof(*s->weight));
    if (!s->first || !s->count || !s->weight)
        return -ENOMEM;
    for (int i = 0; i < out; i++) {
        float center = ((float)i + 0.5f) * inverse, sum = 0.0f, *w = s->weight + (size_t)i * (size_t)s->stride;
        int first = MAX(0, (int)ceilf(center - radius - 0.5f)), last = MIN(in - 1, (int)floorf(center + radius - 0.5f));

        s->first[i] = first;
        s->count[i] = last - first + 1;
        for (int j = 0; j < s->count[i]; j++) {
            w[j] = lanczos3(((float)(first + j) + 0.5f - center) * shrink);
            sum += w[j];
        }
        for (int j = 0; j < s->count[i]; j++)
            w[j] *= 1.0f / sum;
    }
    return 0;
}

/* (in rows of `width` floats) -> (out rows). */
static void down(const float *in, float *out, const struct axis *s, int n_out, size_t width)
{
    for (int i = 0; i < n_out; i++) {
        const float *w = s->weight + (size_t)i * (size_t)s->stride;
        float *to = out + (size_t)i * width;

        memset(to, 0, width * sizeof(*to));
        for (int j = 0; j < s->count[i]; j++) {
            const float *from = in + (size_t)(s->first[i] + j) * width;

            for (size_t x = 0; x < width; x++)
                to[x] += w[j] * from[x];
        }
    }
}

static void across(const float *in, float *out, const struct axis *s, int rows, int n_in, int n_out)
{
    for (int y = 0; y < rows; y++)
        for (int i = 0; i < n_out; i++) {
            const float *w = s->weight + (size_t)i * (size_t)s->stride;
            const float *from = in + ((size_t)y * (size_t)n_in + (size_t)s->first[i]) * 3;
            float *to = out + ((size_t)y * (size_t)n_out + (size_t)i) * 3;

            to[0] = to[1] = to[2] = 0.0f;
            for (int j = 0; j < s->count[i]; j++, from += 3)
                for (int c = 0; c < 3; c++)
                    to[c] += w[j] * from[c];
        }
}

int tf_resize_lanczos3_float(const uint8_t *rgb, int height, int width, int out_height, int out_width, float *ret)
{
    _cleanup_(axis_release) struct axis rows = {0}, columns = {0};
    _cleanup_free_ float *wide = NULL, *middle = NULL;
    size_t n;

    if (height < 1 || width < 1 || out_height < 1 || out_width < 1 ||
        MAX(MAX(height, width), MAX(out_height, out_width)) > IMAGE_MAX_SIDE)
        return -EINVAL;
    n = (size_t)height * (size_t)width * 3;
    wide = malloc(n * sizeof(*wide));      /* NOLINT(clang-analyzer-optin.portability.UnixAPI): n is not 0 */
    middle = malloc((size_t)out_height * (size_t)width * 3 * sizeof(*middle));
    if (!wide || !middle || axis_init(&rows, height, out_height) < 0 || axis_init(&columns, width, out_width) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        wide[i] = rgb[i];
    down(wide, middle, &rows, out_height, (size_t)width * 3);
    across(middle, ret, &columns, out_height, width, out_width);
    return 0;
}

int tf_resize_lanczos3(const uint8_t *rgb, int height, int width, int out_height, int out_width, uint8_t *ret_rgb)
{
    size_t n = (size_t)MAX(out_height, 0) * (size_t)MAX(out_width, 0) * 3;
    _cleanup_free_ float *wide = malloc(n * sizeof(*wide) + 1);
    int r;

    if (!wide)
        return -ENOMEM;
    r = tf_resize_lanczos3_float(rgb, height, width, out_height, out_width, wide);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        ret_rgb[i] = (uint8_t)CLAMP(rintf(wide[i]), 0.0f, 255.0f);
    return 0;
}

/* ---- crop and resize ---------------------------------------------------------------------------------------------- */

/* Where output i samples an axis of n points: lo, hi and the weight of hi. false: outside. */
static bool sample_at(float begin, float step, int i, int n, int *ret_lo, int *ret_hi, float *ret_t)
{
    float at = begin * (float)(n - 1) + (float)i * step;

    if (at < 0.0f || at > (float)(n - 1))
        return false;
    *ret_lo = (int)floorf(at);
    *ret_hi = (int)ceilf(at);
    *ret_t = at - (float)*ret_lo;
    return true;
}

static float step_of(float begin, float end, int n, int out)
{
    return out > 1 ? (end - begin) * (float)(n - 1) / (float)(out - 1) : 0.0f;
}

void tf_crop_and_resize(const float *in, int height, int width, struct tf_box box, int out_height, int out_width, float *ret)
{
    float down_step = step_of(box.y1, box.y2, height, out_height), across_step = step_of(box.x1, box.x2, width, out_width);

    for (int i = 0; i < out_height; i++)
        for (int j = 0; j < out_width; j++, ret += 3) {
            int top, bottom, left, right;
            float ty, tx;

            if (!sample_at(box.y1, down_step, i, height, &top, &bottom, &ty) ||
                !sample_at(box.x1, across_step, j, width, &left, &right, &tx)) {
                ret[0] = ret[1] = ret[2] = 0.0f;
                continue;
            }
            for (int c = 0; c < 3; c++) {
                const float *upper = in + (size_t)top * (size_t)width * 3 + (size_t)c;
                const float *lower = in + (size_t)bottom * (size_t)width * 3 + (size_t)c;
                float u = upper[left * 3] + (upper[right * 3] - upper[left * 3]) * tx;
                float l = lower[left * 3] + (lower[right * 3] - lower[left * 3]) * tx;

                ret[c] = u + (l - u) * ty;
            }
        }
}

int tf_center_crop(const uint8_t *rgb, int height, int width, float area, uint8_t *ret_rgb)
{
    size_t n = (size_t)MAX(height, 0) * (size_t)MAX(width, 0) * 3;
    _cleanup_free_ float *numbers = malloc(2 * n * sizeof(*numbers) + 1);
    float side = sqrtf(area), offset = (1.0f - side) / 2.0f, *out = numbers + n;

    if (!numbers)
        return -ENOMEM;
    if (n == 0 || !(area > 0.0f && area <= 1.0f))
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        numbers[i] = (float)rgb[i] * (1.0f / 255.0f);
    tf_crop_and_resize(numbers, height, width, (struct tf_box){offset, offset, offset + side, offset + side}, height, width, out);
    for (size_t i = 0; i < n; i++)
        ret_rgb[i] = (uint8_t)(CLAMP(out[i], 0.0f, 1.0f) * 255.5f);     /* as convert_image_dtype saturates */
    return 0;
}

/* ---- the chain ------------------------------------------------------------------------------------------------------ */

int tf_evaluation_picture(const uint8_t *rendered, int height, int width, int out_height, int out_width, uint8_t *ret_rgb)
{
    size_t pixels = (size_t)MAX(height, 0) * (size_t)MAX(width, 0), n;
    _cleanup_free_ uint8_t *turned = malloc(pixels * 3 + 1), *bytes = NULL;
    struct image decoded;
    int r;

    if (!turned)
        return -ENOMEM;
    for (size_t i = 0; i < pixels; i++)
        memcpy(turned + i * 3, rendered + (pixels - 1 - i) * 3, 3);
    r = image_encode_jpeg(turned, height, width, JPEG_QUALITY, &bytes, &n);
    if (r < 0)
        return r;
    r = image_decode_jpeg(bytes, n, true, "evaluation picture", &decoded, NULL);
    if (r < 0)
        return r;
    r = tf_resize_lanczos3(decoded.rgb, height, width, out_height, out_width, ret_rgb);
    free(decoded.rgb);
    return r;
}
