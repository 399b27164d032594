/* yaml_edit.c - a tree with a value changed, and as text again. */
#include <errno.h>

#include "base/strbuf.h"
#include "daemon/yaml_tree.h"

enum { WIDE = 110 };            /* columns behind which a line is broken */

int yaml_tree_put(struct yaml_node *map, const char *key, struct yaml_node *value)
{
    struct yaml_node **at = &map->first, *old;
    char *name = strdup(key);

    if (!name)
        return -ENOMEM;
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    old = *at;
    value->key = name;
    value->next = old ? old->next : NULL;
    *at = value;
    map->n += !old;
    if (old)
        old->next = NULL;
    yaml_tree_free(old);
    return 0;
}

static size_t column(const struct strbuf *out)
{
    const char *line = strrchr(out->text, '\n');

    return line ? strlen(line + 1) : out->length;
}

/* As it stood, where that reads the same between brackets, too; otherwise in quotes. */
static void write_scalar(const struct yaml_node *node, struct strbuf *out)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";

    if (!node->quoted && strspn(node->text, safe) == strlen(node->text)) {
        strbuf_adds(out, node->text);
        return;
    }
    strbuf_addc(out, '"');
    for (const char *c = node->text; *c; c++)
        if (*c == '"' || *c == '\\')
            strbuf_addf(out, "\\%c", *c);
        else if ((unsigned char)*c < ' ' || *c == 0x7f)
            strbuf_addf(out, "\\x%02x", (unsigned)*c);
        else
            strbuf_addc(out, *c);
    strbuf_addc(out, '"');
}

static void write_key(const struct yaml_node *node, struct strbuf *out)
{
    const struct yaml_node key = {.text = node->key};

    write_scalar(&key, out);
    strbuf_addc(out, ':');
}

/* {a: 1, b: [2, 3]}, on further lines, indented, where it gets too long. */
static void write_flow(const struct yaml_node *node, int indent, struct strbuf *out)
{
    if (node->kind == YAML_SCALAR) {
        write_scalar(node, out);
        return;
    }
    strbuf_addc(out, node->kind == YAML_MAP ? '{' : '[');
    for (const struct yaml_node *child = node->first; child; child = child->next) {
        if (child != node->first)
            strbuf_addf(out, column(out) > WIDE ? ",\n%*s" : ", ", indent, "");
        if (child->key) {
            write_key(child, out);
            strbuf_addc(out, ' ');
        }
        write_flow(child, indent, out);
    }
    strbuf_addc(out, node->kind == YAML_MAP ? '}' : ']');
}

int yaml_tree_write(const struct yaml_node *root, struct strbuf *out)
{
    for (const struct yaml_node *section = root->first; section; section = section->next) {
        bool list = section->kind == YAML_LIST && section->first && section->first->kind == YAML_MAP;

        write_key(section, out);
        if (!list) {
            strbuf_addc(out, ' ');
            write_flow(section, 4, out);
        }
        strbuf_addc(out, '\n');
        for (const struct yaml_node *item = section->first; item && list; item = item->next) {
            strbuf_adds(out, "  - ");
            if (item->kind == YAML_MAP && item->n == 1) {       /* - rl: {...} */
                write_key(item->first, out);
                strbuf_addc(out, ' ');
                write_flow(item->first, 8, out);
            } else {
                write_flow(item, 6, out);
            }
            strbuf_addc(out, '\n');
        }
    }
    return out->failed ? -ENOMEM : 0;
}
