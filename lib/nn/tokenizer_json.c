/* tokenizer_json.c - tokenizer.json into lookup tables; refuses every form the encoders do not do exactly. */
#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "base/atomic_file.h"
#include "nn/tokenizer_internal.h"

static int load_vocabulary(struct tokenizer *t, json_t *vocab, struct error *error)
{
    const char *text;
    json_t *id;
    int r;

    if (!json_is_object(vocab))
        return error_set(error, EINVAL, "model.vocab is missing");
    json_object_foreach(vocab, text, id) {
        r = json_is_integer(id) ? vocabulary_add(t, json_integer_value(id), text, error)
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
    size_t at;
    json_t *token;
    int r;

    json_array_foreach(added, at, token) {
        const json_t *id = json_object_get(token, "id");
        const char *text = json_string_value(json_object_get(token, "content"));

        if (!text || !*text || !json_is_integer(id))
            return error_set(error, EINVAL, "added_tokens[%zu] needs an id and a content", at);
        if (flag(token, "normalized") || flag(token, "lstrip") || flag(token, "rstrip") || flag(token, "single_word"))
            return error_set(error, ENOTSUP, "added token '%s': normalized, lstrip, rstrip and single_word are not supported",
                             text);
        r = vocabulary_add_special(t, json_integer_value(id), text, flag(token, "special"), error);
        if (r < 0)
            return r;
    }
    return 0;
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
    return vocabulary_merge(t, l, r, result, rank, error);
}

static int load_merges(struct tokenizer *t, const json_t *merges, struct error *error)
{
    size_t at;
    json_t *entry;

    if (!json_is_array(merges) || json_array_size(merges) > TOKENIZER_MAX_ID)
        return error_set(error, EINVAL, "model.merges is missing or too long");
    json_array_foreach(merges, at, entry) {
        int r = load_merge(t, entry, (int)at, error);

        if (r < 0)
            return r;
    }
    vocabulary_sort_merges(t);
    return 0;
}

static bool equals(const json_t *object, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text && !strcmp(text, value);
}

static bool absent(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return !value || json_is_null(value) || (json_is_string(value) && !*json_string_value(value));
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

/* {Sequence: [Split by a pattern, every piece on its own; ByteLevel without a pattern of its own]}: the pattern, or NULL. */
static const char *split_pattern(const json_t *pre)
{
    const json_t *list = json_object_get(pre, "pretokenizers");
    const json_t *split = json_array_get(list, 0), *bytes = json_array_get(list, 1);

    if (!equals(pre, "type", "Sequence") || json_array_size(list) != 2 || !equals(split, "type", "Split") ||
        !equals(split, "behavior", "Isolated") || flag(split, "invert") || !equals(bytes, "type", "ByteLevel") ||
        flag(bytes, "add_prefix_space") || !json_is_false(json_object_get(bytes, "use_regex")))
        return NULL;
    return json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
}

/* *ret_pattern: NULL for Llama's form. */
static int check_form(const json_t *root, const json_t *model, const char **ret_pattern, struct error *error)
{
    const json_t *normalizer = json_object_get(root, "normalizer");

    if (!equals(model, "type", "BPE"))
        return error_set(error, ENOTSUP, "only BPE is supported, the model is %s",
                         absent(model, "type") ? "of no type" : json_string_value(json_object_get(model, "type")));
    if (!absent(model, "dropout") || flag(model, "ignore_merges") || !absent(model, "continuing_subword_prefix") ||
        !absent(model, "end_of_word_suffix"))
        return error_set(error, ENOTSUP,
                         "dropout, ignore_merges, continuing_subword_prefix and end_of_word_suffix are not supported");
    if (flag(model, "byte_fallback")) {
        if (!normalizer_is_llamas(normalizer))
            return error_set(error, ENOTSUP, "the normalizer is not Llama's (prepend U+2581, replace blanks by it)");
        if (!absent(root, "pre_tokenizer"))
            return error_set(error, ENOTSUP, "a pre_tokenizer is not supported with byte_fallback");
        *ret_pattern = NULL;
        return 0;
    }
    *ret_pattern = split_pattern(json_object_get(root, "pre_tokenizer"));
    if (!*ret_pattern)
        return error_set(error, ENOTSUP,
                         "neither Llama's form (byte_fallback) nor Qwen's (pre_tokenizer: Split, then ByteLevel)");
    if (!equals(normalizer, "type", "NFC"))
        return error_set(error, ENOTSUP, "byte-level BPE is supported with the normalizer NFC only");
    return 0;
}

static int fill(struct tokenizer *t, const json_t *root, const char *pattern, struct error *error)
{
    json_t *model = json_object_get(root, "model");
    int r = load_vocabulary(t, json_object_get(model, "vocab"), error);

    if (r >= 0)
        r = load_added(t, json_object_get(root, "added_tokens"), error);
    if (r >= 0)
        r = vocabulary_index(t, error);
    if (r >= 0)
        r = pattern ? tokenizer_bytes_init(t, pattern, error) : vocabulary_byte_pieces(t, error);
    if (r < 0)
        return r;
    t->bos = pattern ? -ENOENT : tokenizer_id(t, "<s>");
    if (!pattern && t->bos < 0)
        return error_set(error, EINVAL, "there is no piece <s>");
    return load_merges(t, json_object_get(model, "merges"), error);
}

static int load(const json_t *root, struct tokenizer **ret, struct error *error)
{
    _cleanup_(tokenizer_freep) struct tokenizer *t = NULL;
    const char *pattern = NULL;
    int r = check_form(root, json_object_get(root, "model"), &pattern, error);

    if (r < 0)
        return r;
    t = vocabulary_new(pattern ? &tokenizer_bytes : &tokenizer_llama);
    if (!t)
        return error_set(error, ENOMEM, "out of memory");
    r = fill(t, root, pattern, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}

int tokenizer_parse(const char *json, size_t n, struct tokenizer **ret, struct error *error)
{
    json_error_t where;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &where);
    int r;

    if (!root)
        return error_set(error, EINVAL, "line %d: %s", where.line, where.text);
    r = load(root, ret, error);
    json_decref(root);
    return r;
}

static bool is_model(const char *path)
{
    size_t n = strlen(path);

    return n > 6 && !strcmp(path + n - 6, ".model");
}

int tokenizer_load(const char *path, struct tokenizer **ret, struct error *error)
{
    _cleanup_free_ char *bytes = NULL;
    size_t n;
    int r = file_read(path, TOKENIZER_MAX_FILE, &bytes, &n);

    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    r = is_model(path) ? tokenizer_parse_model(bytes, n, NULL, 0, ret, error) : tokenizer_parse(bytes, n, ret, error);
    return r < 0 ? error_prefix(error, r, "%s", path) : 0;
}

int tokenizer_load_dir(const char *dir, struct tokenizer **ret, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf json = STRBUF_INIT, model = STRBUF_INIT, added = STRBUF_INIT;
    _cleanup_free_ char *bytes = NULL, *added_json = NULL;
    size_t n, n_added = 0;
    int r;

    strbuf_addf(&json, "%s/tokenizer.json", dir);
    strbuf_addf(&model, "%s/tokenizer.model", dir);
    strbuf_addf(&added, "%s/added_tokens.json", dir);
    if (json.failed || model.failed || added.failed)
        return error_set(error, ENOMEM, "out of memory");
    if (access(json.text, F_OK) == 0 || access(model.text, F_OK) < 0)
        return tokenizer_load(json.text, ret, error);
    r = file_read(model.text, TOKENIZER_MAX_FILE, &bytes, &n);
    if (r < 0)
        return error_set(error, -r, "%s: %s", model.text, strerror(-r));
    r = file_read(added.text, TOKENIZER_MAX_FILE, &added_json, &n_added);
    if (r < 0 && r != -ENOENT)
        return error_set(error, -r, "%s: %s", added.text, strerror(-r));
    r = tokenizer_parse_model(bytes, n, added_json, n_added, ret, error);
    return r < 0 ? error_prefix(error, r, "%s", model.text) : 0;
}
