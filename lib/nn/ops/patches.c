/* patches.c - pictures cut into patches, each a row in the order of the patch convolution's weight (c, ky, kx). */
#include "nn/ops/op.h"

struct tensor *op_patches(struct tape *t, const uint8_t *const *images, int b, int height, int width, int patch, const float *lut)
{
    int64_t down = height / patch, across = width / patch, cols = 3 * (int64_t)patch * patch;
    struct tensor *y = tape_alloc(t, sizeof(*y));
    float *out;

    if (!y)
        return NULL;
    *y = (struct tensor) {.x = tape_activations(t, b * down * across * cols), .rows = b * down * across, .cols = cols};   /* g NULL: an input */
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (t->on) {
        size_t bytes = (size_t)height * (size_t)width * 3;
        uint8_t *all = tape_alloc(t, (size_t)b * bytes);
        const float *sent_lut = tape_send(t, lut, 3 * 256);
        const uint8_t *sent;

        for (int i = 0; all && i < b; i++)
            memcpy(all + (size_t)i * bytes, images[i], bytes);
        sent = all ? device_send(t->on, all, (size_t)b * bytes) : NULL;
        if (!sent || !sent_lut)
            return op_fail(t, -ENOMEM);
        ON(t, patches, type_of(t), y->x, sent, sent_lut, b, height, width, patch);
        return t->error ? NULL : y;
    }
    out = y->x;
    for (int i = 0; i < b; i++)
        for (int64_t py = 0; py < down; py++)
            for (int64_t px = 0; px < across; px++)
                for (int c = 0; c < 3; c++)
                    for (int64_t ky = 0; ky < patch; ky++) {
                        const uint8_t *pixel = images[i] + ((py * patch + ky) * width + px * patch) * 3 + c;

                        for (int64_t kx = 0; kx < patch; kx++)
                            *out++ = lut[c * 256 + pixel[3 * kx]];
                    }
    return y;
}
