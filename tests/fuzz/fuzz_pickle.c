/* A pickle from anyone: nothing but values comes out, all of them readable, never deeper than promised. */
#include "base/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static int allow(const char *module, const char *name)
{
    return module[0] == 'o' || name[0] == 'o' ? -1 : 3;
}

static unsigned long walk(const struct pickle_value *value, int depth, unsigned long *budget)
{
    unsigned long sum = value->kind;

    if (depth > PICKLE_MAX_DEPTH)
        abort();
    if ((*budget)-- == 1)
        return sum;
    if (value->kind == PICKLE_TEXT || value->kind == PICKLE_BYTES)
        for (size_t i = 0; i < value->text.length; i++)
            sum += (unsigned char)value->text.bytes[i];
    for (size_t i = 0; i < value->count && *budget; i++)
        sum += walk(value->items[i], depth + 1, budget);
    if (value->kind == PICKLE_CALL && *budget)
        sum += walk(value->call.arguments, depth + 1, budget);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static volatile unsigned long sink;
    struct pickle *pickle = NULL;
    unsigned long budget = 100000;
    struct error error = {0};
    uint8_t *decoded = NULL;
    size_t length;

    if (pickle_parse(bytes, n, "fuzz", allow, &pickle, &error) < 0) {
        if (!error.errnum)
            abort();            /* every refusal has its line */
        return 0;
    }
    sink += walk(pickle_root(pickle), 0, &budget);
    if (pickle_bytes(pickle_root(pickle), &decoded, &length) == 0)
        free(decoded);
    (void)pickle_get(pickle_root(pickle), "key");
    pickle_free(pickle);
    return 0;
}
