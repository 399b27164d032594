#include "nn/models/openvla_rows.h"

#include <errno.h>

#include "image/tf_image.h"

static int check_item(const struct openvla_config *c, const struct openvla_item *item)
{
    if (item->n_images < 1 || item->n_images > OPENVLA_MAX_IMAGES || item->n_prompt < 1 || item->n_actions < 0)
        return -EINVAL;
    for (int i = 0; i < item->n_prompt; i++)
        if (item->prompt[i] < 0 || item->prompt[i] >= c->vocab_padded)
            return -EINVAL;
    for (int i = 0; i < item->n_actions; i++)
        if (item->actions[i] < 0 || item->actions[i] >= c->vocab_padded)
            return -EINVAL;
    if (item->slots < 0 || (item->slots && item->n_actions) || (item->proprio && !c->oft.proprio))
        return -EINVAL;
    return 0;
}

/* Room for items that share nothing, and as much again for their keys and beginnings. */
static int allocate(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n,
                    struct openvla_rows *ret)
{
    int rows = 0, text = 0, images = 0, states = 0, words = 0;
    struct openvla_rows l = {0};
    int32_t *ints;
    size_t count;

    for (int i = 0; i < n; i++) {
        if (check_item(&model->config, &items[i]) < 0 || !items[i].slots != !items[0].slots ||
            items[i].augmented != items[0].augmented)
            return -EINVAL;
        images += items[i].n_images;
        words += items[i].n_prompt + 1;
        states += items[i].proprio != NULL;
        text += items[i].n_prompt + items[i].n_actions + (items[i].slots ? items[i].slots + 1 : 0);
    }
    text += states;
    rows = text + images * model->config.patches;
    l.image = tape_alloc(tape, (size_t)images * sizeof(*l.image));
    l.state = tape_alloc(tape, ((size_t)states * (size_t)model->config.oft.proprio + 1) * sizeof(*l.state));
    /* of text, rows, sequences (beginnings; firsts; words' beginnings), words, pictures: as they are laid out below */
    count = (size_t)text + 8 * (size_t)rows + 3 * (2 * (size_t)n + 1) + 2 * (size_t)n + ((size_t)n + 1) + (size_t)words +
            (size_t)images;
    ints = tape_alloc(tape, count * sizeof(*ints));
    if (!l.image || !l.state || !ints)
        return tape->error;
    l.ids = ints;
    l.splice = l.ids + text;
    l.position = l.splice + rows;
    l.slot = l.position + rows;
    l.tail = l.slot + rows;
    l.tail_position = l.tail + rows;
    l.state_splice = l.tail_position + rows;
    l.keys = l.state_splice + rows;
    l.start = l.keys + 2 * rows;
    l.own = l.start + 2 * n + 1;
    l.tail_start = l.own + 2 * n + 1;
    l.first = l.tail_start + 2 * n + 1;
    l.tail_first = l.first + n;
    l.words = l.tail_first + n;
    l.word_start = l.words + words;
    l.image_item = l.word_start + n + 1;
    l.start[0] = l.own[0] = l.tail_start[0] = 0;
    *ret = l;
    return 0;
}

static void put_row(struct openvla_rows *l, int32_t splice)
{
    int32_t key = l->start[l->sequences + 1]++;

    l->keys[key] = l->rows;
    l->splice[l->rows] = splice;
    l->state_splice[l->rows] = l->rows;
    l->position[l->rows] = key - l->start[l->sequences];
    l->slot[l->rows++] = l->sequences;
}

static void put_text(struct openvla_rows *l, const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++) {
        put_row(l, l->text);
        l->ids[l->text++] = ids[i];
    }
}

static bool same_prompt(const struct openvla_item *a, const struct openvla_item *b)
{
    return a->n_prompt == b->n_prompt && !memcmp(a->prompt, b->prompt, (size_t)a->n_prompt * sizeof(*a->prompt));
}

/* A picture that several sequences show is encoded once; with FiLM, once for all that say the same beside it. */
static void put_image(struct openvla_rows *l, const struct openvla_config *c, const struct openvla_item *items, int i, int k)
{
    const uint8_t *image = items[i].images[k];
    int patches = c->patches, number = 0;

    while (number < l->images &&
           (l->image[number] != image || (c->oft.film && !same_prompt(&items[i], &items[l->image_item[number]]))))
        number++;
    if (number == l->images) {
        l->image_item[l->images] = i;
        l->image[l->images++] = image;
    }
    for (int p = 0; p < patches; p++)
        put_row(l, -1 - (number * patches + p));
}

/* Empty positions to be answered, and the end that follows them. */
static void put_slots(struct openvla_rows *l, int n, int32_t eos_id)
{
    static const int32_t zero = EMBEDDING_ZERO;

    for (int i = 0; i < n; i++)
        put_text(l, &zero, 1);
    put_text(l, &eos_id, 1);
}

