/* patches.c - pictures cut into patches, each a row in the order of the patch convolution's weight (c, ky, kx).
 *
 * A camera that stands still shows the same background again and again: of the patches of 16 steps of the tabletop suite six in
 * ten have been seen before, at the same place, to the last pixel. pictures_look finds them, so that the widest product of the
 * vision towers is computed once for each: a row's numbers do not depend on the rows beside it. */
#include "nn/ops/op.h"

enum { LOOK_BACK = 64 };        /* different patches of one place that a new one is held against */

/* Is patch `at` of picture `a` the same as that of picture `b`? */
static bool same_patch(const struct pictures *p, int a, int b, int64_t at)
{
    int64_t across = p->width / p->patch, row = 3 * (int64_t)p->width, bytes = 3 * (int64_t)p->patch;
    int64_t from = at / across * p->patch * row + at % across * bytes;

    for (int y = 0; y < p->patch; y++, from += row)
        if (memcmp(p->images[a] + from, p->images[b] + from, (size_t)bytes) != 0)
            return false;
    return true;
}

/* An earlier picture with the same patch there, the newest of those that brought something new; or -1. */
static int seen_before(const struct pictures *p, int picture, int64_t at, int64_t places)
{
    int looked = 0;

    for (int i = picture - 1; i >= 0 && looked < LOOK_BACK; i--) {
        bool was_new = p->pick[p->index[i * places + at]] == i * places + at;

        if (was_new && same_patch(p, picture, i, at))
            return i;
        looked += was_new;
    }
    return -1;
}

int pictures_look(struct tape *t, struct pictures *p)
{
    int64_t places = (int64_t)(p->height / p->patch) * (p->width / p->patch), all = places * p->b;

    p->picked = 0;
    p->pick = p->index = NULL;
    if (t->on || p->b < 2)
        return 0;
    p->pick = tape_alloc(t, (size_t)all * sizeof(*p->pick));
    p->index = tape_alloc(t, (size_t)all * sizeof(*p->index));
    if (!p->pick || !p->index)
        return t->error;
    for (int i = 0; i < p->b; i++)
        for (int64_t at = 0; at < places; at++) {
            int before = t->planning ? -1 : seen_before(p, i, at, places);

            p->index[i * places + at] = before >= 0 ? p->index[before * places + at] : p->picked;
            if (before < 0)
                p->pick[p->picked++] = (int32_t)(i * places + at);
        }
    if (!t->planning && p->picked * 8 > all * 7)        /* handing rows round would cost more than they do */
        p->pick = p->index = NULL;
    return 0;
}

static float *unfold(float *out, const struct pictures *p, int picture, int64_t at, const float *lut)
{
    int64_t across = p->width / p->patch, top = at / across * p->patch, left = at % across * p->patch;

    for (int c = 0; c < 3; c++)
        for (int64_t ky = 0; ky < p->patch; ky++) {
            const uint8_t *pixel = p->images[picture] + ((top + ky) * p->width + left) * 3 + c;

            for (int64_t kx = 0; kx < p->patch; kx++)
                *out++ = lut[c * 256 + pixel[3 * kx]];
        }
    return out;
}

static struct tensor *unfold_on(struct tape *t, struct tensor *y, const struct pictures *p, const float *lut)
{
    size_t bytes = (size_t)p->height * (size_t)p->width * 3;
    uint8_t *all = tape_alloc(t, (size_t)p->b * bytes);
    const float *sent_lut = tape_send(t, lut, 3 * 256);
    const uint8_t *sent;

    for (int i = 0; all && i < p->b; i++)
        memcpy(all + (size_t)i * bytes, p->images[i], bytes);
    sent = all ? device_send(t->on, all, (size_t)p->b * bytes) : NULL;
    if (!sent || !sent_lut)
        return op_fail(t, -ENOMEM);
    ON(t, patches, type_of(t), y->x, sent, sent_lut, p->b, p->height, p->width, p->patch);
    return t->error ? NULL : y;
}

struct tensor *op_patches(struct tape *t, const struct pictures *p, const float *lut)
{
    int64_t places = (int64_t)(p->height / p->patch) * (p->width / p->patch), rows = p->pick ? p->picked : places * p->b;
    int64_t cols = 3 * (int64_t)p->patch * p->patch;
    struct tensor *y = tape_alloc(t, sizeof(*y));
    float *out;

    if (!y)
        return NULL;
    *y = (struct tensor) {.x = tape_activations(t, rows * cols), .rows = rows, .cols = cols};      /* g NULL: an input */
    if (t->error || t->planning)
        return t->error ? NULL : y;
    if (t->on)
        return unfold_on(t, y, p, lut);
    out = y->x;
    for (int64_t i = 0; i < rows; i++) {
        int64_t number = p->pick ? p->pick[i] : i;

        out = unfold(out, p, (int)(number / places), number % places, lut);
    }
    return y;
}

struct tensor *op_every_patch(struct tape *t, struct tensor *x, const struct pictures *p)
{
    int64_t places = (int64_t)(p->height / p->patch) * (p->width / p->patch);

    return p->pick ? op_gather(t, x, p->index, places * p->b) : x;
}
