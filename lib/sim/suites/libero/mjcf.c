#include "sim/suites/libero/mjcf.h"

#include <errno.h>
#include <string.h>

static const char *const sections[] = { "worldbody", "actuator", "sensor", "asset", "tendon", "equality", "contact" };

/* Attributes that name something or refer to a name. */
static const char *const naming[] = {
    "class",     "childclass", "name",  "objname", "material", "texture",  "joint",  "joint1",  "joint2",  "jointinparent",
    "geom",      "geom1",      "geom2", "mesh",    "fixed",    "actuator", "tendon", "tendon1", "tendon2", "slidesite",
    "cranksite", "body",       "body1", "body2",   "hfield",   "target",   "prefix", "site",
};

/* The <default class="..."> block of this class. */
static const struct xml_node *find_class(const struct xml_node *defaults, const char *name)
{
    for (int i = 0; defaults && i < defaults->n_children; i++) {
        const char *own = xml_get(defaults->children[i], "class");

        if (own && strcmp(own, name) == 0)
            return defaults->children[i];
    }
    return NULL;
}

/* An element's own class fills in what the element leaves open; childclass is not known here, as in the original. */
static int inline_defaults(struct xml_node *node, const struct xml_node *defaults, const char *file, struct error *error)
{
    const char *name = xml_get(node, "class");
    int r = 0;

    if (name) {
        const struct xml_node *class = find_class(defaults, name), *fill;

        if (!class)
            return error_set(error, EINVAL, "%s: line %d: there is no default class '%s'", file, node->line, name);
        fill = xml_child(class, node->tag);
        for (int i = 0; fill && i < fill->n_attributes && r == 0; i++)
            if (!xml_get(node, fill->attributes[i].name))
                r = xml_set(node, fill->attributes[i].name, fill->attributes[i].value);
        xml_unset(node, "class");
    }
    for (int i = 0; i < node->n_children && r == 0; i++)
        r = inline_defaults(node->children[i], defaults, file, error);
    return r == -ENOMEM ? error_set(error, ENOMEM, "%s: out of memory", file) : r;
}

static int absolute_files(struct xml_node *asset, const char *path)
{
    const char *slash = strrchr(path, '/');
    int r = 0;

    for (int i = 0; i < asset->n_children && r == 0; i++) {
        const char *file = xml_get(asset->children[i], "file");

        if (file && file[0] != '/')
            r = xml_setf(asset->children[i], "file", "%.*s/%s", (int)(slash - path), path, file);
    }
    return r;
}

static int prepare(struct xml_node *root, const char *path, struct error *error)
{
    struct xml_node *defaults = xml_child(root, "default");
    int r = 0;

    if (strcmp(root->tag, "mujoco") != 0)
        return error_set(error, EINVAL, "%s: <mujoco> was expected, found <%s>", path, root->tag);
    if (defaults)
        xml_detach(defaults);
    r = inline_defaults(root, defaults, path, error);
    xml_free(defaults);
    for (size_t i = 0; i < ARRAY_SIZE(sections) && r == 0; i++)
        if (!xml_child(root, sections[i]) && !xml_add(root, sections[i]))
            r = error_set(error, ENOMEM, "%s: out of memory", path);
    return r < 0                                                ? r
           : absolute_files(xml_child(root, "asset"), path) < 0 ? error_set(error, ENOMEM, "%s: out of memory", path)
                                                                : 0;
}

int mjcf_read(const char *folder, const char *file, struct xml_node **ret, struct error *error)
{
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    _cleanup_free_ char *path = NULL;
    int r;

    if (asprintf(&path, "%s/%s", folder, file) < 0) {
        path = NULL;
        return error_set(error, ENOMEM, "%s: out of memory", file);
    }
    r = xml_read(path, &root, error);
    if (r == 0)
        r = prepare(root, path, error);
    if (r == 0)
        *ret = TAKE_PTR(root);
    return r;
}

int mjcf_prefix(struct xml_node *node, const char *prefix)
{
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(naming) && r == 0; i++) {
        _cleanup_free_ char *name = NULL;
        const char *old = xml_get(node, naming[i]);

        if (!old || strncmp(old, prefix, strlen(prefix)) == 0)
            continue;
        name = strdup(old);     /* xml_setf frees what it replaces */
        r = name ? xml_setf(node, naming[i], "%s%s", prefix, name) : -ENOMEM;
    }
    for (int i = 0; i < node->n_children && r == 0; i++)
        r = mjcf_prefix(node->children[i], prefix);
    return r;
}

int mjcf_recolor(struct xml_node *node, const char *rgba, const char *except)
{
    const char *group = xml_get(node, "group"), *name = xml_get(node, "name");
    int r = 0;

    if (strcmp(node->tag, "geom") == 0 && (!group || strcmp(group, "0") == 0) && !(except && name && strcmp(name, except) == 0)) {
        r = xml_set(node, "rgba", rgba);
        xml_unset(node, "material");
    }
    for (int i = 0; i < node->n_children && r == 0; i++)
        r = mjcf_recolor(node->children[i], rgba, except);
    return r;
}

static bool has_asset(const struct xml_node *assets, const struct xml_node *asset)
{
    const char *name = xml_get(asset, "name");

    for (int i = 0; i < assets->n_children; i++) {
        const char *other = xml_get(assets->children[i], "name");

        if (strcmp(assets->children[i]->tag, asset->tag) == 0 && (name && other ? strcmp(name, other) == 0 : name == other))
            return true;
    }
    return false;
}

int mjcf_merge_assets(struct xml_node *root, struct xml_node *child)
{
    struct xml_node *to = xml_child(root, "asset"), *from = xml_child(child, "asset");
    int i = 0, r = 0;

    while (i < from->n_children && r == 0) {
        if (has_asset(to, from->children[i]))
            i++;
        else
            r = xml_append(to, from->children[i]);
    }
    return r;
}

/* All of from's children behind to's. */
static int move_children(struct xml_node *to, struct xml_node *from)
{
    int r = 0;

    while (from->n_children && r == 0)
        r = xml_append(to, from->children[0]);
    return r;
}

int mjcf_merge(struct xml_node *root, struct xml_node *child, struct xml_node *body)
{
    static const char *const lists[] = { "actuator", "sensor", "tendon", "equality", "contact" };
    int r = body ? move_children(body, xml_child(child, "worldbody")) : 0;

    if (r == 0)
        r = mjcf_merge_assets(root, child);
    for (size_t i = 0; i < ARRAY_SIZE(lists) && r == 0; i++)
        r = move_children(xml_child(root, lists[i]), xml_child(child, lists[i]));
    return r;
}

int mjcf_need(const struct xml_node *node, const char *file, const char *what, struct error *error)
{
    return node ? 0 : error_set(error, EINVAL, "%s: expected %s in it", file, what);
}

int mjcf_set_numbers(struct xml_node *node, const char *attribute, const double *numbers, int n)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;

    for (int i = 0; i < n; i++)
        strbuf_addf(&text, "%s%.17g", i ? " " : "", numbers[i]);
    return text.failed ? -ENOMEM : xml_set(node, attribute, text.text);
}