/* An empty position that `state_splice` fills later. */
static void put_state(struct openvla_rows *l, const float *proprio, int width)
{
    static const int32_t zero = EMBEDDING_ZERO;

    memcpy(l->state + l->states * width, proprio, (size_t)width * sizeof(*proprio));
    put_text(l, &zero, 1);
    l->state_splice[l->rows - 1] = -1 - l->states++;
}

static void begin_sequence(struct openvla_rows *l)
{
    l->start[l->sequences + 1] = l->start[l->sequences];
}

static void end_sequence(struct openvla_rows *l)
{
    l->own[++l->sequences] = l->rows;
    l->tail_start[l->sequences] = l->n_tail;
}

static void put_beginning(struct openvla_rows *l, const struct openvla_config *c, const struct openvla_item *items, int i)
{
    put_text(l, items[i].prompt, 1);
    put_image(l, c, items, i, 0);
}

/* beginning: the first of the rows that others computed for it, or -1. */
static void put_item(struct openvla_rows *l, const struct openvla_config *c, const struct openvla_item *items, int i,
                     int32_t beginning)
{
    const struct openvla_item *item = &items[i];
    int patches = c->patches;

    begin_sequence(l);
    if (beginning < 0)
        put_beginning(l, c, items, i);
    for (int p = 0; beginning >= 0 && p < 1 + patches; p++)
        l->keys[l->start[l->sequences + 1]++] = beginning + p;
    for (int k = 1; k < item->n_images; k++)
        put_image(l, c, items, i, k);
    if (item->proprio)
        put_state(l, item->proprio, c->oft.proprio);
    put_text(l, item->prompt + 1, item->n_prompt - 1);
    l->first[i] = l->rows - 1;
    put_text(l, item->actions, item->n_actions);
    if (item->slots)
        put_slots(l, item->slots, c->eos_id);
    l->tail_first[i] = l->n_tail;
    for (int row = l->first[i]; row < l->rows; row++) {
        l->tail_position[l->n_tail] = l->position[row];
        l->tail[l->n_tail++] = row;
    }
    end_sequence(l);
}

/* All tokens but the actions: the prompt, <s> included, and the end. */
static void put_words(struct openvla_rows *l, const struct openvla_config *c, const struct openvla_item *items, int n)
{
    l->word_start[0] = 0;
    for (int i = 0; i < n; i++) {
        int32_t *to = l->words + l->word_start[i];

        memcpy(to, items[i].prompt, (size_t)items[i].n_prompt * sizeof(*to));
        to[items[i].n_prompt] = c->eos_id;
        l->word_start[i + 1] = l->word_start[i] + items[i].n_prompt + 1;
    }
}

/* The item goes on behind its beginning: with another picture or more text. */
static bool begin_alike(const struct openvla_config *c, const struct openvla_item *a, const struct openvla_item *b)
{
    return (!c->oft.film || same_prompt(a, b)) && a->images[0] == b->images[0] && a->prompt[0] == b->prompt[0] &&
        a->n_images + a->n_prompt > 2 &&
           b->n_images + b->n_prompt > 2;
}

/* The middle of each picture, as a policy that was trained with random crops must see it. */
static int crop_images(const struct openvla_config *c, struct tape *tape, struct openvla_rows *l)
{
    size_t bytes = (size_t)c->image_height * (size_t)c->image_width * 3;
    uint8_t *cropped = tape_alloc(tape, (size_t)l->images * bytes);
    int r = cropped ? 0 : tape->error;

    for (int i = 0; i < l->images && r >= 0; i++, cropped += bytes) {
        if (!tape->planning)
            r = tf_center_crop(l->image[i], c->image_height, c->image_width, c->center_crop, cropped);
        l->image[i] = cropped;
    }
    return r;
}

int openvla_rows_make(const struct openvla *model, struct tape *tape, const struct openvla_item *items, int n, bool share,
                    struct openvla_rows *ret)
{
    const struct openvla_config *c = &model->config;
    int patches = c->patches;
    struct openvla_rows l = {0};
    int r = allocate(model, tape, items, n, &l);

    if (r < 0)
        return r;
    for (int i = 0; share && i + 1 < n; i++) {      /* runs of neighbours: what begins alike comes together */
        if (!begin_alike(c, &items[i], &items[i + 1]) || (i > 0 && begin_alike(c, &items[i - 1], &items[i])))
            continue;
        begin_sequence(&l);
        put_beginning(&l, c, items, i);
        end_sequence(&l);
    }
    l.shared = l.sequences;
    for (int i = 0, run = -1; i < n; i++) {
        bool first = i == 0 || !begin_alike(c, &items[i - 1], &items[i]);
        bool alike = share && (!first || (i + 1 < n && begin_alike(c, &items[i], &items[i + 1])));

        run += first && alike;
        put_item(&l, c, items, i, alike ? run * (1 + patches) : -1);
    }
    put_words(&l, c, items, n);
    if (model->config.center_crop > 0 && !items[0].augmented)
        r = crop_images(&model->config, tape, &l);
    if (r < 0)
        return r;
    *ret = l;
    return 0;
}
