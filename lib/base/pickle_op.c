/* pickle_op.c - the opcodes of Python's pickletools, minus everything that acts. */
#include "base/pickle_internal.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { MAX_GLOBAL = 200 };

/* Strict UTF-8 (Unicode 15, table 3-7), except that surrogates pass: Python writes them with "surrogatepass". */
static bool is_utf8(const uint8_t *s, size_t n)
{
    size_t i = 0, more;

    while (i < n) {
        uint8_t c = s[i++];
        uint32_t point;

        if (c < 0x80)
            continue;
        if (c < 0xc2 || c > 0xf4)
            return false;
        more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        point = c & (0x3fu >> more);
        if (more > n - i)
            return false;
        for (size_t k = 0; k < more; k++, i++) {
            if ((s[i] & 0xc0) != 0x80)
                return false;
            point = point << 6 | (s[i] & 0x3f);
        }
        if ((more == 2 && point < 0x800) || (more == 3 && (point < 0x10000 || point > 0x10ffff)))
            return false;
    }
    return true;
}

/* ---- one function per group of opcodes ------------------------------------------------------------------- */

static int op_string(struct pickle_reader *p, enum pickle_kind kind, int width)
{
    struct pickle_value *value;
    const uint8_t *bytes = NULL;
    uint64_t length = 0;
    int r = pickle_take_number(p, width, &length);

    if (r == 0)
        r = pickle_take(p, length, &bytes);
    if (r < 0)
        return r;
    if (kind == PICKLE_TEXT && !is_utf8(bytes, length))
        return pickle_bad(p, "text that is not UTF-8");
    value = pickle_new(p, kind);
    if (value) {
        value->text.bytes = (const char *)bytes;
        value->text.length = length;
    }
    return pickle_push(p, value);
}

static int op_integer(struct pickle_reader *p, int width)
{
    struct pickle_value *value;
    uint64_t number = 0;
    int r = pickle_take_number(p, width, &number);

    if (r < 0)
        return r;
    value = pickle_new(p, PICKLE_INT);
    if (value)
        value->integer = width == 4 ? (int32_t)(uint32_t)number : (int64_t)number;      /* only BININT has a sign */
    return pickle_push(p, value);
}

/* Two's complement of any length; longer than 64 bits is refused. */
static int op_long(struct pickle_reader *p)
{
    struct pickle_value *value;
    const uint8_t *at = NULL;
    uint64_t length, number = 0;
    int r = pickle_take_number(p, 1, &length);

    if (r < 0)
        return r;
    if (length > 8)
        return pickle_bad(p, "an integer of more than 64 bits");
    r = pickle_take(p, length, &at);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < length; i++)
        number |= (uint64_t)at[i] << (8 * i);
    if (length && length < 8 && at[length - 1] & 0x80)
        number |= ~(uint64_t)0 << (8 * length);
    value = pickle_new(p, PICKLE_INT);
    if (value)
        value->integer = (int64_t)number;
    return pickle_push(p, value);
}

static int op_float(struct pickle_reader *p)
{
    struct pickle_value *value;
    const uint8_t *at = NULL;
    uint64_t bits = 0;
    int r = pickle_take(p, 8, &at);

    if (r < 0)
        return r;
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | at[i];
    value = pickle_new(p, PICKLE_FLOAT);
    if (value)
        memcpy(&value->real, &bits, sizeof(bits));
    return pickle_push(p, value);
}

static int op_bool(struct pickle_reader *p, bool boolean)
{
    struct pickle_value *value = pickle_new(p, PICKLE_BOOL);

    if (value)
        value->boolean = boolean;
    return pickle_push(p, value);
}

/* A container of the n topmost values. */
static int collect(struct pickle_reader *p, enum pickle_kind kind, size_t n)
{
    struct pickle_value *value;
    int r = 0;

    if (n > pickle_available(p))
        return pickle_bad(p, "the stack is empty");
    value = pickle_new(p, kind);
    if (!value)
        return pickle_push(p, NULL);
    for (size_t i = 0; i < n && r == 0; i++)
        r = pickle_add_item(p, value, p->stack[p->depth - n + i]);
    if (r < 0)
        return r;
    p->depth -= n;
    return pickle_push(p, value);
}

/* Drop the last mark. *ret: how many values lie above where it was. */
static int pop_mark(struct pickle_reader *p, size_t *ret)
{
    if (!p->n_marks)
        return pickle_bad(p, "there is no mark");
    *ret = pickle_available(p);
    p->n_marks--;
    return 0;
}

static int op_collect_marked(struct pickle_reader *p, enum pickle_kind kind)
{
    size_t n = 0;
    int r = pop_mark(p, &n);

    if (r < 0)
        return r;
    if (kind == PICKLE_DICT && n % 2)
        return pickle_bad(p, "a key without its value");
    return collect(p, kind, n);
}

