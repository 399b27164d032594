/* qwen_vl_layout.c - from items to one packed pass: sequences one behind the other, every picture once. */
#include <errno.h>

#include "nn/models/qwen_vl_internal.h"

static int side_of(const struct qwen_vl_config *c)
{
    return c->vision.patch * c->vision.merge;
}

static int tokens_of(const struct qwen_vl_config *c, const struct qwen_picture *picture)
{
    return picture->height / side_of(c) * (picture->width / side_of(c));
}

static int check_item(const struct qwen_vl_config *c, const struct qwen_item *item)
{
    int wanted = 0, found = 0;

    if (item->n_ids < 1 || item->n_ids > c->max_positions || item->n_pictures < 0 || item->n_pictures > QWEN_MAX_PICTURES)
        return -EINVAL;
    for (int i = 0; i < item->n_pictures; i++) {
        const struct qwen_picture *p = &item->pictures[i];

        if (!p->rgb || p->height < 1 || p->width < 1 || p->height % side_of(c) || p->width % side_of(c))
            return -EINVAL;
        wanted += tokens_of(c, p);
    }
    for (int i = 0; i < item->n_ids; i++) {
        if (item->ids[i] < 0 || item->ids[i] >= c->vocab)
            return -EINVAL;
        found += item->ids[i] == c->image_id;
    }
    return found == wanted ? 0 : -EINVAL;
}

/* Number of the picture in the pass. */
static int put_picture(struct qwen_layout *l, const struct qwen_picture *picture)
{
    for (int i = 0; i < l->n_pictures; i++)
        if (l->pictures[i].rgb == picture->rgb && l->pictures[i].height == picture->height &&
            l->pictures[i].width == picture->width)
            return i;
    l->pictures[l->n_pictures] = *picture;
    return l->n_pictures++;
}

static int allocate(const struct qwen_vl_config *c, struct tape *tape, const struct qwen_item *items, int n,
                    struct qwen_layout *l)
{
    int rows = 0, pictures = 0, merged = 0, windows = 0, group = c->vision.merge * c->vision.merge;
    int32_t *ints;

    for (int i = 0; i < n; i++) {
        rows += items[i].n_ids;
        pictures += items[i].n_pictures;
        for (int k = 0; k < items[i].n_pictures; k++) {
            const struct qwen_picture *p = &items[i].pictures[k];

            merged += tokens_of(c, p);
            windows += c->vision.window ? qwen_windows_most(&c->vision, p->height / side_of(c), p->width / side_of(c)) : 0;
        }
    }
    l->pictures = tape_alloc(tape, (size_t)pictures * sizeof(*l->pictures) + 1);
    ints = tape_alloc(tape, ((size_t)5 * (size_t)rows + 4 * (size_t)n + (size_t)pictures + (size_t)(2 + group) * (size_t)merged +
                             2 * (size_t)windows + 5) * sizeof(*ints));
    if (!l->pictures || !ints)
        return tape->error;
    l->ids = ints;
    l->splice = l->ids + rows;
    for (int i = 0; i < 3; i++)
        l->position[i] = l->splice + (i + 1) * rows;
    l->start = l->position[2] + rows;
    l->ones = l->start + n + 1;
    l->last = l->ones + n + 1;
    l->delta = l->last + n;
    l->picture_start = l->delta + n;
    l->window_order = l->picture_start + pictures + 1;
    l->window_back = l->window_order + merged;
    l->window_rows = l->window_back + merged;
    l->window_start = l->window_rows + group * merged;
    l->window_start_raw = l->window_start + windows + 1;
    return 0;
}

/* Text rows and picture rows of one item, in order; first[k] is the first merged row of its picture k. */
static void splice(const struct qwen_vl_config *c, struct qwen_layout *l, const struct qwen_item *item, const int *first)
{
    int picture = 0, within = 0;

    for (int i = 0; i < item->n_ids; i++) {
        if (item->ids[i] != c->image_id) {
            l->splice[l->rows++] = l->text;
            l->ids[l->text++] = item->ids[i];
            continue;
        }
        l->splice[l->rows++] = -1 - (first[picture] + within);
        if (++within == tokens_of(c, &item->pictures[picture])) {
            picture++;
            within = 0;
        }
    }
}

int qwen_layout(const struct qwen_vl *model, struct tape *tape, const struct qwen_item *items, int n, struct qwen_layout *ret)
{
    const struct qwen_vl_config *c = &model->config;
    int group = c->vision.merge * c->vision.merge, r;
    struct qwen_layout l = {.n = n};

    for (int i = 0; i < n; i++)
        if (check_item(c, &items[i]) < 0)
            return -EINVAL;
    r = allocate(c, tape, items, n, &l);
    if (r < 0)
        return r;
    l.picture_start[0] = 0;
    for (int i = 0; i < n; i++) {
        const struct qwen_item *item = &items[i];
        int first[QWEN_MAX_PICTURES];

        for (int k = 0; k < item->n_pictures; k++) {
            int number = put_picture(&l, &item->pictures[k]);

            l.picture_start[number + 1] = l.picture_start[number] + group * tokens_of(c, &item->pictures[k]);
            first[k] = l.picture_start[number] / group;
        }
        l.start[i] = l.rows;
        l.ones[i] = i;
        l.delta[i] =
            qwen_positions(c, item, l.position[0] + l.rows, l.position[1] + l.rows, l.position[2] + l.rows) - item->n_ids;
        splice(c, &l, item, first);
        l.last[i] = l.rows - 1;
    }
    l.start[n] = l.rows;
    l.ones[n] = n;
    l.patches = l.picture_start[l.n_pictures];
    l.merged = l.patches / group;
    if (c->vision.window)
        qwen_windows(&c->vision, &l);
    *ret = l;
    return 0;
}
