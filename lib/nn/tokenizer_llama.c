/* tokenizer_llama.c - the Llama form: U+2581 + the text with blanks replaced, cut into characters (unknown ones into byte
 * pieces, which merge only if the file says so), then merged; and back. */
#include <errno.h>
#include <string.h>

#include "nn/tokenizer_internal.h"

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

static int encode(const struct tokenizer *t, const char *text, size_t n, struct symbol *symbols, int32_t *ids)
{
    int count = put_character(t, WORD_MARK, strlen(WORD_MARK), symbols);

    for (size_t at = 0, length; at < n; at += length) {
        bool blank = text[at] == ' ';

        length = utf8_length(text + at, n - at);
        count += put_character(t, blank ? WORD_MARK : text + at, blank ? strlen(WORD_MARK) : length, symbols + count);
    }
    count = tokenizer_merge(t, symbols, count);
    for (int i = 0; i < count; i++)
        ids[i] = symbols[i].id;
    return count;
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

static int decode(const struct tokenizer *t, const int32_t *ids, int n, struct strbuf *out)
{
    _cleanup_(strbuf_release) struct strbuf bytes = STRBUF_INIT;

    for (int i = 0; i < n; i++) {
        if (t->byte_of[ids[i]] >= 0) {
            strbuf_addc(&bytes, (char)t->byte_of[ids[i]]);
            continue;
        }
        flush_bytes(out, &bytes);
        put_piece(out, t->text[ids[i]]);
    }
    flush_bytes(out, &bytes);
    if (out->failed || bytes.failed)
        return -ENOMEM;
    if (out->length && out->text[0] == ' ')
        memmove(out->text, out->text + 1, out->length--);
    return 0;
}

const struct tokenizer_form tokenizer_llama = {.encode = encode, .decode = decode};
