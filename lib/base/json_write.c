#include "base/json_write.h"

#include <inttypes.h>
#include <math.h>

/* Bytes of the character at s; 0: it is none (Unicode 15, table 3-7). */
static size_t utf8_length(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80, high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;

    for (size_t i = 1; i < n; i++) {
        if (s[i] < low || s[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

static void add_escaped(struct strbuf *out, const char *text)
{
    size_t n;

    strbuf_addc(out, '"');
    for (; *text; text += MAX(n, (size_t)1)) {
        unsigned char c = (unsigned char)*text;

        n = utf8_length((const unsigned char *)text);
        if (c == '"' || c == '\\')
            strbuf_addf(out, "\\%c", c);
        else if (c == '\n')
            strbuf_adds(out, "\\n");
        else if (c < 0x20)
            strbuf_addf(out, "\\u%04x", c);
        else if (n)
            strbuf_add(out, text, n);
        else
            strbuf_adds(out, "\\ufffd");
    }
    strbuf_addc(out, '"');
}

static void begin(struct json_writer *w, const char *key)
{
    if (w->need_comma)
        strbuf_addc(w->out, ',');
    if (key) {
        add_escaped(w->out, key);
        strbuf_addc(w->out, ':');
    }
    w->need_comma = true;
}

void json_open(struct json_writer *w, const char *key, char bracket)
{
    begin(w, key);
    strbuf_addc(w->out, bracket);
    w->need_comma = false;
}

void json_close(struct json_writer *w, char bracket)
{
    strbuf_addc(w->out, bracket);
    w->need_comma = true;
}

void json_text(struct json_writer *w, const char *key, const char *value)
{
    begin(w, key);
    if (value)
        add_escaped(w->out, value);
    else
        strbuf_adds(w->out, "null");
}

void json_number(struct json_writer *w, const char *key, double value)
{
    begin(w, key);
    if (isfinite(value))
        strbuf_addf(w->out, "%.9g", value == 0 ? 0 : value);       /* -0 is 0, too */
    else
        strbuf_adds(w->out, "null");
}

void json_signed(struct json_writer *w, const char *key, int64_t value)
{
    begin(w, key);
    strbuf_addf(w->out, "%" PRId64, value);
}

void json_unsigned(struct json_writer *w, const char *key, uint64_t value)
{
    begin(w, key);
    strbuf_addf(w->out, "%" PRIu64, value);
}

void json_bool(struct json_writer *w, const char *key, bool value)
{
    begin(w, key);
    strbuf_adds(w->out, value ? "true" : "false");
}

void json_raw(struct json_writer *w, const char *key, const char *json)
{
    begin(w, key);
    strbuf_adds(w->out, json);
}

void json_interval(struct json_writer *w, const char *key, double low, double high)
{
    json_open(w, key, '[');
    json_number(w, NULL, low);
    json_number(w, NULL, high);
    json_close(w, ']');
}
