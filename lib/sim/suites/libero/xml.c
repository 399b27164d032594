#include "sim/suites/libero/xml.h"

#include <errno.h>
#include <string.h>

#include "base/atomic_file.h"

enum { MAX_DEPTH = 64, MAX_FILE = 16 << 20 };

struct reader {
    const char *name, *at, *end;
    int line;
    struct error *error;
};

/* ---- tree ------------------------------------------------------------------------------------------- */

static struct xml_node *new_node(const char *tag, size_t n, int line)
{
    struct xml_node *node = calloc(1, sizeof(*node));

    if (!node)
        return NULL;
    node->tag = strndup(tag, n);
    node->line = line;
    return node->tag ? node : xml_free(node);
}

struct xml_node *xml_free(struct xml_node *node)
{
    if (!node)
        return NULL;
    for (int i = 0; i < node->n_children; i++)
        xml_free(node->children[i]);
    for (int i = 0; i < node->n_attributes; i++) {
        free(node->attributes[i].name);
        free(node->attributes[i].value);
    }
    free(node->children);
    free(node->attributes);
    free(node->tag);
    free(node);
    return NULL;
}

static struct xml_attribute *find_attribute(const struct xml_node *node, const char *name)
{
    for (int i = 0; i < node->n_attributes; i++)
        if (strcmp(node->attributes[i].name, name) == 0)
            return &node->attributes[i];
    return NULL;
}

const char *xml_get(const struct xml_node *node, const char *attribute)
{
    const struct xml_attribute *found = find_attribute(node, attribute);

    return found ? found->value : NULL;
}

/* Takes `value`. */
static int set_owned(struct xml_node *node, const char *name, char *value)
{
    struct xml_attribute *found = find_attribute(node, name), *grown;
    char *copy;

    if (!value)
        return -ENOMEM;
    if (found) {
        free(found->value);
        found->value = value;
        return 0;
    }
    grown = realloc(node->attributes, sizeof(*grown) * (size_t)(node->n_attributes + 1));
    if (grown)
        node->attributes = grown;
    copy = grown ? strdup(name) : NULL;
    if (!copy) {
        free(value);
        return -ENOMEM;
    }
    grown[node->n_attributes++] = (struct xml_attribute) { copy, value };
    return 0;
}

int xml_set(struct xml_node *node, const char *attribute, const char *value)
{
    return set_owned(node, attribute, strdup(value));
}

int xml_setf(struct xml_node *node, const char *attribute, const char *format, ...)
{
    va_list args;
    char *value;
    int n;

    va_start(args, format);
    n = vasprintf(&value, format, args);
    va_end(args);
    return n < 0 ? -ENOMEM : set_owned(node, attribute, value);
}

void xml_unset(struct xml_node *node, const char *attribute)
{
    struct xml_attribute *found = find_attribute(node, attribute);

    if (!found)
        return;
    free(found->name);
    free(found->value);
    memmove(found, found + 1, sizeof(*found) * (size_t)(node->attributes + node->n_attributes - found - 1));
    node->n_attributes--;
}

struct xml_node *xml_child(const struct xml_node *node, const char *tag)
{
    for (int i = 0; i < node->n_children; i++)
        if (strcmp(node->children[i]->tag, tag) == 0)
            return node->children[i];
    return NULL;
}

struct xml_node *xml_find(struct xml_node *node, const char *tag, const char *name)
{
    const char *own = xml_get(node, "name");
    struct xml_node *found = NULL;

    if (strcmp(node->tag, tag) == 0 && (!name || (own && strcmp(own, name) == 0)))
        return node;
    for (int i = 0; i < node->n_children && !found; i++)
        found = xml_find(node->children[i], tag, name);
    return found;
}

int xml_append(struct xml_node *parent, struct xml_node *child)
{
    struct xml_node **grown = realloc(parent->children, sizeof(*grown) * (size_t)(parent->n_children + 1));

    if (!grown)
        return -ENOMEM;
    parent->children = grown;
    if (child->parent)
        xml_detach(child);
    grown[parent->n_children++] = child;
    child->parent = parent;
    return 0;
}

struct xml_node *xml_detach(struct xml_node *node)
{
    struct xml_node *parent = node->parent;
    int i = 0;

    while (parent->children[i] != node)
        i++;
    memmove(parent->children + i, parent->children + i + 1, sizeof(node) * (size_t)(parent->n_children - i - 1));
    parent->n_children--;
    node->parent = NULL;
    return node;
}

