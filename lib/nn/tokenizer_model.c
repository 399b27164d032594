/* tokenizer_model.c - SentencePiece's tokenizer.model into the same tables.
 *
 * ModelProto: field 1 repeated {1: piece, 2: score, 3: type}, field 2 trainer_spec {3: model type, 35: byte_fallback}, field 3
 * normalizer_spec {2: charsmap, 3: add_dummy_prefix, 4: remove_extra_whitespaces, 5: escape_whitespaces}. SentencePiece merges
 * the adjacent pair whose concatenation has the highest score, the leftmost on a tie; every way to cut a piece in two known ones
 * is therefore a merge whose rank is the place of the piece's score. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include <jansson.h>

#include "nn/tokenizer_internal.h"
#include "nn/wire_format.h"

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN = 2, PIECE_CONTROL = 3, PIECE_BYTE = 6 };
enum { MODEL_BPE = 2 };
enum { MAX_PIECE = 256 };       /* bytes; cutting a piece everywhere stays cheap */

struct score { float score; int id, length; };

struct model {
    struct tokenizer *t;
    struct score *normal;       /* the pieces that merge */
    int n_normal, size;
    bool byte_fallback, dummy_prefix, extra_blanks_go, escape;
    uint64_t type;
    size_t charsmap;            /* bytes of normalisation rules */
};

static int add_normal(struct model *m, float score, int id, size_t length, struct error *error)
{
    if (m->n_normal == m->size) {
        int size = MAX(256, 2 * m->size);
        struct score *grown = reallocarray(m->normal, (size_t)size, sizeof(*grown));

        if (!grown)
            return error_set(error, ENOMEM, "out of memory");
        m->normal = grown;
        m->size = size;
    }
    m->normal[m->n_normal++] = (struct score) {score, id, (int)length};
    return 0;
}

static int read_piece(struct model *m, const struct wire_field *entry, struct error *error)
{
    struct wire_reader reader = wire_reader(entry->bytes, entry->n);
    struct wire_field f;
    char text[MAX_PIECE + 1] = "";
    size_t n = 0;
    float score = 0;
    uint64_t type = PIECE_NORMAL;
    int id = m->t->size, k, r;

    while ((k = wire_next(&reader, &f)) > 0) {
        if (f.number == 1 && f.type == WIRE_BYTES) {
            if (f.n > MAX_PIECE || memchr(f.bytes, 0, f.n) || !utf8_valid((const char *)f.bytes, f.n))
                return error_set(error, EINVAL, "piece %d: more than %d bytes, or no text", id, MAX_PIECE);
            memcpy(text, f.bytes, f.n);
            n = f.n;
            text[n] = '\0';
        } else if (f.number == 2 && f.type == WIRE_FIXED32) {
            score = wire_float(&f);
        } else if (f.number == 3 && f.type == WIRE_VARINT) {
            type = f.value;
        }
    }
    if (k < 0 || n == 0 || !isfinite(score))
        return error_set(error, EINVAL, "piece %d: malformed, empty, or its score is no number", id);
    m->t->size++;
    switch (type) {
    case PIECE_NORMAL:
        r = vocabulary_add(m->t, id, text, error);
        return r < 0 ? r : add_normal(m, score, id, n, error);
    case PIECE_BYTE: return vocabulary_add(m->t, id, text, error);
    case PIECE_UNKNOWN:
    case PIECE_CONTROL: return vocabulary_add_special(m->t, id, text, true, error);
    default: return error_set(error, ENOTSUP, "piece %d ('%s'): type %llu is not supported", id, text, (unsigned long long)type);
    }
}

static int read_trainer(struct model *m, const struct wire_field *entry, struct error *error)
{
    struct wire_reader reader = wire_reader(entry->bytes, entry->n);
    struct wire_field f;
    int k;

    while ((k = wire_next(&reader, &f)) > 0) {
        if (f.number == 3 && f.type == WIRE_VARINT)
            m->type = f.value;
        else if (f.number == 35 && f.type == WIRE_VARINT)
            m->byte_fallback = f.value;
    }
    return k < 0 ? error_set(error, EINVAL, "trainer_spec is malformed") : 0;
}

static int read_normalizer(struct model *m, const struct wire_field *entry, struct error *error)
{
    struct wire_reader reader = wire_reader(entry->bytes, entry->n);
    struct wire_field f;
    int k;

    while ((k = wire_next(&reader, &f)) > 0) {
        if (f.number == 2 && f.type == WIRE_BYTES)
            m->charsmap = f.n;
        else if (f.number == 3 && f.type == WIRE_VARINT)
            m->dummy_prefix = f.value;
        else if (f.number == 4 && f.type == WIRE_VARINT)
            m->extra_blanks_go = f.value;
        else if (f.number == 5 && f.type == WIRE_VARINT)
            m->escape = f.value;
    }
    return k < 0 ? error_set(error, EINVAL, "normalizer_spec is malformed") : 0;
}

