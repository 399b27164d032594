#include "base/pickle_internal.h"

#include <errno.h>
#include <string.h>

int pickle_bad(struct pickle_reader *p, const char *what)
{
    unsigned op = p->op < p->n ? p->bytes[p->op] : 0;

    return error_set(p->error, EINVAL, "%s: offset %zu: opcode 0x%02x '%c': %s", p->source, p->op, op,
                     op > 32 && op < 127 ? (char)op : '?', what);
}

int pickle_no_memory(struct pickle_reader *p)
{
    return error_set(p->error, ENOMEM, "%s: out of memory", p->source);
}

int pickle_grow(void *array, size_t *room, size_t count, size_t element)
{
    void **pointer = array, *grown;
    size_t wanted = *room ? *room * 2 : 16;

    if (count < *room)
        return 0;
    grown = realloc(*pointer, wanted * element);
    if (!grown)
        return -ENOMEM;
    *pointer = grown;
    *room = wanted;
    return 0;
}

struct pickle_value *pickle_new(struct pickle_reader *p, enum pickle_kind kind)
{
    struct pickle_block *block = p->pickle->blocks;
    struct pickle_value *value;

    if (p->pickle->n_values >= PICKLE_MAX_VALUES) {
        pickle_bad(p, "more than 1048576 values");
        return NULL;
    }
    if (!block || block->used == PICKLE_BLOCK) {
        block = calloc(1, sizeof(*block));
        if (!block) {
            pickle_no_memory(p);
            return NULL;
        }
        block->next = p->pickle->blocks;
        p->pickle->blocks = block;
    }
    p->pickle->n_values++;
    value = &block->values[block->used++];
    value->kind = kind;
    value->offset = p->op;
    return value;
}

int pickle_push(struct pickle_reader *p, struct pickle_value *value)
{
    if (!value)
        return p->error && p->error->errnum ? -p->error->errnum : -EINVAL;
    if (pickle_grow(&p->stack, &p->stack_room, p->depth, sizeof(*p->stack)) < 0)
        return pickle_no_memory(p);
    p->stack[p->depth++] = value;
    return 0;
}

size_t pickle_available(const struct pickle_reader *p)
{
    return p->depth - (p->n_marks ? p->marks[p->n_marks - 1] : 0);
}

int pickle_pop(struct pickle_reader *p, struct pickle_value **ret)
{
    if (pickle_available(p) == 0)
        return pickle_bad(p, "the stack is empty");
    *ret = p->stack[--p->depth];
    return 0;
}

int pickle_take(struct pickle_reader *p, uint64_t n, const uint8_t **ret)
{
    if (n > p->n - p->at)
        return pickle_bad(p, "the file ends inside it");
    *ret = p->bytes + p->at;
    p->at += n;
    return 0;
}

int pickle_take_number(struct pickle_reader *p, int width, uint64_t *ret)
{
    const uint8_t *at = NULL;
    uint64_t value = 0;
    int r = pickle_take(p, (uint64_t)width, &at);

    if (r < 0)
        return r;
    while (width-- > 0)
        value = value << 8 | at[width];
    *ret = value;
    return 0;
}

int pickle_add_item(struct pickle_reader *p, struct pickle_value *to, const struct pickle_value *item)
{
    if (pickle_grow(&to->items, &to->capacity, to->count, sizeof(*to->items)) < 0)
        return pickle_no_memory(p);
    to->items[to->count++] = item;
    return 0;
}
