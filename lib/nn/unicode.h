/* unicode.h - UTF-8, canonical composition (NFC) and small letters, as text has them before a tokenizer cuts it.
 *
 * The version decides ids, so the tables are in the tree: letters and small letters are those of Unicode 14, as PCRE2 10.4x and the
 * tokenizers whose ids are reproduced have them; NFC knows the marks of Unicode 9, as those tokenizers' normalizer does.
 * Thread rule: any. */
#pragma once

#include <stdbool.h>

#include "base/strbuf.h"

/* Bytes of the UTF-8 character at text[0..n); 0 if it is malformed (overlong, surrogate, beyond U+10FFFF, cut off). */
size_t utf8_length(const char *text, size_t n);
bool utf8_valid(const char *text, size_t n);
/* Bytes of the malformed character at text[0..n), n > 0: the longest run that a well-formed one could begin with, at least 1. */
size_t utf8_broken(const char *text, size_t n);
/* The character at text[0..), which must be well-formed, and its bytes. */
uint32_t utf8_read(const char *text, size_t *ret_length);
void utf8_write(struct strbuf *out, uint32_t character);

/* Append the NFC form of text (well-formed UTF-8). -ENOMEM. */
int unicode_nfc(const char *text, size_t n, struct strbuf *out);

/* Append text (well-formed UTF-8) in small letters, as Python's str.lower() makes them, whatever the locale. -ENOMEM. */
int unicode_lower(const char *text, size_t n, struct strbuf *out);
