/* pickle_value.c - what callers ask of a value. */
#include "base/pickle.h"

#include <errno.h>
#include <string.h>

bool pickle_is_text(const struct pickle_value *value, const char *text)
{
    return value->kind == PICKLE_TEXT && value->text.length == strlen(text) &&
           memcmp(value->text.bytes, text, value->text.length) == 0;
}

const struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key)
{
    if (dict->kind != PICKLE_DICT && dict->kind != PICKLE_CALL)
        return NULL;
    for (size_t i = dict->count & ~(size_t)1; i >= 2; i -= 2)       /* a repeated key: the last one counts */
        if (pickle_is_text(dict->items[i - 2], key))
            return dict->items[i - 1];
    return NULL;
}

/* UTF-8 of code points 0..255 back to bytes; the text was checked at parse. */
static int latin1(const char *text, size_t n, uint8_t *out, size_t *ret_n)
{
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)text[i];

        if (c >= 0x80) {
            if (c > 0xc3)
                return -EINVAL;
            c = (uint8_t)(c << 6 | ((uint8_t)text[++i] & 0x3f));
        }
        out[used++] = c;
    }
    *ret_n = used;
    return 0;
}

int pickle_bytes(const struct pickle_value *value, uint8_t **ret, size_t *ret_n)
{
    _cleanup_free_ uint8_t *out = NULL;
    const struct pickle_value *from = value;
    size_t n;

    if (value->kind == PICKLE_CALL) {
        const struct pickle_value *callable = value->call.callable, *arguments = value->call.arguments;

        if (callable->global.module_length != 7 || memcmp(callable->global.module, "_codecs", 7) != 0 ||
            callable->global.name_length != 6 || memcmp(callable->global.name, "encode", 6) != 0 ||
            arguments->count != 2 || arguments->items[0]->kind != PICKLE_TEXT || !pickle_is_text(arguments->items[1], "latin1"))
            return -EINVAL;
        from = arguments->items[0];
    } else if (value->kind != PICKLE_BYTES) {
        return -EINVAL;
    }
    n = from->text.length;
    out = malloc(n ? n : 1);
    if (!out)
        return -ENOMEM;
    if (value->kind == PICKLE_BYTES)
        memcpy(out, from->text.bytes, n);
    else if (latin1(from->text.bytes, n, out, &n) < 0)
        return -EINVAL;
    *ret = TAKE_PTR(out);
    *ret_n = n;
    return 0;
}
