/* yaml_tree.h - a YAML text as a tree of maps, lists and scalars that remember where they stood.
 *
 * The part of YAML a configuration needs: one document, block and flow style. Refused, with line and column: anchors,
 * aliases, tags, a second document, a key twice, keys that are no scalars, more than YAML_MAX_DEPTH levels,
 * YAML_MAX_NODES nodes or YAML_MAX_BYTES bytes. An empty text is an empty map. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

struct strbuf;

enum { YAML_MAX_DEPTH = 12, YAML_MAX_NODES = 20000, YAML_MAX_BYTES = 1 << 20 };
enum yaml_kind { YAML_SCALAR, YAML_MAP, YAML_LIST };

struct yaml_node {
    enum yaml_kind kind;
    unsigned line, column;          /* of the value; from 1 */
    unsigned key_line, key_column;  /* of the key, in maps */
    char *key;                      /* in maps; else NULL */
    char *text;                     /* scalars */
    bool quoted;                    /* "5" is a string, 5 is a number */
    struct yaml_node *first, *next; /* children; the next of the same parent */
    unsigned n;                     /* children */
};

/* The prefix is yaml_tree_ because libyaml exports yaml_free and its like. `name` stands before line and column in messages:
 * "run.yaml:7:12: ...". */
int yaml_tree_parse(const char *text, size_t n, const char *name, struct yaml_node **ret, struct error *error);
struct yaml_node *yaml_tree_free(struct yaml_node *root);
DEFINE_FREEP(struct yaml_node, yaml_tree_free)

const struct yaml_node *yaml_tree_get(const struct yaml_node *map, const char *key);    /* NULL: not there */
/* The value becomes the key's in the map, in place of the one it had or behind the others; the map owns it then. -ENOMEM: it is
 * still the caller's. */
int yaml_tree_put(struct yaml_node *map, const char *key, struct yaml_node *value);
/* A map as text: a line for each key, for each entry of a list of maps. Parsed again it is the same tree, but for lines and
 * columns. -ENOMEM. */
int yaml_tree_write(const struct yaml_node *root, struct strbuf *out);

const char *yaml_kind_name(enum yaml_kind kind);    /* "a value", "a map", "a list" */
