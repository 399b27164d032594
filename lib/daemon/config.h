/* config.h - typed configuration: one static table of rows per section feeds everything.
 *
 *   static const struct config_key keys[] = {
 *       CONFIG_INT(struct x, batch, 1, 65536, "64", "frames in one step"),
 *       ...
 *   };
 *
 * A row has name, type, place in the struct, default, range and one sentence of help. From the tables come the
 * parser, its messages ("run.yaml:7:12: stages[2].rl.epizodes: unknown key; nearest: episodes"), the writer (what it
 * writes parses to the same struct), `explain` and the generated documentation.
 * Structs are plain: strings are char arrays, lists are arrays with an int count beside them.
 * Thread rule: none, no state. Failure rule: a fault is added to *faults and the rest looked at, too; -EINVAL in the end. `into`
 * may be half filled then: throw it away. */
#pragma once

#include "base/error.h"
#include "base/strbuf.h"
#include "daemon/yaml_tree.h"

enum config_type {
    CONFIG_TYPE_INT, CONFIG_TYPE_U64, CONFIG_TYPE_DOUBLE, CONFIG_TYPE_BOOL, CONFIG_TYPE_CHOICE, CONFIG_TYPE_STRING,
    CONFIG_TYPE_INTS, CONFIG_TYPE_DOUBLES, CONFIG_TYPE_STRINGS,     /* lists; the count is an int at count_offset */
    CONFIG_TYPE_SECTIONS,           /* list of maps, each a struct of `size` bytes described by `table` */
};

struct config_key {
    const char *name;
    enum config_type type;
    size_t offset, count_offset;    /* bytes into the struct */
    size_t size;                    /* strings: bytes of one, with the NUL; SECTIONS: bytes of one struct */
    int max_count;                  /* lists */
    double min, max;                /* numbers, inclusive */
    const char *const *choices;     /* CHOICE: the enum's names from 0, NULL at the end; STRING: what is allowed, or NULL */
    const char *value;              /* default as YAML text */
    const struct config_key *table; /* SECTIONS: its rows */
    const char *help;               /* one sentence, no full stop needed */
};
#define CONFIG_END {.name = NULL}

#define CONFIG_INT(s, f, lo, hi, v, h) \
    {.name = #f, .type = CONFIG_TYPE_INT, .offset = offsetof(s, f), .min = lo, .max = hi, .value = v, .help = h}
#define CONFIG_U64(s, f, v, h) {.name = #f, .type = CONFIG_TYPE_U64, .offset = offsetof(s, f), .value = v, .help = h}
#define CONFIG_DOUBLE(s, f, lo, hi, v, h) \
    {.name = #f, .type = CONFIG_TYPE_DOUBLE, .offset = offsetof(s, f), .min = lo, .max = hi, .value = v, .help = h}
#define CONFIG_BOOL(s, f, v, h) {.name = #f, .type = CONFIG_TYPE_BOOL, .offset = offsetof(s, f), .value = v, .help = h}
#define CONFIG_CHOICE(s, f, names, v, h) \
    {.name = #f, .type = CONFIG_TYPE_CHOICE, .offset = offsetof(s, f), .choices = names, .value = v, .help = h}
#define CONFIG_STRING(s, f, v, h) \
    {.name = #f, .type = CONFIG_TYPE_STRING, .offset = offsetof(s, f), .size = sizeof(((s *)0)->f), .value = v, .help = h}

/* What is wrong with one file, in the order it was found. */
enum { CONFIG_FAULTS = 20 };
struct config_faults {
    const char *name;               /* of the file: it stands before each line */
    struct error items[CONFIG_FAULTS];      /* the first of them */
    size_t n;                       /* all of them */
};

/* Every row's default into the struct. The tables are constants: a default that does not parse aborts. */
void config_defaults(const struct config_key *table, void *into);

/* The map's keys into the struct; keys not given keep what is there. `path` is the place of the map ("stages[2].rl", "" at the
 * top). */
int config_apply(const struct config_key *table, const struct yaml_node *map, const char *path, void *into,
                 struct config_faults *faults);
/* One key of such a map; one row's value from its node. */
int config_apply_key(const struct config_key *table, const struct yaml_node *node, const char *path, void *into,
                     struct config_faults *faults);
int config_set(const struct config_key *key, const struct yaml_node *value, const char *path, void *into,
               struct config_faults *faults);
const struct config_key *config_find(const struct config_key *table, const char *name);

/* One more fault, "NAME:LINE:COLUMN: PATH: text"; path may be "". -EINVAL. */
int config_error(struct config_faults *faults, const struct yaml_node *at, const char *path, const char *format, ...)
    _printf_(4, 5);
/* One more, which has no place in the text. */
void config_fault(struct config_faults *faults, const struct error *error);
/* For those who want to hear of the first one only: into *error (NULL ok); its -errnum. 0: there is none. */
int config_first_fault(const struct config_faults *faults, struct error *error);
/* The row's name (or the one of `words`) that looks most like `name`; NULL if none is near. */
const char *config_nearest(const struct config_key *table, const char *name);
const char *config_nearest_word(const char *const *words, const char *name);

/* Every row as `key: value` lines, `indent` blanks before each. */
void config_write(const struct config_key *table, const void *from, unsigned indent, struct strbuf *out);
/* One value as flow YAML: 7, 0.5, name, [a, b]. */
void config_write_value(const struct config_key *key, const void *from, struct strbuf *out);

void config_describe(const struct config_key *key, struct strbuf *out);     /* "integer 1..65536", "one of a, b" */
