/* tokenizer_load.c - tokenizer.json into lookup tables; refuses every form the encoder does not do exactly. */
#include <errno.h>

#include <jansson.h>

#include "base/atomic_file.h"
#include "nn/tokenizer_internal.h"

enum { MAX_ID = 1 << 20, MAX_FILE = 64 << 20 };

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct piece *)a)->text, ((const struct piece *)b)->text);
}

static int by_pair(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;

    if (x->pair != y->pair)
        return x->pair < y->pair ? -1 : 1;
    return x->rank - y->rank;
}

static int set_piece(struct tokenizer *t, int64_t id, const char *text, struct error *error)
{
    if (id < 0 || id >= MAX_ID)
        return error_set(error, EINVAL, "piece '%s': id %lld is out of range", text, (long long)id);
    if (id >= t->n_ids) {
        int n = MAX((int)id + 1, MIN(2 * t->n_ids, MAX_ID));
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

static int load_vocabulary(struct tokenizer *t, json_t *vocab, struct error *error)
{
    const char *text;
    json_t *id;
    int r;

    if (!json_is_object(vocab))
        return error_set(error, EINVAL, "model.vocab is missing");
    json_object_foreach(vocab, text, id) {
        r = json_is_integer(id) ? set_piece(t, json_integer_value(id), text, error)
                                : error_set(error, EINVAL, "model.vocab: '%s' has no whole number", text);
        if (r < 0)
            return r;
    }
    t->size = (int)json_object_size(vocab);
    return 0;
}

static bool flag(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static int load_added(struct tokenizer *t, const json_t *added, struct error *error)
{
    size_t n = json_array_size(added);
    int r;

    t->specials = calloc(n + 1, sizeof(*t->specials));
    if (!t->specials)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *token = json_array_get(added, i), *id = json_object_get(token, "id");
        const char *text = json_string_value(json_object_get(token, "content"));

        if (!text || !*text || !json_is_integer(id))
            return error_set(error, EINVAL, "added_tokens[%zu] needs an id and a content", i);
        if (flag(token, "normalized") || flag(token, "lstrip") || flag(token, "rstrip") || flag(token, "single_word"))
            return error_set(error, ENOTSUP, "added token '%s': normalized, lstrip, rstrip and single_word are not supported",
                             text);
        r = set_piece(t, json_integer_value(id), text, error);
        if (r < 0)
            return r;
        t->specials[t->n_specials++] = (struct special) {.text = t->text[json_integer_value(id)], .length = strlen(text),
                                                         .id = (int)json_integer_value(id), .hidden = flag(token, "special")};
    }
    return 0;
}

/* Tables that need every piece: by text, byte pieces, <s>. */
static int index_pieces(struct tokenizer *t, struct error *error)
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
    for (int byte = 0; byte < 256; byte++) {
        char name[8];

        snprintf(name, sizeof(name), "<0x%02X>", (unsigned)byte);
        t->byte_id[byte] = tokenizer_id(t, name);
        if (t->byte_id[byte] < 0)
            return error_set(error, EINVAL, "byte fallback needs all 256 byte pieces; %s is missing", name);
        t->byte_of[t->byte_id[byte]] = (int16_t)byte;
    }
    t->bos = tokenizer_id(t, "<s>");
    return t->bos < 0 ? error_set(error, EINVAL, "there is no piece <s>") : 0;
}

/* A merge is written "left right" or ["left", "right"]. */
static int load_merge(struct tokenizer *t, const json_t *entry, int rank, struct error *error)
{
    const char *left = json_string_value(json_is_array(entry) ? json_array_get(entry, 0) : entry), *right;
    _cleanup_free_ char *joined = NULL;
    size_t n_left;
    int l, r, result;

    if (json_is_array(entry)) {
        right = json_string_value(json_array_get(entry, 1));
        n_left = left ? strlen(left) : 0;
    } else {
        right = left ? strchr(left, ' ') : NULL;
        n_left = right ? (size_t)(right - left) : 0;
        right = right ? right + 1 : NULL;
    }
    if (!left || !right)
        return error_set(error, EINVAL, "model.merges[%d] is not two pieces", rank);
    if (asprintf(&joined, "%.*s%s", (int)n_left, left, right) < 0) {
        joined = NULL;
        return error_set(error, ENOMEM, "out of memory");
    }
    l = tokenizer_id_n(t, left, n_left);
    r = tokenizer_id(t, right);
    result = tokenizer_id(t, joined);
    if (l < 0 || r < 0 || result < 0)
        return error_set(error, EINVAL, "model.merges[%d]: '%s' or one of its parts is not in the vocabulary", rank, joined);
    t->merges[t->n_merges++] = (struct merge) {.pair = (uint64_t)l << 32 | (uint32_t)r, .rank = rank, .result = result};
    return 0;
}

static int load_merges(struct tokenizer *t, const json_t *merges, struct error *error)
{
    size_t n = json_array_size(merges);
    int r;

    if (!json_is_array(merges) || n > MAX_ID)
        return error_set(error, EINVAL, "model.merges is missing or too long");
    t->merges = calloc(n + 1, sizeof(*t->merges));
    if (!t->merges)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        r = load_merge(t, json_array_get(merges, i), (int)i, error);
        if (r < 0)
            return r;
    }
    qsort(t->merges, (size_t)t->n_merges, sizeof(*t->merges), by_pair);
    return 0;
}

