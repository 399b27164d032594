#include "daemon/yaml_tree.h"

#include <errno.h>
#include <yaml.h>

/* What the parser carries along; `name` is for messages, `nodes` for the cap. */
struct builder {
    yaml_parser_t parser;
    const char *name;
    struct error *error;
    unsigned nodes;
};

struct yaml_node *yaml_tree_free(struct yaml_node *node)
{
    while (node) {              /* siblings in a loop, children by recursion: depth is capped */
        struct yaml_node *next = node->next;

        yaml_tree_free(node->first);
        free(node->key);
        free(node->text);
        free(node);
        node = next;
    }
    return NULL;
}

const struct yaml_node *yaml_tree_get(const struct yaml_node *map, const char *key)
{
    for (const struct yaml_node *node = map ? map->first : NULL; node; node = node->next)
        if (node->key && !strcmp(node->key, key))
            return node;
    return NULL;
}

const char *yaml_kind_name(enum yaml_kind kind)
{
    return kind == YAML_SCALAR ? "a value" : kind == YAML_MAP ? "a map" : "a list";
}

static int refuse(struct builder *b, yaml_mark_t mark, const char *text)
{
    return error_set(b->error, EINVAL, "%s:%zu:%zu: %s", b->name, mark.line + 1, mark.column + 1, text);
}

static int next_event(struct builder *b, yaml_event_t *event)
{
    const yaml_parser_t *p = &b->parser;

    if (yaml_parser_parse(&b->parser, event))
        return 0;
    if (p->error == YAML_MEMORY_ERROR)
        return error_set(b->error, ENOMEM, "%s: out of memory", b->name);
    if (p->error == YAML_READER_ERROR)
        return error_set(b->error, EINVAL, "%s: byte %zu: %s", b->name, p->problem_offset,
                         p->problem ? p->problem : "not readable");
    if (p->error == YAML_SCANNER_ERROR && p->buffer.pointer < p->buffer.last && *p->buffer.pointer == '\t')
        return refuse(b, p->problem_mark, "not YAML: a tab, where only spaces indent");
    return error_set(b->error, EINVAL, "%s:%zu:%zu: not YAML: %s%s%s", b->name, p->problem_mark.line + 1,
                     p->problem_mark.column + 1,
                     p->problem ? p->problem : "?", p->context ? " " : "", p->context ? p->context : "");
}

/* Our configuration never needs these, and each of them can make a small text mean something huge or surprising. */
static int check_plain(struct builder *b, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return refuse(b, event->start_mark, "aliases (*name) are not supported: write the value out");
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        break;
    default:
        break;
    }
    if (anchor)
        return refuse(b, event->start_mark, "anchors (&name) are not supported: write the value out");
    if (tag)
        return refuse(b, event->start_mark, "tags (!type) are not supported");
    return 0;
}

static struct yaml_node *node_new(struct builder *b, const yaml_event_t *event, int *ret_r)
{
    struct yaml_node *node;

    if (++b->nodes > YAML_MAX_NODES) {
        *ret_r = refuse(b, event->start_mark, "too many values for a configuration");
        return NULL;
    }
    node = calloc(1, sizeof *node);
    if (!node) {
        *ret_r = -ENOMEM;
        return NULL;
    }
    node->line = (unsigned)event->start_mark.line + 1;
    node->column = (unsigned)event->start_mark.column + 1;
    return node;
}

static int copy_scalar(struct builder *b, const yaml_event_t *event, char **ret)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t n = event->data.scalar.length;

    if (memchr(text, '\0', n))
        return refuse(b, event->start_mark, "a NUL byte in a value");
    *ret = strndup(text, n);
    return *ret ? 0 : -ENOMEM;
}

static int build(struct builder *b, yaml_event_t *event, unsigned depth, struct yaml_node **ret);

/* Children until the map or list ends. */
static int build_children(struct builder *b, struct yaml_node *parent, yaml_event_type_t end, unsigned depth)
{
    struct yaml_node **tail = &parent->first;

    for (;;) {
        _cleanup_(yaml_event_delete) yaml_event_t event = {0};
        _cleanup_free_ char *key = NULL;
        yaml_mark_t mark;
        int r = next_event(b, &event);

        if (r < 0)
            return r;
        if (event.type == end)
            return 0;
        mark = event.start_mark;
        if (parent->kind == YAML_MAP) {
            if ((r = check_plain(b, &event)) < 0)
                return r;
            if (event.type != YAML_SCALAR_EVENT)
                return refuse(b, mark, "a key must be a plain word");
            if ((r = copy_scalar(b, &event, &key)) < 0)
                return r;
            if (yaml_tree_get(parent, key))
                return refuse(b, mark, "this key was given before");
            yaml_event_delete(&event);
            if ((r = next_event(b, &event)) < 0)
                return r;
        }
        if ((r = build(b, &event, depth, tail)) < 0)
            return r;
        (*tail)->key = TAKE_PTR(key);
        (*tail)->key_line = (unsigned)mark.line + 1;
        (*tail)->key_column = (unsigned)mark.column + 1;
        tail = &(*tail)->next;
        parent->n++;
    }
}

/* The value that `event` begins. */
static int build(struct builder *b, yaml_event_t *event, unsigned depth, struct yaml_node **ret)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *node = NULL;
    int r = check_plain(b, event);

    if (r < 0)
        return r;
    if (depth > YAML_MAX_DEPTH)
        return refuse(b, event->start_mark, "nested too deeply for a configuration");
    node = node_new(b, event, &r);
    if (!node)
        return r;
    if (event->type == YAML_SCALAR_EVENT) {
        node->kind = YAML_SCALAR;
        node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        r = copy_scalar(b, event, &node->text);
    } else {
        node->kind = event->type == YAML_MAPPING_START_EVENT ? YAML_MAP : YAML_LIST;
        r = build_children(b, node, node->kind == YAML_MAP ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT, depth + 1);
    }
    if (r < 0)
        return r;
    *ret = TAKE_PTR(node);
    return 0;
}

/* stream start, document start, one value, document end, stream end */
static int build_document(struct builder *b, struct yaml_node **ret)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *root = NULL;

    for (;;) {
        _cleanup_(yaml_event_delete) yaml_event_t event = {0};
        int r = next_event(b, &event);

        if (r < 0)
            return r;
        switch (event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (root)
                return refuse(b, event.start_mark, "a second document begins here; one is expected");
            break;
        case YAML_STREAM_END_EVENT:
            if (!root) {
                root = node_new(b, &event, &r);
                if (!root)
                    return r;
                root->kind = YAML_MAP;
            }
            *ret = TAKE_PTR(root);
            return 0;
        default:
            if ((r = build(b, &event, 0, &root)) < 0)
                return r;
        }
    }
}

int yaml_tree_parse(const char *text, size_t n, const char *name, struct yaml_node **ret, struct error *error)
{
    struct builder b = {.name = name, .error = error};
    int r;

    if (n > YAML_MAX_BYTES)
        return error_set(error, EFBIG, "%s: %zu bytes; a configuration has at most %d", name, n, YAML_MAX_BYTES);
    if (!yaml_parser_initialize(&b.parser))
        return error_set(error, ENOMEM, "%s: out of memory", name);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, n);
    r = build_document(&b, ret);
    yaml_parser_delete(&b.parser);
    if (r == -ENOMEM)
        return error_set(error, ENOMEM, "%s: out of memory", name);
    return r;
}
