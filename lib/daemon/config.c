#include "daemon/config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <ctype.h>

#include "base/plain.h"

static void *field(const struct config_key *key, void *into) { return (char *)into + key->offset; }

int config_error(struct config_faults *faults, const struct yaml_node *at, const char *path, const char *format, ...)
{
    struct error *error = faults->n < CONFIG_FAULTS ? &faults->items[faults->n] : NULL;
    char text[300];
    va_list args;

    faults->n++;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return error_set(error, EINVAL, "%s:%u:%u: %s%s%s", faults->name, at->line, at->column, path, path[0] ? ": " : "", text);
}

void config_fault(struct config_faults *faults, const struct error *error)
{
    if (faults->n < CONFIG_FAULTS)
        faults->items[faults->n] = *error;
    faults->n++;
}

int config_first_fault(const struct config_faults *faults, struct error *error)
{
    if (faults->n && error)
        *error = faults->items[0];
    return faults->n ? -faults->items[0].errnum : 0;
}

/* Edit distance of short words, a swap of neighbours counted as one. */
static unsigned distance(const char *a, const char *b)
{
    enum { MAX = 120 };             /* the longest of LIBERO's tasks has 106 letters */
    unsigned rows[3][MAX + 1], *before = rows[0], *last = rows[1], *row = rows[2];
    size_t n = strlen(a), m = strlen(b);

    if (n > MAX || m > MAX)
        return MAX;
    for (unsigned j = 0; j <= m; j++)
        last[j] = j;
    for (unsigned i = 1; i <= n; i++) {
        unsigned *recycled = before;

        row[0] = i;
        for (unsigned j = 1; j <= m; j++) {
            row[j] = MIN(MIN(last[j] + 1, row[j - 1] + 1), last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = MIN(row[j], before[j - 2] + 1);
        }
        before = last;
        last = row;
        row = recycled;
    }
    return last[m];
}

static bool near_enough(unsigned d, const char *name) { return d <= 2 || d * 3 <= strlen(name); }

const char *config_nearest(const struct config_key *table, const char *name)
{
    const char *best = NULL;
    unsigned least = UINT32_MAX;

    for (; table->name; table++) {
        unsigned d = distance(name, table->name);

        if (d < least && near_enough(d, name)) {
            least = d;
            best = table->name;
        }
    }
    return best;
}

const char *config_nearest_word(const char *const *words, const char *name)
{
    const char *best = NULL;
    unsigned least = UINT32_MAX;

    for (; *words; words++) {
        unsigned d = distance(name, *words);

        if (d < least && near_enough(d, name)) {
            least = d;
            best = *words;
        }
    }
    return best;
}

const struct config_key *config_find(const struct config_key *table, const char *name)
{
    for (; table->name; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}

/* ---- values ------------------------------------------------------------------------------------------------ */

struct place {                  /* where a value stands, for messages */
    const char *path;
    const struct yaml_node *node;
    struct config_faults *faults;
};

static int wrong_type(const struct place *p, const struct config_key *key, const char *found)
{
    _cleanup_(strbuf_release) struct strbuf expected = STRBUF_INIT;

    config_describe(key, &expected);
    return config_error(p->faults, p->node, p->path, "%s is not right here; expected: %s", found[0] ? found : "nothing",
                        expected.text);
}

static int parse_double(const struct place *p, const struct config_key *key, const char *text, double *ret)
{
    char *end;
    double value;

    errno = 0;
    value = strtod(text, &end);
    if (end == text || *end || errno == ERANGE || !isfinite(value) || strpbrk(text, "xXpP \t\n"))
        return wrong_type(p, key, text);
    if (value < key->min || value > key->max)
        return config_error(p->faults, p->node, p->path, "%s is out of range; it must be from %.9g to %.9g", text,
                            key->min, key->max);
    *ret = value;
    return 0;
}

static int parse_int(const struct place *p, const struct config_key *key, const char *text, int *ret)
{
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (end == text || *end || isspace((unsigned char)text[0]))
        return wrong_type(p, key, text);
    if (errno == ERANGE || (double)value < key->min || (double)value > key->max)
        return config_error(p->faults, p->node, p->path, "%s is out of range; it must be from %.0f to %.0f", text,
                            key->min, key->max);
    *ret = (int)value;
    return 0;
}

static int parse_u64(const struct place *p, const struct config_key *key, const char *text, uint64_t *ret)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (end == text || *end || !isdigit((unsigned char)text[0]))
        return wrong_type(p, key, text);
    if (errno == ERANGE)
        return config_error(p->faults, p->node, p->path, "%s is out of range; it must fit 64 bits", text);
    *ret = value;
    return 0;
}

static int parse_choice(const struct place *p, const struct config_key *key, const char *text, int *ret)
{
    const char *nearest;

    for (int i = 0; key->choices[i]; i++)
        if (!strcmp(key->choices[i], text)) {
            *ret = i;
            return 0;
        }
    nearest = config_nearest_word(key->choices, text);
    if (nearest)
        return config_error(p->faults, p->node, p->path, "there is no '%s'; nearest: %s", text, nearest);
    return wrong_type(p, key, text);
}

/* Control characters, and what YAML takes for the end of a line or refuses: config.yaml could not be read back. */
static bool is_control(const char *c)
{
    static const char *const others[] = {"\xe2\x80\xa8", "\xe2\x80\xa9", "\xef\xbb\xbf", "\xef\xbf\xbe", "\xef\xbf\xbf"};
    bool found = control_length(c) > 0;

    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        found |= !strncmp(c, others[i], 3);
    return found;
}

static int parse_string(const struct place *p, const struct config_key *key, const char *text, char *ret)
{
    int ignored, r;

    if (key->choices && (r = parse_choice(p, key, text, &ignored)) < 0)
        return r;
    if (strlen(text) >= key->size)
        return config_error(p->faults, p->node, p->path, "%zu bytes; at most %zu fit", strlen(text), key->size - 1);
    for (const char *c = text; *c; c++)
        if (is_control(c))
            return config_error(p->faults, p->node, p->path, "a control character in a name or path");
    snprintf(ret, key->size, "%s", text);
    return 0;
}

static int set_scalar(const struct place *p, const struct config_key *key, void *into)
{
    const char *text = p->node->text;
    bool truth;

    if (p->node->quoted && key->type != CONFIG_TYPE_STRING && key->type != CONFIG_TYPE_CHOICE)
        return wrong_type(p, key, "a quoted string");
    switch (key->type) {
    case CONFIG_TYPE_INT: return parse_int(p, key, text, into);
    case CONFIG_TYPE_U64: return parse_u64(p, key, text, into);
    case CONFIG_TYPE_DOUBLE: return parse_double(p, key, text, into);
    case CONFIG_TYPE_CHOICE: return parse_choice(p, key, text, into);
    case CONFIG_TYPE_STRING: return parse_string(p, key, text, into);
    case CONFIG_TYPE_BOOL:
        truth = !strcmp(text, "true");
        if (!truth && strcmp(text, "false") != 0)
            return wrong_type(p, key, text);
        *(bool *)into = truth;
        return 0;
    default:
        return wrong_type(p, key, text);
    }
}

static size_t element_size(const struct config_key *key)
{
    switch (key->type) {
    case CONFIG_TYPE_INTS: return sizeof(int);
    case CONFIG_TYPE_DOUBLES: return sizeof(double);
    default: return key->size;
    }
}

static int set_element(const struct place *p, const struct config_key *key, void *into)
{
    if (key->type == CONFIG_TYPE_SECTIONS) {
        if (p->node->kind != YAML_MAP)
            return wrong_type(p, key, yaml_kind_name(p->node->kind));
        config_defaults(key->table, into);
        return config_apply(key->table, p->node, p->path, into, p->faults);
    }
    if (p->node->kind != YAML_SCALAR)
        return wrong_type(p, key, yaml_kind_name(p->node->kind));
    if (key->type != CONFIG_TYPE_STRINGS && p->node->quoted)
        return wrong_type(p, key, "a quoted string");
    switch (key->type) {
    case CONFIG_TYPE_INTS: return parse_int(p, key, p->node->text, into);
    case CONFIG_TYPE_DOUBLES: return parse_double(p, key, p->node->text, into);
    default: return parse_string(p, key, p->node->text, into);
    }
}

static int set_list(const struct place *p, const struct config_key *key, void *into)
{
    int n = 0, r = 0;

    if (p->node->n > (unsigned)key->max_count)
        return config_error(p->faults, p->node, p->path, "%u entries; at most %d fit", p->node->n, key->max_count);
    for (const struct yaml_node *node = p->node->first; node; node = node->next, n++) {
        char path[256];
        struct place element = {path, node, p->faults};

        snprintf(path, sizeof path, "%s[%d]", p->path, n);
        if (set_element(&element, key, (char *)field(key, into) + (size_t)n * element_size(key)) < 0)
            r = -EINVAL;
    }
    *(int *)((char *)into + key->count_offset) = n;
    return r;
}

int config_set(const struct config_key *key, const struct yaml_node *value, const char *path, void *into,
               struct config_faults *faults)
{
    const struct place p = {path, value, faults};

    if (key->type < CONFIG_TYPE_INTS && value->kind == YAML_SCALAR)
        return set_scalar(&p, key, field(key, into));
    if (key->type >= CONFIG_TYPE_INTS && value->kind == YAML_LIST)
        return set_list(&p, key, into);
    if (key->type >= CONFIG_TYPE_INTS && key->type != CONFIG_TYPE_SECTIONS && value->kind == YAML_SCALAR && value->text[0] &&
        !strpbrk(value->text, "[]"))
        return config_error(faults, value, path, "a list is expected: [%s]", value->text);
    return wrong_type(&p, key, value->kind == YAML_SCALAR && value->text[0] ? value->text : yaml_kind_name(value->kind));
}

int config_apply_key(const struct config_key *table, const struct yaml_node *node, const char *path, void *into,
                     struct config_faults *faults)
{
    const struct config_key *key = config_find(table, node->key);
    const struct yaml_node at = {.line = node->key_line, .column = node->key_column};
    const char *near;
    char full[256];

    snprintf(full, sizeof full, "%s%s%s", path, path[0] ? "." : "", node->key);
    if (key)
        return config_set(key, node, full, into, faults);
    near = config_nearest(table, node->key);
    return config_error(faults, &at, full, "unknown key%s%s", near ? "; nearest: " : "", near ? near : "");
}

int config_apply(const struct config_key *table, const struct yaml_node *map, const char *path, void *into,
                 struct config_faults *faults)
{
    int r = 0;

    for (const struct yaml_node *node = map->first; node; node = node->next)
        if (config_apply_key(table, node, path, into, faults) < 0)
            r = -EINVAL;
    return r;
}

void config_defaults(const struct config_key *table, void *into)
{
    struct config_faults faults = {.name = "default"};

    for (const struct config_key *key = table; key->name; key++) {
        _cleanup_(yaml_tree_freep) struct yaml_node *node = NULL;
        char text[512];
        int n = snprintf(text, sizeof text, "x: %s\n", key->value);

        if (yaml_tree_parse(text, (size_t)n, "default", &node, &faults.items[0]) < 0 ||
            config_set(key, node->first, key->name, into, &faults) < 0) {
            fprintf(stderr, "a configuration table is wrong: %s: %s\n", key->name, faults.items[0].text);
            abort();
        }
    }
}
