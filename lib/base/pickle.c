/* pickle.c - the stack machine of Python's pickletools, minus everything that acts.
 *
 * Values live in blocks until pickle_free; stack, marks and memo hold pointers to them. Lists and dicts are filled
 * in place, as Python does, so that a memoised container is one value; a cycle this could make is found at the end. */
#include "base/pickle_internal.h"

#include <errno.h>
#include <string.h>

/* Longest way down from `value`, or -EINVAL beyond PICKLE_MAX_DEPTH (which a cycle always is). Each value is
 * measured once; its height stands in `capacity`, which filling no longer needs. */
static int measure(const struct pickle_value *constant, int depth)
{
    struct pickle_value *value = (struct pickle_value *)(uintptr_t)constant;
    const struct pickle_value *inside[2] = { NULL, NULL };
    size_t height = 0;

    if (depth > PICKLE_MAX_DEPTH)
        return -EINVAL;
    if (value->capacity & ((size_t)1 << 63))
        return (int)(value->capacity & 0xffff) + depth > PICKLE_MAX_DEPTH ? -EINVAL : (int)(value->capacity & 0xffff);
    if (value->kind == PICKLE_CALL) {
        inside[0] = value->call.arguments;
        inside[1] = value->state;
    } else if (value->kind == PICKLE_PERSISTENT) {
        inside[0] = value->id;
    }
    for (size_t i = 0; i < value->count + 2; i++) {
        const struct pickle_value *child = i < value->count ? value->items[i] : inside[i - value->count];
        int h = child ? measure(child, depth + 1) : -1;

        if (child && h < 0)
            return -EINVAL;
        height = MAX(height, (size_t)(h + 1));
    }
    value->capacity = (size_t)1 << 63 | height;
    return (int)height;
}

static int run(struct pickle_reader *p)
{
    int r = 0;

    if (p->n < 2 || p->bytes[0] != 0x80)
        return error_set(p->error, EINVAL, "%s: not a pickle of protocol 2 to 5 (first byte 0x%02x, expected 0x80)", p->source,
                         p->n ? p->bytes[0] : 0);
    while (r == 0) {
        p->op = p->at;
        if (p->at == p->n)
            return error_set(p->error, EINVAL, "%s: offset %zu: the pickle ends without STOP", p->source, p->at);
        r = pickle_step(p, p->bytes[p->at++]);
    }
    if (r < 0)
        return r;
    if (p->depth != 1 || p->n_marks)
        return pickle_bad(p, "exactly one value must be left at the end");
    if (measure(p->stack[0], 0) < 0)
        return error_set(p->error, EINVAL, "%s: values nested more than %d deep (or inside themselves)", p->source,
                         PICKLE_MAX_DEPTH);
    p->pickle->root = p->stack[0];
    return 0;
}

int pickle_parse(const void *bytes, size_t n, const char *source, pickle_allow *allow, struct pickle **ret,
                 struct error *error)
{
    _cleanup_(pickle_freep) struct pickle *pickle = calloc(1, sizeof(*pickle));
    struct error own = {0};
    struct pickle_reader p = {
        .bytes = bytes, .n = n, .source = source, .allow = allow, .pickle = pickle, .error = &own};
    int r;

    if (!pickle)
        return error_set(error, ENOMEM, "%s: out of memory", source);
    r = run(&p);
    free(p.stack);
    free(p.memo);
    free(p.marks);
    if (r < 0) {
        if (error)
            *error = own;
        return r;
    }
    *ret = TAKE_PTR(pickle);
    return 0;
}

struct pickle *pickle_free(struct pickle *pickle)
{
    struct pickle_block *block, *next;

    if (!pickle)
        return NULL;
    for (block = pickle->blocks; block; block = next) {
        for (size_t i = 0; i < block->used; i++)
            free(block->values[i].items);
        next = block->next;
        free(block);
    }
    free(pickle);
    return NULL;
}

const struct pickle_value *pickle_root(const struct pickle *pickle)
{
    return pickle->root;
}
