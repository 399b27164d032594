/* pickle_internal.h - the stack machine's state: pickle_stack.c pushes, pops and takes bytes, pickle_op.c does the opcodes,
 * pickle.c runs. */
#pragma once

#include "base/pickle.h"

enum { PICKLE_BLOCK = 256 };

struct pickle_block {
    struct pickle_block *next;
    size_t used;
    struct pickle_value values[PICKLE_BLOCK];
};

struct pickle {
    struct pickle_block *blocks;
    size_t n_values;
    struct pickle_value *root;
};

struct pickle_reader {
    const uint8_t *bytes;
    size_t n, at, op;           /* op: offset of the opcode at work */
    const char *source;
    pickle_allow *allow;
    struct pickle *pickle;
    struct pickle_value **stack, **memo;
    size_t depth, stack_room, memo_room, memo_next;
    size_t *marks, n_marks, marks_room;
    struct error *error;
};

/* pickle_stack.c. All: -errno with the line in p->error. */
int pickle_bad(struct pickle_reader *p, const char *what);
int pickle_no_memory(struct pickle_reader *p);
/* Room for one more element in an array that grows by doubling. */
int pickle_grow(void *array, size_t *room, size_t count, size_t element);
/* NULL: too many values, or out of memory. */
struct pickle_value *pickle_new(struct pickle_reader *p, enum pickle_kind kind);
int pickle_push(struct pickle_reader *p, struct pickle_value *value);
/* Values above the last mark; nothing below a mark can be popped. */
size_t pickle_available(const struct pickle_reader *p);
int pickle_pop(struct pickle_reader *p, struct pickle_value **ret);
int pickle_take(struct pickle_reader *p, uint64_t n, const uint8_t **ret);
int pickle_take_number(struct pickle_reader *p, int width, uint64_t *ret);
int pickle_add_item(struct pickle_reader *p, struct pickle_value *to, const struct pickle_value *item);

/* pickle_op.c: one opcode, its operands behind p->at. 1: STOP. */
int pickle_step(struct pickle_reader *p, uint8_t op);
