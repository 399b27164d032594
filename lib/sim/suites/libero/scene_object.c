/* scene_object.c - one object or fixture: the body called "object", its geoms named, prefixed by the instance's name. */
#include <errno.h>
#include <string.h>

#include "sim/suites/libero/mjcf.h"

/* g<i> for unnamed geoms, i counting all of them in document order. Other groups than 0 and 1 are taken out, but counted. */
static int name_geoms(struct xml_node *node, int *i, const char *file, struct error *error)
{
    int r = 0;

    for (int c = 0; c < node->n_children && r == 0; c++) {
        struct xml_node *child = node->children[c];
        const char *group = xml_get(child, "group");

        if (strcmp(child->tag, "geom") == 0) {
            if (!group)
                return error_set(error, EINVAL, "%s: line %d: a geom without group (0 collides, 1 is seen)", file, child->line);
            if (strcmp(group, "0") != 0 && strcmp(group, "1") != 0) {
                xml_free(xml_detach(child));
                c--;
                ++*i;
                continue;
            }
            if (!xml_get(child, "name"))
                r = xml_setf(child, "name", "g%d", *i);
            ++*i;
        }
        if (r == 0)
            r = name_geoms(child, i, file, error);
    }
    return r == -ENOMEM ? error_set(error, ENOMEM, "%s: out of memory", file) : r;
}

static int add_free_joint(struct xml_node *body)
{
    struct xml_node *joint = xml_add(body, "joint");
    int r = joint ? xml_set(joint, "type", "free") : -ENOMEM;

    r = r < 0 ? r : xml_set(joint, "damping", "0.0005");
    return r < 0 ? r : xml_set(joint, "name", "joint0");
}

static int add_default_site(struct xml_node *body)
{
    struct xml_node *site = xml_add(body, "site");
    int r = site ? xml_set(site, "pos", "0 0 0") : -ENOMEM;

    r = r < 0 ? r : xml_set(site, "size", "0.002 0.002 0.002");
    r = r < 0 ? r : xml_set(site, "rgba", "1 0 0 0");
    r = r < 0 ? r : xml_set(site, "type", "sphere");
    r = r < 0 ? r : xml_set(site, "group", "0");
    return r < 0 ? r : xml_set(site, "name", "default_site");
}

/* worldbody/body/body[@name='object'] */
static struct xml_node *find_object(struct xml_node *world)
{
    for (int i = 0; i < world->n_children; i++) {
        struct xml_node *outer = world->children[i];

        for (int k = 0; strcmp(outer->tag, "body") == 0 && k < outer->n_children; k++) {
            const char *name = xml_get(outer->children[k], "name");

            if (strcmp(outer->children[k]->tag, "body") == 0 && name && strcmp(name, "object") == 0)
                return outer->children[k];
        }
    }
    return NULL;
}

/* *ret: the file's tree with <asset> as read (prefixed) and <worldbody> holding the object's body alone. */
int scene_object(const struct libero_assets *assets, const struct bddl_thing *thing, bool movable, struct xml_node **ret,
                 struct error *error)
{
    const struct libero_category *category = libero_category(thing->category);
    _cleanup_(xml_freep) struct xml_node *root = NULL, *rest = NULL;
    struct xml_node *world, *object;
    char file[160], prefix[160];
    int r, geoms = 0;

    if (!category)
        return error_set(error, EINVAL, "'%s' is of category '%s', which LIBERO does not have", thing->name, thing->category);
    snprintf(file, sizeof(file), "assets/%s.xml", category->file);
    r = mjcf_read(assets->libero, file, &root, error);
    if (r < 0)
        return r;
    object = find_object(xml_child(root, "worldbody"));
    r = mjcf_need(object, file, "worldbody/body/body[@name='object']", error);
    if (r == 0)
        r = name_geoms(object, &geoms, file, error);
    if (r < 0)
        return r;

    r = xml_set(object, "name", "main");
    if (r == 0 && movable)
        r = add_free_joint(object);
    r = r < 0 ? r : add_default_site(object);
    if (r == 0) {       /* the outer body and its placement sites stay behind */
        xml_detach(object);
        rest = xml_detach(xml_child(root, "worldbody"));    /* NOLINT(clang-analyzer-deadcode.DeadStores): the cleanup frees it */
        world = xml_add(root, "worldbody");
        r = world ? xml_append(world, object) : -ENOMEM;
        if (r < 0)
            xml_free(object);
    }
    snprintf(prefix, sizeof(prefix), "%s_", thing->name);
    r = r < 0 ? r : mjcf_prefix(root, prefix);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", file);
    *ret = TAKE_PTR(root);
    return 0;
}