static int read_model(struct model *m, const void *bytes, size_t n, struct error *error)
{
    struct wire_reader reader = wire_reader(bytes, n);
    struct wire_field f;
    int k, r = 0;

    while ((k = wire_next(&reader, &f)) > 0 && r >= 0) {
        if (f.type != WIRE_BYTES || f.number > 3)
            continue;
        r = f.number == 1 ? read_piece(m, &f, error) : f.number == 2 ? read_trainer(m, &f, error) : read_normalizer(m, &f, error);
    }
    if (r < 0)
        return r;
    if (k < 0)
        return error_set(error, EINVAL, "this is no SentencePiece model: malformed behind piece %d", m->t->size);
    if (m->type != MODEL_BPE || !m->byte_fallback)
        return error_set(error, ENOTSUP, "only SentencePiece BPE (model type 2, found %llu) with byte_fallback is supported",
                         (unsigned long long)m->type);
    if (m->charsmap || !m->dummy_prefix || m->extra_blanks_go || !m->escape)
        return error_set(error, ENOTSUP, "the normalizer must be the identity with a dummy prefix, blanks kept and escaped");
    return 0;
}

static int by_score(const void *a, const void *b)
{
    const struct score *x = a, *y = b;

    return x->score != y->score ? (x->score > y->score ? -1 : 1) : x->id - y->id;
}

/* Equal scores share a rank: the leftmost merges first. */
static int make_merges(struct model *m, struct error *error)
{
    int rank = 0;

    if (m->n_normal)
        qsort(m->normal, (size_t)m->n_normal, sizeof(*m->normal), by_score);
    for (int i = 0; i < m->n_normal; i++) {
        const struct score *s = &m->normal[i];
        const char *text = m->t->text[s->id];
        size_t at, step;

        if (i > 0 && s->score != m->normal[i - 1].score)
            rank = i;
        (void)utf8_read(text, &at);
        for (; at < (size_t)s->length; at += step) {
            int left = tokenizer_id_n(m->t, text, at), right = tokenizer_id(m->t, text + at);
            bool pair = left >= 0 && right >= 0 && m->t->byte_of[left] < 0 && m->t->byte_of[right] < 0;
            int r = !pair ? 0 : vocabulary_merge(m->t, left, right, s->id, rank, error);

            if (r < 0)
                return r;
            (void)utf8_read(text + at, &step);
        }
    }
    vocabulary_sort_merges(m->t);
    return 0;
}

/* added_tokens.json: {"<PAD>": 32000}. */
static int read_added(struct tokenizer *t, const char *json, size_t n, struct error *error)
{
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, NULL), *id;
    const char *text;
    int r = json_is_object(root) ? 0 : error_set(error, EINVAL, "added_tokens.json is not an object of text: id");

    json_object_foreach(root, text, id) {
        if (r >= 0 && (!json_is_integer(id) || !*text))
            r = error_set(error, EINVAL, "added_tokens.json: '%s' has no whole number", text);
        if (r >= 0)
            r = vocabulary_add_special(t, json_integer_value(id), text, true, error);
    }
    json_decref(root);
    return r;
}

static int fill(struct model *m, const void *bytes, size_t n, const char *added_json, size_t n_added, struct error *error)
{
    int r = read_model(m, bytes, n, error);

    if (r >= 0 && added_json)
        r = read_added(m->t, added_json, n_added, error);
    if (r >= 0)
        r = vocabulary_index(m->t, error);
    if (r >= 0)
        r = vocabulary_byte_pieces(m->t, error);
    if (r < 0)
        return r;
    m->t->bos = tokenizer_id(m->t, "<s>");
    return m->t->bos < 0 ? error_set(error, EINVAL, "there is no piece <s>") : make_merges(m, error);
}

int tokenizer_parse_model(const void *bytes, size_t n, const char *added_json, size_t n_added, struct tokenizer **ret,
                          struct error *error)
{
    _cleanup_(tokenizer_freep) struct tokenizer *t = vocabulary_new(&tokenizer_llama);
    struct model m = {.t = t, .dummy_prefix = true, .extra_blanks_go = true, .escape = true, .type = 1};
    int r = t ? fill(&m, bytes, n, added_json, n_added, error) : error_set(error, ENOMEM, "out of memory");

    free(m.normal);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(t);
    return 0;
}
