/* tokenizer_vocabulary.c - the tables that both file formats fill: pieces by id and by text, merges by pair. */
#include <errno.h>
#include <string.h>

#include "nn/tokenizer_internal.h"

static int by_text(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    int c = strcmp(x->text, y->text);

    return c ? c : x->id - y->id;
}

static int by_pair(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;

    if (x->pair != y->pair)
        return x->pair < y->pair ? -1 : 1;
    return y->rank - x->rank;           /* what a file says last of a pair counts, as in the original */
}

struct tokenizer *vocabulary_new(const struct tokenizer_form *form)
{
    struct tokenizer *t = calloc(1, sizeof(*t));

    if (t) {
        atomic_init(&t->owners, 1);
        t->form = form;
        t->bos = -ENOENT;
    }
    return t;
}

int vocabulary_add(struct tokenizer *t, int64_t id, const char *text, struct error *error)
{
    if (id < 0 || id >= TOKENIZER_MAX_ID)
        return error_set(error, EINVAL, "piece '%s': id %lld is out of range", text, (long long)id);
    if (id >= t->n_ids) {
        int n = MAX((int)id + 1, MIN(2 * t->n_ids, TOKENIZER_MAX_ID));
        char **grown = reallocarray(t->text, (size_t)n, sizeof(*grown));

        if (!grown)
            return error_set(error, ENOMEM, "out of memory");
        memset(grown + t->n_ids, 0, (size_t)(n - t->n_ids) * sizeof(*grown));
        t->text = grown;
        t->n_ids = n;
    }
    if (t->text[id])
        return strcmp(t->text[id], text)
                   ? error_set(error, EINVAL, "id %lld is both '%s' and '%s'", (long long)id, t->text[id], text)
                   : 0;
    t->text[id] = strdup(text);
    return t->text[id] ? 0 : error_set(error, ENOMEM, "out of memory");
}

int vocabulary_add_special(struct tokenizer *t, int64_t id, const char *text, bool hidden, struct error *error)
{
    struct special *grown;
    int r = vocabulary_add(t, id, text, error);

    if (r < 0)
        return r;
    grown = reallocarray(t->specials, (size_t)t->n_specials + 1, sizeof(*grown));
    if (!grown)
        return error_set(error, ENOMEM, "out of memory");
    t->specials = grown;
    t->specials[t->n_specials++] = (struct special){.text = t->text[id], .length = strlen(text), .id = (int)id, .hidden = hidden};
    return 0;
}

int vocabulary_index(struct tokenizer *t, struct error *error)
{
    t->sorted = calloc((size_t)t->n_ids + 1, sizeof(*t->sorted));
    t->byte_of = calloc((size_t)t->n_ids + 1, sizeof(*t->byte_of));
    if (!t->sorted || !t->byte_of)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < t->n_ids; i++) {
        t->byte_of[i] = -1;
        if (t->text[i])
            t->sorted[t->n_sorted++] = (struct piece) {t->text[i], i};
    }
    qsort(t->sorted, (size_t)t->n_sorted, sizeof(*t->sorted), by_text);
    for (int i = 1; i < t->n_sorted; i++)
        if (!strcmp(t->sorted[i - 1].text, t->sorted[i].text))
            return error_set(error, EINVAL, "'%s' is both id %d and id %d", t->sorted[i].text, t->sorted[i - 1].id,
                             t->sorted[i].id);
    return 0;
}

int vocabulary_byte_pieces(struct tokenizer *t, struct error *error)
{
    for (int byte = 0; byte < 256; byte++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)byte);
        t->byte_id[byte] = tokenizer_id(t, name);
        if (t->byte_id[byte] < 0)
            return error_set(error, EINVAL, "byte fallback needs all 256 byte pieces; %s is missing", name);
        t->byte_of[t->byte_id[byte]] = (int16_t)byte;
    }
    return 0;
}

int vocabulary_merge(struct tokenizer *t, int left, int right, int result, int rank, struct error *error)
{
    if (t->n_merges == t->merges_size) {
        int size = MAX(256, 2 * t->merges_size);
        struct merge *grown = reallocarray(t->merges, (size_t)size, sizeof(*grown));

        if (!grown)
            return error_set(error, ENOMEM, "out of memory");
        t->merges = grown;
        t->merges_size = size;
    }
    t->merges[t->n_merges++] = (struct merge) {.pair = (uint64_t)left << 32 | (uint32_t)right, .rank = rank, .result = result};
    return 0;
}

void vocabulary_sort_merges(struct tokenizer *t)
{
    if (t->n_merges)
        qsort(t->merges, (size_t)t->n_merges, sizeof(*t->merges), by_pair);
}

static int compare_n(const char *text, size_t n, const char *piece)
{
    size_t m = strlen(piece);
    int c = memcmp(text, piece, MIN(n, m));

    return c ? c : (n > m) - (n < m);
}

int tokenizer_id_n(const struct tokenizer *t, const char *piece, size_t n)
{
    int low = 0, high = t->n_sorted;

    while (low < high) {
        int middle = (low + high) / 2, c = compare_n(piece, n, t->sorted[middle].text);

        if (c == 0)
            return t->sorted[middle].id;
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -ENOENT;
}

int tokenizer_id(const struct tokenizer *t, const char *piece)
{
    return tokenizer_id_n(t, piece, strlen(piece));
}
