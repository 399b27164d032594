/* pickle.h - read a Python pickle without running it.
 *
 * A pickle is a program: it may name any function and call it. This reader takes protocols 2 to 5, calls nothing, and
 * hands back what the program describes as a tree of plain values. A global ("module name") is only ever a name: each
 * one is shown to the caller's `allow`, and one refusal refuses the file. What would have been a call (REDUCE, NEWOBJ)
 * is a PICKLE_CALL value: the global and its arguments, for the caller to recognise; BUILD's state hangs beside it.
 * A persistent id (torch's storages) is a PICKLE_PERSISTENT value around the id.
 *
 *   static int allow(const char *module, const char *name) { return 0 or a tag; -EPERM to refuse }
 *   pickle_parse(bytes, n, "weights.pt: archive/data.pkl", allow, &pickle, error) -> pickle_root -> ... -> pickle_free
 *
 * Values may be shared (Python's memo), never cyclic. Depth, count and memo are bounded (PICKLE_MAX_*): a small file cannot
 * ask for much memory. Strings point into `bytes`, which must live as long as the tree; they hold no NUL at the end.
 * Failure: -EINVAL or -EPERM and one line: source, offset, opcode, what was expected. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum { PICKLE_MAX_DEPTH = 64, PICKLE_MAX_VALUES = 1 << 20 };

enum pickle_kind {
    PICKLE_NONE, PICKLE_BOOL, PICKLE_INT, PICKLE_FLOAT,
    PICKLE_TEXT,                /* UTF-8, checked */
    PICKLE_BYTES,
    PICKLE_TUPLE, PICKLE_LIST, PICKLE_SET,
    PICKLE_DICT,                /* items: key, value, key, value, ... in file order */
    PICKLE_GLOBAL,              /* tag: what `allow` returned */
    PICKLE_CALL,                /* callable(arguments), state */
    PICKLE_PERSISTENT,          /* id */
};

struct pickle_value {
    enum pickle_kind kind;
    int tag;                    /* GLOBAL; CALL: its callable's */
    size_t offset;              /* of the opcode that made it, for messages */
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct { const char *bytes; size_t length; } text;      /* TEXT, BYTES */
        struct { const char *module, *name; size_t module_length, name_length; } global;
        struct { const struct pickle_value *callable, *arguments; } call;   /* arguments: a TUPLE */
        const struct pickle_value *id;
    };
    /* TUPLE, LIST, SET, DICT: the elements. CALL: what was appended (a list's) or set (a dict's key, value pairs). */
    const struct pickle_value **items;
    size_t count;               /* of items */
    size_t capacity;
    const struct pickle_value *state;       /* CALL: BUILD's argument, or NULL */
};

struct pickle;

/* >= 0: allowed, the number comes back as `tag`. -EPERM: forbidden. Strings are NUL-terminated, valid during the call. */
typedef int pickle_allow(const char *module, const char *name);

/* `source` begins every message (borrowed during the call). allow NULL: no global at all. */
int pickle_parse(const void *bytes, size_t n, const char *source, pickle_allow *allow, struct pickle **ret,
                 struct error *error);
struct pickle *pickle_free(struct pickle *pickle);
DEFINE_FREEP(struct pickle, pickle_free)
/* What the program left on its stack: never NULL, borrowed until pickle_free. */
const struct pickle_value *pickle_root(const struct pickle *pickle);

/* Value of the dict's (or dict-like call's) text key, or NULL. */
const struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key);
/* Is it this text? */
bool pickle_is_text(const struct pickle_value *value, const char *text);

/* Bytes as protocol 2 has to write them: _codecs.encode(TEXT, 'latin1') (code points 0..255 are the bytes), or BYTES.
 * Caller frees. -EINVAL: neither, or a code point above 255. */
int pickle_bytes(const struct pickle_value *value, uint8_t **ret, size_t *ret_n);
