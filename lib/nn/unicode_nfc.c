/* unicode_nfc.c - canonical composition: take every character apart, order the marks, put together what composes
 * (The Unicode Standard, sections 3.11 and 3.12). */
#include <errno.h>
#include <string.h>

#include "nn/unicode.h"
#include "nn/unicode_nfc_table.inc"

enum { MAX_PARTS = 4 };      /* no character comes apart into more than four */
enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28 };
enum { N_COUNT = V_COUNT * T_COUNT, S_COUNT = L_COUNT * N_COUNT };     /* Hangul */

static uint8_t class_of(uint32_t c)
{
    size_t low = 0, high = ARRAY_SIZE(class_table);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (c < class_table[middle][0])
            high = middle;
        else if (c > class_table[middle][1])
            low = middle + 1;
        else
            return (uint8_t)class_table[middle][2];
    }
    return 0;
}

static const uint32_t *find_split(uint32_t c)
{
    size_t low = 0, high = ARRAY_SIZE(split_table);

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (c == split_table[middle][0])
            return split_table[middle];
        if (c < split_table[middle][0])
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Writes at most MAX_PARTS characters; returns how many. */
static size_t take_apart(uint32_t c, uint32_t *ret)
{
    const uint32_t *split;
    size_t n;

    if (c >= S_BASE && c < S_BASE + S_COUNT) {
        uint32_t s = c - S_BASE;

        ret[0] = L_BASE + s / N_COUNT;
        ret[1] = V_BASE + s % N_COUNT / T_COUNT;
        ret[2] = T_BASE + s % T_COUNT;
        return s % T_COUNT ? 3 : 2;
    }
    split = find_split(c);
    if (!split) {
        ret[0] = c;
        return 1;
    }
    n = take_apart(split[1], ret);              /* only the first part comes apart further */
    if (split[2])
        ret[n++] = split[2];
    return n;
}

/* 0: they do not compose. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    size_t low = 0, high = ARRAY_SIZE(join_table);

    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + S_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT)
        return a + (b - T_BASE);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const uint32_t *row = join_table[middle];

        if (a == row[0] && b == row[1])
            return row[2];
        if (a < row[0] || (a == row[0] && b < row[1]))
            high = middle;
        else
            low = middle + 1;
    }
    return 0;
}

/* Marks of each run in the order of their class; equal classes keep their order. */
static void order_marks(uint32_t *c, uint8_t *class, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        uint32_t mark = c[i];
        uint8_t k = class[i];
        size_t j = i;

        if (!k)
            continue;
        for (; j > 0 && class[j - 1] > k; j--) {
            c[j] = c[j - 1];
            class[j] = class[j - 1];
        }
        c[j] = mark;
        class[j] = k;
    }
}

/* In place; returns how many characters are left. */
static size_t put_together(uint32_t *c, const uint8_t *class, size_t n)
{
    size_t starter = SIZE_MAX, out = 0;
    int last = -1;              /* class of what stands between the starter and here; -1: nothing does */

    for (size_t i = 0; i < n; i++) {
        uint32_t joined = starter != SIZE_MAX && last < class[i] ? compose(c[starter], c[i]) : 0;

        if (joined) {
            c[starter] = joined;
            continue;
        }
        if (class[i] == 0) {
            starter = out;
            last = -1;
        } else {
            last = class[i];
        }
        c[out++] = c[i];
    }
    return out;
}

int unicode_nfc(const char *text, size_t n, struct strbuf *out)
{
    _cleanup_free_ uint32_t *c = NULL;
    _cleanup_free_ uint8_t *class = NULL;
    size_t plain = 0, count = 0;

    while (plain < n && (uint8_t)text[plain] < 0xcc)    /* all below U+0300 is in NFC and stays so */
        plain++;
    if (plain == n) {
        strbuf_add(out, text, n);
        return out->failed ? -ENOMEM : 0;
    }
    c = calloc(MAX_PARTS * n, sizeof(*c));
    class = calloc(MAX_PARTS * n, sizeof(*class));
    if (!c || !class)
        return -ENOMEM;
    for (size_t at = 0, length; at < n; at += length)
        count += take_apart(utf8_read(text + at, &length), c + count);
    for (size_t i = 0; i < count; i++)
        class[i] = class_of(c[i]);
    order_marks(c, class, count);
    count = put_together(c, class, count);
    for (size_t i = 0; i < count; i++)
        utf8_write(out, c[i]);
    return out->failed ? -ENOMEM : 0;
}
