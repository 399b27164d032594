/* qwen_vl_positions.c - where a token stands: M-RoPE's three positions of the text, row and column of a patch, and their angles.
 *
 * Text advances all three positions together. A picture of merged size H x W that begins at position p has t = p, h = p + row,
 * w = p + column; what follows it begins at p + max(H, W). */
#include <math.h>

#include "nn/models/qwen_vl_internal.h"

int qwen_positions(const struct qwen_vl_config *c, const struct qwen_item *item, int32_t *t, int32_t *h, int32_t *w)
{
    int side = c->vision.patch * c->vision.merge, next = 0, picture = 0;

    for (int i = 0; i < item->n_ids;) {
        int height, width;

        if (item->ids[i] != c->image_id || picture == item->n_pictures) {
            t[i] = h[i] = w[i] = next++;
            i++;
            continue;
        }
        height = item->pictures[picture].height / side;
        width = item->pictures[picture++].width / side;
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width && i < item->n_ids; x++, i++) {
                t[i] = next;
                h[i] = next + y;
                w[i] = next + x;
            }
        next += MAX(height, width);
    }
    return next;
}

/* theta^(-2i/dim) rounded to float, as the reference has it. */
static float frequency(float theta, int i, int64_t dim)
{
    return (float)(1.0 / (double)powf(theta, (float)(2 * i) / (float)dim));
}

static void put_angle(float *row, int64_t dim, int i, float angle)
{
    row[i] = (float)cos((double)angle);
    row[dim / 2 + i] = (float)sin((double)angle);
}

/* Which position frequency i follows: the first section's time, then height, then width. */
static int axis_of(const int section[3], int i)
{
    return i < section[0] ? 0 : i < section[0] + section[1] ? 1 : 2;
}

float *qwen_text_table(const struct qwen_vl_config *c, struct tape *tape, int32_t *const position[3], const int32_t *rows, int n)
{
    int64_t dim = c->head_dim;
    float *table = tape_host_numbers(tape, n * dim);

    for (int64_t r = 0; table && r < n; r++)
        for (int i = 0; i < dim / 2; i++)
            put_angle(table + r * dim, dim, i,
                      (float)position[axis_of(c->section, i)][rows ? rows[r] : r] * frequency(c->rope_theta, i, dim));
    return table;
}

float *qwen_vision_table(const struct qwen_vision_config *c, struct tape *tape, const struct qwen_layout *l)
{
    int64_t dim = c->dim / c->heads;
    int quarter = (int)dim / 4, group = c->merge * c->merge;
    float *table = tape_host_numbers(tape, l->patches * dim);

    for (int p = 0; table && p < l->n_pictures; p++) {
        int across = l->pictures[p].width / c->patch / c->merge;

        for (int row = l->picture_start[p]; row < l->picture_start[p + 1]; row++) {
            int source = c->window ? l->window_rows[row] : row, local = source - l->picture_start[p];
            int unit = local / group, within = local % group;
            int y = unit / across * c->merge + within / c->merge, x = unit % across * c->merge + within % c->merge;

            for (int i = 0; i < quarter; i++) {
                float f = frequency(c->rope_theta, i, dim / 2);

                put_angle(table + row * dim, dim, i, (float)y * f);
                put_angle(table + row * dim, dim, quarter + i, (float)x * f);
            }
        }
    }
    return table;
}
