/* unicode_lower.c - small letters, as Python's str.lower() makes them. */
#include <errno.h>

#include "nn/unicode.h"

struct lower_run { uint32_t first, last; int32_t distance; uint32_t stride; };
#include "nn/unicode_lower_table.inc"

enum { CAPITAL_I_DOT = 0x130, CAPITAL_SIGMA = 0x3a3, SMALL_SIGMA = 0x3c3, FINAL_SIGMA = 0x3c2, DOT_ABOVE = 0x307 };

static uint32_t lower(uint32_t c)
{
    size_t low = 0, high = ARRAY_SIZE(lower_table);

    while (low < high) {
        const struct lower_run *run = &lower_table[(low + high) / 2];

        if (c < run->first)
            high = (low + high) / 2;
        else if (c > run->last)
            low = (low + high) / 2 + 1;
        else
            return (c - run->first) % run->stride ? c : (uint32_t)((int32_t)c + run->distance);
    }
    return c;
}

static bool is_in(const uint32_t (*table)[2], size_t n, uint32_t c)
{
    size_t low = 0;

    while (low < n) {
        size_t middle = (low + n) / 2;

        if (c < table[middle][0])
            n = middle;
        else if (c > table[middle][1])
            low = middle + 1;
        else
            return true;
    }
    return false;
}

/* Is the next character in that direction a letter with a case, whatever is passed over on the way? */
static bool meets_case(const char *text, size_t n, size_t at, bool forward)
{
    size_t length;
    uint32_t c;

    for (;;) {
        if (forward ? at >= n : at == 0)
            return false;
        while (!forward && ((uint8_t)text[--at] & 0xc0) == 0x80)
            ;
        c = utf8_read(text + at, &length);
        at += forward ? length : 0;
        if (!is_in(passed_table, ARRAY_SIZE(passed_table), c))
            return is_in(cased_table, ARRAY_SIZE(cased_table), c);
    }
}

int unicode_lower(const char *text, size_t n, struct strbuf *out)
{
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t c = utf8_read(text + at, &length);

        if (c == CAPITAL_SIGMA)
            utf8_write(out, meets_case(text, n, at, false) && !meets_case(text, n, at + length, true) ? FINAL_SIGMA
                                                                                                      : SMALL_SIGMA);
        else if (c == CAPITAL_I_DOT)
            utf8_write(out, 'i'), utf8_write(out, DOT_ABOVE);
        else
            utf8_write(out, lower(c));
    }
    return out->failed ? -ENOMEM : 0;
}