static bool equals(const json_t *object, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text && !strcmp(text, value);
}

/* {Sequence: [Prepend U+2581, Replace " " by U+2581]} and nothing else. */
static bool normalizer_is_llamas(const json_t *normalizer)
{
    const json_t *list = json_object_get(normalizer, "normalizers");
    const json_t *prepend = json_array_get(list, 0), *replace = json_array_get(list, 1);

    return equals(normalizer, "type", "Sequence") && json_array_size(list) == 2 && equals(prepend, "type", "Prepend") &&
           equals(prepend, "prepend", WORD_MARK) && equals(replace, "type", "Replace") && equals(replace, "content", WORD_MARK) &&
           equals(json_object_get(replace, "pattern"), "String", " ");
}

static int check_form(const json_t *root, const json_t *model, struct error *error)
{
    const json_t *dropout = json_object_get(model, "dropout"), *pre = json_object_get(root, "pre_tokenizer");

    if (!equals(model, "type", "BPE") || !flag(model, "byte_fallback"))
        return error_set(error, ENOTSUP, "only BPE with byte_fallback is supported");
    if (!normalizer_is_llamas(json_object_get(root, "normalizer")))
        return error_set(error, ENOTSUP, "the normalizer is not Llama's (prepend U+2581, replace blanks by it)");
    if ((pre && !json_is_null(pre)) || (dropout && !json_is_null(dropout)))
        return error_set(error, ENOTSUP, "a pre_tokenizer or dropout is not supported");
    return 0;
}

static int load(struct tokenizer *t, const json_t *root, struct error *error)
{
    json_t *model = json_object_get(root, "model");
    int r;

    r = check_form(root, model, error);
    if (r < 0)
        return r;
    r = load_vocabulary(t, json_object_get(model, "vocab"), error);
    if (r < 0)
        return r;
    r = load_added(t, json_object_get(root, "added_tokens"), error);
    if (r < 0)
        return r;
    r = index_pieces(t, error);
    if (r < 0)
        return r;
    return load_merges(t, json_object_get(model, "merges"), error);
}

int tokenizer_parse(const char *json, size_t n, struct tokenizer **ret, struct error *error)
{
    _cleanup_(tokenizer_freep) struct tokenizer *t = calloc(1, sizeof(*t));
    json_error_t where;
    json_t *root;
    int r;

    if (!t)
        return error_set(error, ENOMEM, "out of memory");
    root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return error_set(error, EINVAL, "line %d: %s", where.line, where.text);
    r = load(t, root, error);
    json_decref(root);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}

int tokenizer_load(const char *path, struct tokenizer **ret, struct error *error)
{
    _cleanup_free_ char *json = NULL;
    size_t n;
    int r;

    r = file_read(path, MAX_FILE, &json, &n);
    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    r = tokenizer_parse(json, n, ret, error);
    return r < 0 ? error_prefix(error, r, "%s", path) : 0;
}

struct tokenizer *tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return NULL;
    for (int i = 0; i < t->n_ids; i++)
        free(t->text[i]);
    free(t->text);
    free(t->sorted);
    free(t->merges);
    free(t->specials);
    free(t->byte_of);
    free(t);
    return NULL;
}
