/* xml.h - a small XML tree: read an MJCF file, edit it, print it.
 *
 *   xml_read("robot.xml", &root, error) -> xml_child / xml_find -> xml_set, xml_append, xml_detach -> xml_print -> xml_free
 *
 * Elements and attributes only: comments, processing instructions and text between elements are dropped (MJCF has no use
 * for them); no DTD; of entities only the five that XML itself defines. Depth and size are bounded. Attribute order is kept.
 * A node owns its children; out of memory makes an edit fail with -ENOMEM. Errors name file and line. */
#pragma once

#include "base/error.h"
#include "base/strbuf.h"

struct xml_attribute {
    char *name, *value;
};

struct xml_node {
    char *tag;
    struct xml_attribute *attributes;
    int n_attributes;
    struct xml_node **children;
    int n_children;
    struct xml_node *parent;    /* NULL: a root */
    int line;                   /* in its file; 0: made here */
};

int xml_read(const char *path, struct xml_node **ret, struct error *error);
/* From memory; `name` stands for the path in messages. */
int xml_parse(const char *name, const char *text, size_t n, struct xml_node **ret, struct error *error);
struct xml_node *xml_free(struct xml_node *node);       /* with its children; must not have a parent any more */
DEFINE_FREEP(struct xml_node, xml_free)

const char *xml_get(const struct xml_node *node, const char *attribute);        /* NULL: not there */
int xml_set(struct xml_node *node, const char *attribute, const char *value);
int xml_setf(struct xml_node *node, const char *attribute, const char *format, ...) _printf_(3, 4);
void xml_unset(struct xml_node *node, const char *attribute);

/* First direct child of this tag; NULL if there is none. */
struct xml_node *xml_child(const struct xml_node *node, const char *tag);
/* First node of this tag and name attribute (name NULL: any), `node` itself included, in document order. */
struct xml_node *xml_find(struct xml_node *node, const char *tag, const char *name);

/* A new last child without attributes. NULL: out of memory. */
struct xml_node *xml_add(struct xml_node *parent, const char *tag);
/* Takes `child` (with its children) from wherever it hangs and makes it parent's last. */
int xml_append(struct xml_node *parent, struct xml_node *child);
/* Takes it out of its parent; the caller owns it then. */
struct xml_node *xml_detach(struct xml_node *node);

void xml_print(const struct xml_node *node, struct strbuf *out);
/* A value as it stands in what was printed becomes what it says, in place. */
void xml_unescape(char *text);