/* The n topmost values go into the container below them. */
static int fill(struct pickle_reader *p, size_t n, enum pickle_kind kind)
{
    struct pickle_value *to;
    int r = 0;

    if (n >= pickle_available(p))
        return pickle_bad(p, "the stack is empty");
    to = p->stack[p->depth - n - 1];
    if (to->kind != kind && to->kind != PICKLE_CALL)
        return pickle_bad(p, kind == PICKLE_DICT ? "what it fills is no dict" :
                             kind == PICKLE_SET ? "what it fills is no set" : "what it fills is no list");
    if (kind == PICKLE_DICT && n % 2)
        return pickle_bad(p, "a key without its value");
    for (size_t i = 0; i < n && r == 0; i++)
        r = pickle_add_item(p, to, p->stack[p->depth - n + i]);
    p->depth -= n;
    return r;
}

static int op_fill_marked(struct pickle_reader *p, enum pickle_kind kind)
{
    size_t n = 0;
    int r = pop_mark(p, &n);

    return r < 0 ? r : fill(p, n, kind);
}

static int put_global(struct pickle_reader *p, const char *module, size_t module_length, const char *name, size_t name_length)
{
    char module_z[MAX_GLOBAL + 1], name_z[MAX_GLOBAL + 1];
    struct pickle_value *value;
    int tag;

    if (module_length > MAX_GLOBAL || name_length > MAX_GLOBAL)
        return pickle_bad(p, "a global's name of more than 200 bytes");
    for (size_t i = 0; i < module_length + name_length; i++) {
        char c = i < module_length ? module[i] : name[i - module_length];

        if (c < 33 || c > 126)
            return pickle_bad(p, "a global's name with an odd character");
    }
    memcpy(module_z, module, module_length);
    memcpy(name_z, name, name_length);
    module_z[module_length] = name_z[name_length] = '\0';
    tag = p->allow ? p->allow(module_z, name_z) : -EPERM;
    if (tag < 0)
        return error_set(p->error, EPERM, "%s: offset %zu: the pickle asks for %s.%s, which is not on the list of allowed names; "
                         "nothing was run", p->source, p->op, module_z, name_z);
    value = pickle_new(p, PICKLE_GLOBAL);
    if (value) {
        value->tag = tag;
        value->global.module = module;
        value->global.module_length = module_length;
        value->global.name = name;
        value->global.name_length = name_length;
    }
    return pickle_push(p, value);
}

static int take_line(struct pickle_reader *p, const char **ret, size_t *ret_length)
{
    const uint8_t *start = p->bytes + p->at, *end = memchr(start, '\n', p->n - p->at);

    if (!end)
        return pickle_bad(p, "a name without its end of line");
    *ret = (const char *)start;
    *ret_length = (size_t)(end - start);
    p->at += *ret_length + 1;
    return 0;
}

static int op_global(struct pickle_reader *p)
{
    const char *module = NULL, *name = NULL;
    size_t module_length = 0, name_length = 0;
    int r = take_line(p, &module, &module_length);

    if (r == 0)
        r = take_line(p, &name, &name_length);
    return r < 0 ? r : put_global(p, module, module_length, name, name_length);
}

static int op_stack_global(struct pickle_reader *p)
{
    struct pickle_value *module = NULL, *name;
    int r = pickle_pop(p, &name);

    if (r == 0)
        r = pickle_pop(p, &module);
    if (r < 0)
        return r;
    if (module->kind != PICKLE_TEXT || name->kind != PICKLE_TEXT)
        return pickle_bad(p, "module and name must be text");
    return put_global(p, module->text.bytes, module->text.length, name->text.bytes, name->text.length);
}

static int op_call(struct pickle_reader *p)
{
    struct pickle_value *callable = NULL, *arguments, *value;
    int r = pickle_pop(p, &arguments);

    if (r == 0)
        r = pickle_pop(p, &callable);
    if (r < 0)
        return r;
    if (callable->kind != PICKLE_GLOBAL || arguments->kind != PICKLE_TUPLE)
        return pickle_bad(p, "expected a global and a tuple of arguments");
    value = pickle_new(p, PICKLE_CALL);
    if (value) {
        value->tag = callable->tag;
        value->call.callable = callable;
        value->call.arguments = arguments;
    }
    return pickle_push(p, value);
}

static int op_build(struct pickle_reader *p)
{
    struct pickle_value *state;
    int r = pickle_pop(p, &state);

    if (r < 0)
        return r;
    if (pickle_available(p) == 0 || p->stack[p->depth - 1]->kind != PICKLE_CALL)
        return pickle_bad(p, "state for something that is no object");
    if (p->stack[p->depth - 1]->state)
        return pickle_bad(p, "an object with two states");
    p->stack[p->depth - 1]->state = state;
    return 0;
}

static int op_persistent(struct pickle_reader *p)
{
    struct pickle_value *id, *value;
    int r = pickle_pop(p, &id);

    if (r < 0)
        return r;
    value = pickle_new(p, PICKLE_PERSISTENT);
    if (value)
        value->id = id;
    return pickle_push(p, value);
}

