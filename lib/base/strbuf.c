#include "base/strbuf.h"

char strbuf_empty[1];

void strbuf_init(struct strbuf *s)
{
    *s = (struct strbuf) STRBUF_INIT;
}

void strbuf_release(struct strbuf *s)
{
    if (s->capacity)
        free(s->text);
    strbuf_init(s);
}

void strbuf_reset(struct strbuf *s)
{
    s->length = 0;
    s->failed = false;
    if (s->capacity)
        s->text[0] = '\0';
}

static bool strbuf_grow(struct strbuf *s, size_t extra)
{
    size_t need, capacity = s->capacity ? s->capacity : 64;
    char *text;

    if (s->failed)
        return false;
    if (__builtin_add_overflow(s->length, extra, &need) || ++need == 0) {
        s->failed = true;
        return false;
    }
    if (need <= s->capacity)
        return true;
    while (capacity < need)
        capacity *= 2;
    text = realloc(s->capacity ? s->text : NULL, capacity);
    if (!text) {
        s->failed = true;
        return false;
    }
    s->text = text;
    s->capacity = capacity;
    return true;
}

void strbuf_add(struct strbuf *s, const void *bytes, size_t n)
{
    if (!strbuf_grow(s, n))
        return;
    if (n)
        memcpy(s->text + s->length, bytes, n);
    s->length += n;
    s->text[s->length] = '\0';
}

void strbuf_adds(struct strbuf *s, const char *text)
{
    strbuf_add(s, text, strlen(text));
}

void strbuf_addc(struct strbuf *s, char c)
{
    strbuf_add(s, &c, 1);
}

void strbuf_vaddf(struct strbuf *s, const char *format, va_list args)
{
    va_list copy;
    int n;

    va_copy(copy, args);
    n = vsnprintf(NULL, 0, format, copy);
    va_end(copy);
    if (n < 0 || !strbuf_grow(s, (size_t)n)) {
        s->failed = true;
        return;
    }
    vsnprintf(s->text + s->length, (size_t)n + 1, format, args);
    s->length += (size_t)n;
}

void strbuf_addf(struct strbuf *s, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    strbuf_vaddf(s, format, args);
    va_end(args);
}

char *strbuf_detach(struct strbuf *s)
{
    char *text;

    if (!s->capacity)
        strbuf_grow(s, 0);
    if (s->failed) {
        strbuf_release(s);
        return NULL;
    }
    text = s->text;
    text[s->length] = '\0';
    strbuf_init(s);
    return text;
}

char *text_copy(const void *bytes, size_t n)
{
    char *text = malloc(n + 1);

    if (!text)
        return NULL;
    memcpy(text, bytes, n);
    text[n] = '\0';
    return text;
}
