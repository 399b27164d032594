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

/* cos and sin of position times frequency, for positions below n: [n][count][2], in tape memory. A pass has few positions and
 * many rows. */
static const float *angles(struct tape *tape, float theta, int64_t dim, int n, int count)
{
    float *all = tape_alloc(tape, (size_t)n * (size_t)count * 2 * sizeof(*all));

    for (int i = 0; all && i < count; i++) {
        float f = frequency(theta, i, dim);

        for (int p = 0; p < n; p++) {
            double angle = (double)((float)p * f);

            all[2 * (p * count + i)] = (float)cos(angle);
            all[2 * (p * count + i) + 1] = (float)sin(angle);
        }
    }
    return all;
}

static void put_angle(float *row, int64_t dim, int i, const float *angle)
{
    row[i] = angle[0];
    row[dim / 2 + i] = angle[1];
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
    const float *all;
    int last = 0, half = (int)dim / 2;

    for (int r = 0; r < n; r++)
        for (int k = 0; k < 3; k++)
            last = MAX(last, position[k][rows ? rows[r] : r]);
    all = angles(tape, c->rope_theta, dim, last + 1, half);
    for (int64_t r = 0; table && all && r < n; r++)
        for (int i = 0; i < half; i++)
            put_angle(table + r * dim, dim, i,
                      all + 2 * ((int64_t)position[axis_of(c->section, i)][rows ? rows[r] : r] * half + i));
    return table;
}

float *qwen_vision_table(const struct qwen_vision_config *c, struct tape *tape, const struct qwen_layout *l)
{
    int64_t dim = c->dim / c->heads;
    int quarter = (int)dim / 4, group = c->merge * c->merge, most = 1;
    float *table = tape_host_numbers(tape, l->patches * dim);
    const float *all;

    for (int p = 0; p < l->n_pictures; p++)
        most = MAX(most, MAX(l->pictures[p].height, l->pictures[p].width) / c->patch);
    all = angles(tape, c->rope_theta, dim / 2, most, quarter);
    for (int p = 0; table && all && p < l->n_pictures; p++) {
        int across = l->pictures[p].width / c->patch / c->merge;

        for (int row = l->picture_start[p]; row < l->picture_start[p + 1]; row++) {
            int source = c->window ? l->window_rows[row] : row, local = source - l->picture_start[p];
            int unit = local / group, within = local % group;
            int y = unit / across * c->merge + within / c->merge, x = unit % across * c->merge + within % c->merge;

            for (int i = 0; i < quarter; i++) {
                put_angle(table + row * dim, dim, i, all + 2 * (y * quarter + i));
                put_angle(table + row * dim, dim, quarter + i, all + 2 * (x * quarter + i));
            }
        }
    }
    return table;
}
