#include "base/npy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"

enum { MAX_BYTES = 1 << 30 };

static int bad(const char *source, const char *what, struct error *error)
{
    return error_set(error, EINVAL, "%s: not an array that can be read: %s", source, what);
}

/* What stands behind 'key': in the header, a Python dict on one line. */
static const char *find_key(const char *header, const char *key)
{
    const char *at = strstr(header, key);

    if (!at)
        return NULL;
    at += strlen(key);
    while (*at == ' ' || *at == ':')
        at++;
    return at;
}

static int parse_shape(const char *source, const char *at, struct npy *array, struct error *error)
{
    if (!at || *at++ != '(')
        return bad(source, "a header without shape", error);
    array->count = 1;
    for (;;) {
        unsigned long long size;
        char *end;

        while (*at == ' ' || *at == ',')
            at++;
        if (*at == ')')
            return 0;
        if (*at < '0' || *at > '9' || array->dims == NPY_MAX_DIMS)
            return bad(source, "a shape of at most 8 whole numbers was expected", error);
        size = strtoull(at, &end, 10);
        at = end;
        if (size > MAX_BYTES || __builtin_mul_overflow(array->count, (size_t)size, &array->count) || array->count > MAX_BYTES)
            return bad(source, "too large", error);
        array->shape[array->dims++] = (size_t)size;
    }
}

static int parse_type(const char *source, const char *at, struct npy *array, struct error *error)
{
    char order, quote;
    int size;

    if (!at || sscanf(at, "%c%c%c%d", &quote, &order, &array->kind, &size) != 4 || quote != '\'')
        return bad(source, "a header without a plain type", error);
    if (order == '>' || !strchr("fiubU", array->kind) || size < 1 || size > 4096 ||
        (array->kind == 'f' && size != 4 && size != 8) ||
        (strchr("iub", array->kind) && size != 1 && size != 2 && size != 4 && size != 8))
        return bad(source, "little-endian f4, f8, integers, bools or text were expected", error);
    array->size = array->kind == 'U' ? 4 * size : size;
    return 0;
}

int npy_parse(const char *source, const uint8_t *bytes, size_t n, struct npy *ret, struct error *error)
{
    _cleanup_free_ char *header = NULL;
    struct npy array = {0};
    size_t length, start;
    const char *order;
    int r;

    if (n < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0 || bytes[6] < 1 || bytes[6] > 3)
        return bad(source, "it does not begin like one", error);
    start = bytes[6] == 1 ? 10 : 12;
    length = bytes[6] == 1 ? (size_t)bytes[8] | (size_t)bytes[9] << 8 :
             (size_t)bytes[8] | (size_t)bytes[9] << 8 | (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    if (length > n - start)
        return bad(source, "cut off", error);
    header = text_copy(bytes + start, length);
    if (!header)
        return error_set(error, ENOMEM, "%s: out of memory", source);
    r = parse_type(source, find_key(header, "'descr'"), &array, error);
    if (r == 0)
        r = parse_shape(source, find_key(header, "'shape'"), &array, error);
    if (r < 0)
        return r;
    order = find_key(header, "'fortran_order'");
    if (!order || strncmp(order, "False", 5) != 0)
        return bad(source, "C order was expected", error);
    if (array.count * (size_t)array.size != n - start - length)
        return bad(source, "its bytes do not fill its shape", error);
    array.elements = bytes + start + length;
    *ret = array;
    return 0;
}

int npy_read(const struct zip_archive *archive, const char *name, struct npy *ret, struct error *error)
{
    _cleanup_free_ void *memory = NULL;
    _cleanup_free_ char *entry = NULL, *source = NULL;
    const struct zip_entry *found;
    const uint8_t *bytes;
    size_t n;
    int r;

    if (asprintf(&entry, "%s.npy", name) < 0 || asprintf(&source, "%s: %s", archive->path, name) < 0)
        return error_set(error, ENOMEM, "%s: out of memory", archive->path);
    found = zip_find(archive, entry);
    if (!found)
        return error_set(error, ENOENT, "%s: there is no array '%s' in it", archive->path, name);
    r = zip_read(archive, found, MAX_BYTES, &bytes, &n, &memory, error);
    if (r == 0)
        r = npy_parse(source, bytes, n, ret, error);
    if (r == 0)
        ret->memory = TAKE_PTR(memory);
    return r;
}

void npy_release(struct npy *array)
{
    free(array->memory);
    *array = (struct npy) {0};
}

double npy_number(const struct npy *array, size_t i)
{
    uint64_t bits = 0;
    double number;
    float single;

    memcpy(&bits, array->elements + i * (size_t)array->size, (size_t)MIN(array->size, 8));
    memcpy(&single, &bits, sizeof(single));     /* little-endian, as all that it runs on */
    memcpy(&number, &bits, sizeof(number));
    if (array->kind == 'f')
        return array->size == 4 ? (double)single : number;
    if (array->kind == 'i' && array->size < 8 && bits >> (8 * array->size - 1))
        bits |= ~(uint64_t)0 << (8 * array->size);
    return array->kind == 'i' ? (double)(int64_t)bits : (double)bits;
}

int npy_text(const struct npy *array, size_t i, char *ret, size_t n)
{
    const uint8_t *at = array->elements + i * (size_t)array->size;
    size_t used = 0;

    for (int k = 0; k < array->size; k += 4) {
        uint32_t c = (uint32_t)at[k] | (uint32_t)at[k + 1] << 8 | (uint32_t)at[k + 2] << 16 | (uint32_t)at[k + 3] << 24;
        int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;

        if (!c)
            break;
        if (used + (size_t)more + 2 > n)
            return -ENAMETOOLONG;
        ret[used++] = (char)(more ? (0xffu << (7 - more) | c >> (6 * more)) : c);
        while (more-- > 0)
            ret[used++] = (char)(0x80 | (c >> (6 * more) & 0x3f));
    }
    ret[used] = '\0';
    return 0;
}

double *npy_doubles(const struct npy *array)
{
    double *all = array->kind == 'U' ? NULL : malloc(sizeof(*all) * (array->count ? array->count : 1));

    for (size_t i = 0; all && i < array->count; i++)
        all[i] = npy_number(array, i);
    return all;
}
