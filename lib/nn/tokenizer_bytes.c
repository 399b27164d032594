/* tokenizer_bytes.c - the Qwen form: NFC, the split pattern, then every byte of a piece is a character of the vocabulary's
 * alphabet (printable ones stand for themselves, the others for U+0100 and up, as GPT-2 has it) and pairs merge within the piece.
 */
#include <errno.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "nn/tokenizer_internal.h"

/* What tokenizer.json says, and the same for PCRE2. Only \s differs: there it would take U+180E too, which is no white space. */
static const char qwen_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                                   "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
#define SPACE "\\x{9}-\\x{d}\\x{85}\\p{Z}"
static const char pcre2_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" SPACE
                                    "\\p{L}\\p{N}]+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+";

static bool stands_for_itself(int byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The character of each byte. */
static void alphabet(uint32_t ret[256])
{
    uint32_t next = 0x100;

    for (int byte = 0; byte < 256; byte++)
        ret[byte] = stands_for_itself(byte) ? (uint32_t)byte : next++;
}

int tokenizer_bytes_init(struct tokenizer *t, const char *pattern, struct error *error)
{
    uint32_t characters[256];
    int code;
    PCRE2_SIZE at;

    if (strcmp(pattern, qwen_pattern))
        return error_set(error, ENOTSUP, "the split pattern is not Qwen2's: %.80s", pattern);
    alphabet(characters);
    for (int byte = 0; byte < 256; byte++) {
        _cleanup_(strbuf_release) struct strbuf name = STRBUF_INIT;

        utf8_write(&name, characters[byte]);
        t->byte_id[byte] = tokenizer_id_n(t, name.text, name.length);
        if (t->byte_id[byte] < 0)
            return error_set(error, EINVAL, "byte-level BPE needs a piece for every byte; that of byte %d ('%s') is missing",
                             byte, name.text);
    }
    t->split = pcre2_compile((PCRE2_SPTR)pcre2_pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
    return t->split
               ? 0
               : error_set(error, ENOTSUP, "this PCRE2 cannot compile the split pattern (error %d at %zu)", code, (size_t)at);
}

void tokenizer_bytes_release(struct tokenizer *t)
{
    pcre2_code_free(t->split);
}

static void free_match(pcre2_match_data **match)
{
    pcre2_match_data_free(*match);
}

static int encode(const struct tokenizer *t, const char *text, size_t n, struct symbol *symbols, int32_t *ids)
{
    _cleanup_(strbuf_release) struct strbuf nfc = STRBUF_INIT;
    _cleanup_(free_match) pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    int count = 0, r = match ? unicode_nfc(text, n, &nfc) : -ENOMEM;

    if (r < 0)
        return r;
    for (size_t begin = 0, end; begin < nfc.length; begin = end) {
        int m = 0;

        r = pcre2_match(t->split, (PCRE2_SPTR)nfc.text, nfc.length, begin, PCRE2_NO_UTF_CHECK, match, NULL);
        if (r < 0 && r != PCRE2_ERROR_NOMATCH)
            return r == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -EINVAL;
        /* The pattern's alternatives take every character, one after the other. */
        end = r < 0 ? nfc.length : pcre2_get_ovector_pointer(match)[1];
        for (size_t i = begin; i < end; i++)
            symbols[m++].id = t->byte_id[(uint8_t)nfc.text[i]];
        m = tokenizer_merge(t, symbols, m);
        for (int i = 0; i < m; i++)
            ids[count++] = symbols[i].id;
    }
    return count;
}

/* Bytes that are no UTF-8 become U+FFFD, one for each longest run that could have begun a character. */
static void add_lossy(struct strbuf *out, const char *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t length = utf8_length(bytes + at, n - at);

        if (length) {
            strbuf_add(out, bytes + at, length);
            at += length;
            continue;
        }
        strbuf_adds(out, "\xef\xbf\xbd");
        at += utf8_broken(bytes + at, n - at);
    }
}

/* The bytes that a piece's characters stand for; a piece with other characters (an added token's) is its own text. */
static void add_piece(struct strbuf *out, const char *piece)
{
    size_t before = out->length, length;

    for (const char *p = piece; *p; p += length) {
        uint32_t c = utf8_read(p, &length);
        int byte = c < 0x100 ? stands_for_itself((int)c) ? (int)c : -1 : -1;

        for (int b = 0, next = 0x100; c >= 0x100 && b < 256 && byte < 0; b++)
            if (!stands_for_itself(b) && (uint32_t)next++ == c)
                byte = b;
        if (byte < 0) {
            out->length = before;
            strbuf_adds(out, piece);
            return;
        }
        strbuf_addc(out, (char)byte);
    }
}

static int decode(const struct tokenizer *t, const int32_t *ids, int n, struct strbuf *out)
{
    _cleanup_(strbuf_release) struct strbuf bytes = STRBUF_INIT;

    for (int i = 0; i < n; i++)
        add_piece(&bytes, t->text[ids[i]]);
    if (bytes.failed)
        return -ENOMEM;
    add_lossy(out, bytes.text, bytes.length);
    return 0;
}

const struct tokenizer_form tokenizer_bytes = {.encode = encode, .decode = decode};
