/* tokenizer.c - what the two forms have in common: special tokens are cut out, the rest is merged pair by pair. */
#include <errno.h>
#include <string.h>

#include "nn/tokenizer_internal.h"

int tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

int tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

/* NULL: they do not merge. Of equal pairs the first in the table is the file's last. */
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

static void set_rank(const struct tokenizer *t, struct symbol *s, int i, int n)
{
    const struct merge *m = i >= 0 && i + 1 < n ? find_merge(t, s[i].id, s[i + 1].id) : NULL;

    if (i >= 0) {
        s[i].rank = m ? m->rank : INT_MAX;
        s[i].result = m ? m->result : -1;
    }
}

int tokenizer_merge(const struct tokenizer *t, struct symbol *s, int n)
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
    if (bos && t->bos >= 0)
        ids[count++] = t->bos;
    for (size_t begin = 0, end = 0; begin < n; begin = end) {
        const struct special *special = NULL;
        int m;

        while (end < n && !(special = special_at(t, text + end, n - end)))
            end++;
        m = end > begin ? t->form->encode(t, text + begin, end - begin, symbols, ids + count) : 0;
        if (m < 0)
            return m;
        count += m;
        if (special) {
            ids[count++] = special->id;
            end += special->length;
        }
    }
    *ret_ids = TAKE_PTR(ids);
    *ret_n = count;
    return 0;
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
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    _cleanup_free_ int32_t *known = calloc((size_t)n + 1, sizeof(*known));
    int count = 0, r;
    size_t length;
    char *text;

    if (!known)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < t->n_ids && t->text[ids[i]] && !(skip_special && is_hidden(t, ids[i])))
            known[count++] = ids[i];
    r = t->form->decode(t, known, count, &out);
    if (r < 0 || out.failed)
        return r < 0 ? r : -ENOMEM;
    length = out.length;
    text = length ? strbuf_detach(&out) : strdup("");
    if (!text)
        return -ENOMEM;
    *ret_text = text;
    *ret_n = length;
    return 0;
}

struct tokenizer *tokenizer_ref(struct tokenizer *t)
{
    atomic_fetch_add(&t->owners, 1);
    return t;
}

struct tokenizer *tokenizer_free(struct tokenizer *t)
{
    if (!t || atomic_fetch_sub(&t->owners, 1) > 1)
        return NULL;
    for (int i = 0; i < t->n_ids; i++)
        free(t->text[i]);
    tokenizer_bytes_release(t);
    free(t->text);
    free(t->sorted);
    free(t->merges);
    free(t->specials);
    free(t->byte_of);
    free(t);
    return NULL;
}