struct xml_node *xml_add(struct xml_node *parent, const char *tag)
{
    struct xml_node *node = new_node(tag, strlen(tag), 0);

    if (node && xml_append(parent, node) < 0)
        return xml_free(node);
    return node;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static int bad(struct reader *p, const char *what)
{
    return error_set(p->error, EINVAL, "%s: line %d: %s", p->name, p->line, what);
}

static int no_memory(struct reader *p)
{
    return error_set(p->error, ENOMEM, "%s: out of memory", p->name);
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' ||
           c == ':';
}

static bool starts(const struct reader *p, const char *word)
{
    size_t n = strlen(word);

    return (size_t)(p->end - p->at) >= n && memcmp(p->at, word, n) == 0;
}

static void advance(struct reader *p, const char *to)
{
    for (; p->at < to; p->at++)
        p->line += *p->at == '\n';
}

static void skip_space(struct reader *p)
{
    const char *to = p->at;

    while (to < p->end && is_space(*to))
        to++;
    advance(p, to);
}

/* Past the end of a comment or an instruction that ends with `close`. */
static int skip_past(struct reader *p, const char *close)
{
    const char *found = memmem(p->at, (size_t)(p->end - p->at), close, strlen(close));

    if (!found)
        return bad(p, "a comment or instruction that never ends");
    advance(p, found + strlen(close));
    return 0;
}

/* Everything up to the next tag. */
static int skip_between(struct reader *p)
{
    int r = 0;

    while (p->at < p->end && r == 0) {
        const char *open = memchr(p->at, '<', (size_t)(p->end - p->at));

        advance(p, open ? open : p->end);
        if (starts(p, "<!--"))
            r = skip_past(p, "-->");
        else if (starts(p, "<?"))
            r = skip_past(p, "?>");
        else if (starts(p, "<!"))
            return bad(p, "<! declarations are not read");
        else
            break;
    }
    return r;
}

static size_t name_length(const struct reader *p)
{
    size_t n = 0;

    while (p->at + n < p->end && is_name(p->at[n]))
        n++;
    return n;
}

/* One of five at the beginning of n bytes: how long it is, and what it stands for. 0: none. */
static size_t entity(const char *from, size_t n, char *ret)
{
    static const struct { const char *text; char c; } entities[] = {
        { "&amp;", '&' }, { "&lt;", '<' }, { "&gt;", '>' }, { "&quot;", '"' }, { "&apos;", '\'' },
    };

    for (size_t e = 0; e < ARRAY_SIZE(entities); e++) {
        const size_t length = strlen(entities[e].text);

        if (n >= length && memcmp(from, entities[e].text, length) == 0) {
            *ret = entities[e].c;
            return length;
        }
    }
    return 0;
}

/* Entities; white space becomes blanks, as XML asks for attributes. */
static int decode(struct reader *p, const char *from, size_t n, char **ret)
{
    char *out = malloc(n + 1), *to = out;

    if (!out)
        return no_memory(p);
    for (size_t i = 0; i < n; i++, to++) {
        size_t length;

        if (from[i] != '&') {
            *to = is_space(from[i]) ? ' ' : from[i];
            continue;
        }
        length = entity(from + i, n - i, to);
        if (!length) {
            free(out);
            return bad(p, "an entity other than &amp; &lt; &gt; &quot; &apos;");
        }
        i += length - 1;
    }
    *to = '\0';
    *ret = out;
    return 0;
}

static int read_attribute(struct reader *p, struct xml_node *node)
{
    size_t n = name_length(p);
    char name[64], *value = NULL;
    const char *close;
    int r;

    if (n == 0 || n >= sizeof(name))
        return bad(p, "an attribute's name was expected");
    memcpy(name, p->at, n);
    name[n] = '\0';
    p->at += n;
    skip_space(p);
    if (p->at == p->end || *p->at != '=')
        return bad(p, "an attribute without '='");
    p->at++;
    skip_space(p);
    if (p->at == p->end || (*p->at != '"' && *p->at != '\''))
        return bad(p, "an attribute's value must stand in quotes");
    close = memchr(p->at + 1, *p->at, (size_t)(p->end - p->at - 1));
    if (!close)
        return bad(p, "quotes that never close");
    if (find_attribute(node, name))
        return bad(p, "an attribute given twice");
    r = decode(p, p->at + 1, (size_t)(close - p->at - 1), &value);
    if (r < 0)
        return r;
    advance(p, close + 1);
    return set_owned(node, name, value) < 0 ? no_memory(p) : 0;
}

static int read_element(struct reader *p, int depth, struct xml_node **ret);

/* Children up to and including the closing tag. */
static int read_children(struct reader *p, struct xml_node *node, int depth)
{
    size_t n = strlen(node->tag);

    for (;;) {
        struct xml_node *child;
        int r = skip_between(p);

        if (r < 0)
            return r;
        if (p->at == p->end)
            return error_set(p->error, EINVAL, "%s: line %d: <%s> is never closed", p->name, node->line, node->tag);
        if (starts(p, "</")) {
            p->at += 2;
            if (name_length(p) != n || memcmp(p->at, node->tag, n) != 0)
                return error_set(p->error, EINVAL, "%s: line %d: expected </%s> (opened in line %d)", p->name, p->line, node->tag,
                                 node->line);
            p->at += n;
            skip_space(p);
            if (p->at == p->end || *p->at++ != '>')
                return bad(p, "a closing tag without '>'");
            return 0;
        }
        r = read_element(p, depth + 1, &child);
        if (r < 0)
            return r;
        if (xml_append(node, child) < 0) {
            xml_free(child);
            return no_memory(p);
        }
    }
}

static int read_element(struct reader *p, int depth, struct xml_node **ret)
{
    _cleanup_(xml_freep) struct xml_node *node = NULL;
    size_t n;
    int r;

    if (depth > MAX_DEPTH)
        return bad(p, "elements nested more than 64 deep");
    p->at++;                    /* '<' */
    n = name_length(p);
    if (n == 0)
        return bad(p, "an element's name was expected behind '<'");
    node = new_node(p->at, n, p->line);
    if (!node)
        return no_memory(p);
    p->at += n;
    for (;;) {
        skip_space(p);
        if (p->at == p->end)
            return bad(p, "the file ends inside a tag");
        if (*p->at == '>') {
            p->at++;
            r = read_children(p, node, depth);
            break;
        }
        if (starts(p, "/>")) {
            p->at += 2;
            r = 0;
            break;
        }
        r = read_attribute(p, node);
        if (r < 0)
            return r;
    }
    if (r == 0)
        *ret = TAKE_PTR(node);
    return r;
}

int xml_parse(const char *name, const char *text, size_t n, struct xml_node **ret, struct error *error)
{
    struct reader p = { .name = name, .at = text, .end = text + n, .line = 1, .error = error };
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    int r = skip_between(&p);

    if (r < 0)
        return r;
    if (p.at == p.end)
        return bad(&p, "no element in it");
    r = read_element(&p, 0, &root);
    if (r == 0)
        r = skip_between(&p);
    if (r == 0 && p.at != p.end)
        r = bad(&p, "something behind the last closing tag");
    if (r == 0)
        *ret = TAKE_PTR(root);
    return r;
}

int xml_read(const char *path, struct xml_node **ret, struct error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r = file_read(path, MAX_FILE, &text, &n);

    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    return xml_parse(path, text, n, ret, error);
}

void xml_unescape(char *text)
{
    size_t n = strlen(text);
    char *to = text;

    for (size_t i = 0; i < n; to++) {
        const size_t length = entity(text + i, n - i, to);

        if (!length)
            *to = text[i];
        i += MAX(length, (size_t)1);
    }
    *to = '\0';
}

/* ---- printing ------------------------------------------------------------------------------------------ */

static void print_value(const char *value, struct strbuf *out)
{
    for (; *value; value++)
        switch (*value) {
        case '&': strbuf_adds(out, "&amp;"); break;
        case '<': strbuf_adds(out, "&lt;"); break;
        case '"': strbuf_adds(out, "&quot;"); break;
        default: strbuf_addc(out, *value);
        }
}

void xml_print(const struct xml_node *node, struct strbuf *out)
{
    strbuf_addc(out, '<');
    strbuf_adds(out, node->tag);
    for (int i = 0; i < node->n_attributes; i++) {
        strbuf_addc(out, ' ');
        strbuf_adds(out, node->attributes[i].name);
        strbuf_adds(out, "=\"");
        print_value(node->attributes[i].value, out);
        strbuf_addc(out, '"');
    }
    if (!node->n_children) {
        strbuf_adds(out, "/>\n");
        return;
    }
    strbuf_adds(out, ">\n");
    for (int i = 0; i < node->n_children; i++)
        xml_print(node->children[i], out);
    strbuf_adds(out, "</");
    strbuf_adds(out, node->tag);
    strbuf_adds(out, ">\n");
}
