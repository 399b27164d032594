#include "daemon/run_config_edit.h"

#include <errno.h>

#include "daemon/run_config_tables.h"
#include "daemon/yaml_tree.h"

static int no_place(const struct run_config *config, const char *name, const char *place, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf places = STRBUF_INIT;

    for (const struct run_section *section = run_sections; section->name; section++)
        strbuf_addf(&places, "%s%s", places.length ? ", " : "", section->name);
    for (int i = 0; i < config->n_stages; i++)
        strbuf_addf(&places, "%s%s", i ? ", " : "; stages: ", config->stages[i].name);
    return error_set(error, EINVAL, "%s: no section or stage is called '%s'; sections: %s", name, place, places.text);
}

static struct yaml_node *find_key(struct yaml_node *map, const char *key)
{
    struct yaml_node *node = map->first;

    while (node && strcmp(node->key, key) != 0)
        node = node->next;
    return node;
}

/* "suite:" and "- rl:" without a word behind them are maps that have no key yet. */
static struct yaml_node *as_map(struct yaml_node *node)
{
    if (node->kind == YAML_SCALAR)
        node->kind = YAML_MAP;
    return node;
}

/* Adds a section that the file does not have. */
static int add_section(struct yaml_node *root, const char *section, struct error *error)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *map = NULL;
    int r = yaml_tree_parse("", 0, section, &map, error);

    if (r == 0 && (r = yaml_tree_put(root, section, map)) < 0)
        return error_set(error, -r, "out of memory");
    if (r == 0)
        TAKE_PTR(map);
    return r;
}

/* The map that has, or will have, the key: a stage's by its name, as `config` has read it, or a section's. */
static int find_place(struct yaml_node *root, const struct run_config *config, const char *name, const char *place,
                      struct yaml_node **ret, struct error *error)
{
    struct yaml_node *stages = find_key(root, "stages"), *entry = stages ? stages->first : NULL;
    int r = 0;

    for (int i = 0; i < config->n_stages; i++, entry = entry->next)
        if (!strcmp(config->stages[i].name, place)) {
            *ret = as_map(entry->first);
            return 0;
        }
    if (!run_section_find(place))
        return no_place(config, name, place, error);
    if (!find_key(root, place) && (r = add_section(root, place, error)) < 0)
        return r;
    *ret = as_map(find_key(root, place));
    return 0;
}

static int make_change(struct yaml_node *root, const struct run_config *config, const char *name, const char *change,
                       struct error *error)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *value = NULL;
    const char *dot = strchr(change, '.'), *equals = strchr(change, '=');
    struct yaml_node *map = NULL;
    char place[64], key[64];
    int r;

    if (!dot || !equals || dot > equals || dot - change >= (int)sizeof place || equals - dot > (int)sizeof key ||
        strpbrk(change, "\r\n"))
        return error_set(error, EINVAL, "'%s' is no change; expected: PLACE.KEY=VALUE, such as rl.lr=1e-4, on one line", change);
    snprintf(place, sizeof place, "%.*s", (int)(dot - change), change);
    snprintf(key, sizeof key, "%.*s", (int)(equals - dot - 1), dot + 1);
    equals = equals[1] ? equals + 1 : "\"\"";
    if ((r = find_place(root, config, name, place, &map, error)) < 0 ||
        (r = yaml_tree_parse(equals, strlen(equals), change, &value, error)) < 0)
        return r;
    if ((r = yaml_tree_put(map, key, value)) < 0)
        return error_set(error, -r, "out of memory");
    TAKE_PTR(value);
    return 0;
}

int run_config_edit(const char *yaml, size_t n, const char *name, const char *const *changes, int n_changes, struct strbuf *out,
                    struct error *error)
{
    _cleanup_(yaml_tree_freep) struct yaml_node *root = NULL;
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    int r = config ? run_config_parse(yaml, n, name, config, error) : error_set(error, ENOMEM, "out of memory");

    if (r == 0)
        r = yaml_tree_parse(yaml, n, name, &root, error);
    for (int i = 0; i < n_changes && r == 0; i++)
        r = make_change(root, config, name, changes[i], error);
    if (r == 0 && (r = yaml_tree_write(root, &text)) < 0)
        r = error_set(error, -r, "out of memory");
    if (r == 0)
        r = run_config_parse(text.text, text.length, "with these changes", config, error);
    if (r == 0)
        strbuf_add(out, text.text, text.length);
    return r;
}
