/* strbuf.h - a growing string. `text` is always NUL-terminated, also when empty.
 *
 *   _cleanup_(strbuf_release) struct strbuf s = STRBUF_INIT;
 *   strbuf_addf(&s, "%d", 7);
 *
 * Out of memory sets `failed`; later additions are ignored; check once at the end. */
#pragma once

#include <stdbool.h>
#include <stdarg.h>

#include "base/macro.h"

struct strbuf {
    char *text;         /* NUL-terminated; "" when nothing was added */
    size_t length;      /* without the NUL */
    size_t capacity;    /* 0: text is the shared empty string */
    bool failed;        /* an allocation failed: contents are incomplete */
};

extern char strbuf_empty[1];
#define STRBUF_INIT { .text = strbuf_empty }

void strbuf_init(struct strbuf *s);
void strbuf_release(struct strbuf *s);      /* frees the contents; usable again afterwards */
void strbuf_reset(struct strbuf *s);        /* empty, memory kept */
void strbuf_add(struct strbuf *s, const void *bytes, size_t n);
void strbuf_adds(struct strbuf *s, const char *text);
void strbuf_addc(struct strbuf *s, char c);
void strbuf_addf(struct strbuf *s, const char *format, ...) _printf_(2, 3);
void strbuf_vaddf(struct strbuf *s, const char *format, va_list args);
char *strbuf_detach(struct strbuf *s);      /* caller frees; NULL if an allocation failed */

/* n bytes, which need not end in a NUL (a part of a file), as a string. Caller frees; NULL: out of memory. */
char *text_copy(const void *bytes, size_t n);
