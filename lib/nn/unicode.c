/* unicode.c - UTF-8, one character at a time. */
#include "nn/unicode.h"

static size_t announced(uint8_t first)
{
    return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

/* Can `second` follow `first`? Keeps out overlong forms, surrogates and what lies beyond U+10FFFF. */
static bool may_follow(uint8_t first, uint8_t second)
{
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80, high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

    return second >= low && second <= high;
}

size_t utf8_broken(const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t length = announced(s[0]), i = 1;

    if (i < MIN(length, n) && may_follow(s[0], s[1]))
        for (i = 2; i < MIN(length, n) && (s[i] & 0xc0) == 0x80; i++)
            ;
    return i;
}

size_t utf8_length(const char *text, size_t n)
{
    size_t length = n ? announced((uint8_t)text[0]) : 0;

    return length && length <= n && (length == 1 || utf8_broken(text, n) == length) ? length : 0;
}

bool utf8_valid(const char *text, size_t n)
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

uint32_t utf8_read(const char *text, size_t *ret_length)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t length = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint32_t c = length == 1 ? s[0] : s[0] & (0x7fu >> length);

    for (size_t i = 1; i < length; i++)
        c = c << 6 | (s[i] & 0x3f);
    *ret_length = length;
    return c;
}

void utf8_write(struct strbuf *out, uint32_t c)
{
    if (c < 0x80) {
        strbuf_addc(out, (char)c);
        return;
    }
    if (c < 0x800) {
        strbuf_addc(out, (char)(0xc0 | c >> 6));
    } else {
        if (c < 0x10000) {
            strbuf_addc(out, (char)(0xe0 | c >> 12));
        } else {
            strbuf_addc(out, (char)(0xf0 | c >> 18));
            strbuf_addc(out, (char)(0x80 | (c >> 12 & 0x3f)));
        }
        strbuf_addc(out, (char)(0x80 | (c >> 6 & 0x3f)));
    }
    strbuf_addc(out, (char)(0x80 | (c & 0x3f)));
}