static int put_memo(struct pickle_reader *p, uint64_t index)
{
    if (pickle_available(p) == 0)
        return pickle_bad(p, "the stack is empty");
    if (index >= PICKLE_MAX_VALUES)
        return pickle_bad(p, "a memo index above 1048575");
    while (index >= p->memo_room) {
        size_t old = p->memo_room;

        if (pickle_grow(&p->memo, &p->memo_room, old, sizeof(*p->memo)) < 0)
            return pickle_no_memory(p);
        memset(p->memo + old, 0, (p->memo_room - old) * sizeof(*p->memo));
    }
    p->memo[index] = p->stack[p->depth - 1];
    p->memo_next++;
    return 0;
}

static int op_put(struct pickle_reader *p, int width)
{
    uint64_t index = 0;
    int r = pickle_take_number(p, width, &index);

    return r < 0 ? r : put_memo(p, index);
}

static int op_get(struct pickle_reader *p, int width)
{
    uint64_t index = 0;
    int r = pickle_take_number(p, width, &index);

    if (r < 0)
        return r;
    if (index >= p->memo_room || !p->memo[index])
        return pickle_bad(p, "nothing was kept under this number");
    return pickle_push(p, p->memo[index]);
}

static int op_mark(struct pickle_reader *p)
{
    if (pickle_grow(&p->marks, &p->marks_room, p->n_marks, sizeof(*p->marks)) < 0)
        return pickle_no_memory(p);
    p->marks[p->n_marks++] = p->depth;
    return 0;
}

static int op_protocol(struct pickle_reader *p)
{
    uint64_t protocol = 0;
    int r = pickle_take_number(p, 1, &protocol);

    if (r == 0 && (protocol < 2 || protocol > 5))
        return pickle_bad(p, "protocols 2 to 5 can be read");
    return r;
}

static int op_frame(struct pickle_reader *p)       /* a hint about buffering: skipped */
{
    uint64_t length;

    return pickle_take_number(p, 8, &length);
}

/* The letters are those of Python's pickletools. */
int pickle_step(struct pickle_reader *p, uint8_t op)
{
    struct pickle_value *ignored;
    size_t n = 0;
    int r;

    switch (op) {
    case 0x80: return op_protocol(p);
    case 0x95: return op_frame(p);
    case '.': return 1;
    case '(': return op_mark(p);
    case '0': return pickle_pop(p, &ignored);
    case '1': r = pop_mark(p, &n); p->depth -= r < 0 ? 0 : n; return r;
    case 'N': return pickle_push(p, pickle_new(p, PICKLE_NONE));
    case 0x88: return op_bool(p, true);
    case 0x89: return op_bool(p, false);
    case 'J': return op_integer(p, 4);
    case 'K': return op_integer(p, 1);
    case 'M': return op_integer(p, 2);
    case 0x8a: return op_long(p);
    case 'G': return op_float(p);
    case 'U': return op_string(p, PICKLE_BYTES, 1);     /* Python 2's str */
    case 'T': return op_string(p, PICKLE_BYTES, 4);
    case 'X': return op_string(p, PICKLE_TEXT, 4);
    case 0x8c: return op_string(p, PICKLE_TEXT, 1);
    case 0x8d: return op_string(p, PICKLE_TEXT, 8);
    case 'B': return op_string(p, PICKLE_BYTES, 4);
    case 'C': return op_string(p, PICKLE_BYTES, 1);
    case 0x8e: case 0x96: return op_string(p, PICKLE_BYTES, 8);
    case ')': return collect(p, PICKLE_TUPLE, 0);
    case 0x85: return collect(p, PICKLE_TUPLE, 1);
    case 0x86: return collect(p, PICKLE_TUPLE, 2);
    case 0x87: return collect(p, PICKLE_TUPLE, 3);
    case 't': return op_collect_marked(p, PICKLE_TUPLE);
    case ']': return collect(p, PICKLE_LIST, 0);
    case 'l': return op_collect_marked(p, PICKLE_LIST);
    case '}': return collect(p, PICKLE_DICT, 0);
    case 'd': return op_collect_marked(p, PICKLE_DICT);
    case 0x8f: return collect(p, PICKLE_SET, 0);
    case 0x91: return op_collect_marked(p, PICKLE_SET);
    case 'a': return fill(p, 1, PICKLE_LIST);
    case 'e': return op_fill_marked(p, PICKLE_LIST);
    case 's': return fill(p, 2, PICKLE_DICT);
    case 'u': return op_fill_marked(p, PICKLE_DICT);
    case 0x90: return op_fill_marked(p, PICKLE_SET);
    case 'c': return op_global(p);
    case 0x93: return op_stack_global(p);
    case 'R': case 0x81: return op_call(p);
    case 'b': return op_build(p);
    case 'Q': return op_persistent(p);
    case 'q': return op_put(p, 1);
    case 'r': return op_put(p, 4);
    case 0x94: return put_memo(p, p->memo_next);
    case 'h': return op_get(p, 1);
    case 'j': return op_get(p, 4);
    default: return pickle_bad(p, "this opcode is not among those that plain data need");
    }
}
