/* tokenizer.c - text to ids and back.
 *
 * Encoding a fragment: U+2581 + the text with blanks replaced, cut into characters (unknown ones into byte pieces, which
 * merge only if the file says so); then the adjacent pair of lowest rank merges, the leftmost on a tie, until none is left. */
#include <errno.h>
#include <limits.h>

#include "base/strbuf.h"
#include "nn/tokenizer_internal.h"

struct symbol { int id, rank, result; };    /* rank, result: of merging with the next one; INT_MAX: no merge */

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

int tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

/* NULL: they do not merge. Sorted by (pair, rank): the first of equal pairs has the lowest rank. */
static const struct merge *find_merge(const struct tokenizer *t, int left, int right)
{
    uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
    int low = 0, high = t->n_merges;

    while (low < high) {
        int middle = (low + high) / 2;

        if (t->merges[middle].pair < pair)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->n_merges && t->merges[low].pair == pair ? &t->merges[low] : NULL;
}

/* Bytes of the UTF-8 character at text[0..n); 0 if it is malformed (overlong, surrogate, beyond U+10FFFF, cut off). */
static size_t utf8_length(const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t length = n == 0 ? 0 : s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

    if (length > n)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] >= 0x90))
        return 0;
    return length;
}

static bool utf8_valid(const char *text, size_t n)
{
    while (n > 0) {
        size_t length = utf8_length(text, n);

        if (length == 0)
            return false;
        text += length;
        n -= length;
    }
    return true;
}

static void set_rank(const struct tokenizer *t, struct symbol *s, int i, int n)
{
    const struct merge *m = i >= 0 && i + 1 < n ? find_merge(t, s[i].id, s[i + 1].id) : NULL;

    if (i >= 0) {
        s[i].rank = m ? m->rank : INT_MAX;
        s[i].result = m ? m->result : -1;
    }
}

/* Merge in place; returns how many symbols are left. */
static int merge_all(const struct tokenizer *t, struct symbol *s, int n)
{
    for (int i = 0; i < n; i++)
        set_rank(t, s, i, n);
    for (;;) {
        int best = -1, rank = INT_MAX;

        for (int i = 0; i + 1 < n; i++)
            if (s[i].rank < rank) {
                rank = s[i].rank;
                best = i;
            }
        if (best < 0)
            return n;
        s[best].id = s[best].result;
        n--;
        memmove(&s[best + 1], &s[best + 2], (size_t)(n - best - 1) * sizeof(*s));
        set_rank(t, s, best, n);
        set_rank(t, s, best - 1, n);
    }
}

/* One character: its piece, or its bytes' pieces. Returns how many symbols were written. */
static int put_character(const struct tokenizer *t, const char *character, size_t length, struct symbol *s)
{
    int id = tokenizer_id_n(t, character, length);

    if (id >= 0) {
        s->id = id;
        return 1;
    }
    for (size_t i = 0; i < length; i++)
        s[i].id = t->byte_id[(uint8_t)character[i]];
    return (int)length;
}

static int encode_fragment(const struct tokenizer *t, const char *text, size_t n, struct symbol *symbols)
{
    int count = 0;

    if (n == 0)
        return 0;
    count += put_character(t, WORD_MARK, strlen(WORD_MARK), symbols);
    for (size_t at = 0, length; at < n; at += length) {
        bool blank = text[at] == ' ';

        length = utf8_length(text + at, n - at);
        count += put_character(t, blank ? WORD_MARK : text + at, blank ? strlen(WORD_MARK) : length, symbols + count);
    }
    return merge_all(t, symbols, count);
}

/* The longest special token that begins at text[0]. */
static const struct special *special_at(const struct tokenizer *t, const char *text, size_t n)
{
    const struct special *best = NULL;

    for (int i = 0; i < t->n_specials; i++) {
        const struct special *s = &t->specials[i];

        if (s->length <= n && !memcmp(s->text, text, s->length) && (!best || s->length > best->length))
            best = s;
    }
    return best;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool bos, int32_t **ret_ids, int *ret_n)
{
    _cleanup_free_ struct symbol *symbols = NULL;
    _cleanup_free_ int32_t *ids = NULL;
    int count = 0;

    if (n > TOKENIZER_MAX_TEXT)
        return -E2BIG;
    if (!utf8_valid(text, n))
        return -EINVAL;
    symbols = calloc(3 * n + 3, sizeof(*symbols));      /* a blank without a piece of its own becomes three bytes */
    ids = calloc(6 * n + 4, sizeof(*ids));              /* each one-byte fragment has a mark of three in front */
    if (!symbols || !ids)
        return -ENOMEM;
    if (bos)
        ids[count++] = t->bos;
    for (size_t begin = 0, end = 0; begin < n; begin = end) {
        const struct special *special = NULL;
        int m;

        while (end < n && !(special = special_at(t, text + end, n - end)))
            end++;
        m = encode_fragment(t, text + begin, end - begin, symbols);
        for (int i = 0; i < m; i++)
            ids[count++] = symbols[i].id;
        if (special) {
            ids[count++] = special->id;
            end += special->length;
        }
    }
    *ret_ids = TAKE_PTR(ids);
    *ret_n = count;
    return 0;
}

/* Bytes that spell UTF-8 as a whole are that text, otherwise each byte is one replacement character. */
static void flush_bytes(struct strbuf *out, struct strbuf *bytes)
{
    if (utf8_valid(bytes->text, bytes->length))
        strbuf_add(out, bytes->text, bytes->length);
    else
        for (size_t i = 0; i < bytes->length; i++)
            strbuf_adds(out, "\xef\xbf\xbd");
    strbuf_reset(bytes);
}

static void put_piece(struct strbuf *out, const char *piece)
{
    while (*piece) {
        bool mark = !strncmp(piece, WORD_MARK, strlen(WORD_MARK));

        strbuf_addc(out, mark ? ' ' : *piece);
        piece += mark ? strlen(WORD_MARK) : 1;
    }
}

static bool is_hidden(const struct tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->n_specials; i++)
        if (t->specials[i].id == id && t->specials[i].hidden)
            return true;
    return false;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int n, bool skip_special, char **ret_text, size_t *ret_n)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT, bytes = STRBUF_INIT;
    char *text;
    size_t length;

    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->n_ids || !t->text[ids[i]] || (skip_special && is_hidden(t, ids[i])))
            continue;
        if (t->byte_of[ids[i]] >= 0) {
            strbuf_addc(&bytes, (char)t->byte_of[ids[i]]);
            continue;
        }
        flush_bytes(&out, &bytes);
        put_piece(&out, t->text[ids[i]]);
    }
    flush_bytes(&out, &bytes);
    if (out.failed || bytes.failed)
        return -ENOMEM;
    length = out.length;
    text = length ? strbuf_detach(&out) : strdup("");
    if (!text)
        return -ENOMEM;
    if (length && text[0] == ' ')
        memmove(text, text + 1, length--);
    *ret_text = text;
    *ret_n = length;
    return 0;
}
