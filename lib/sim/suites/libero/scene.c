#include "sim/suites/libero/scene.h"

#include <errno.h>
#include <string.h>

#include "sim/suites/libero/mjcf.h"

static int read_base(const struct libero_assets *assets, struct xml_node **ret, struct error *error)
{
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    struct xml_node *option, *size;
    int r = mjcf_read(assets->robosuite, "models/assets/base.xml", &root, error);

    if (r < 0)
        return r;
    option = xml_child(root, "option");
    size = xml_child(root, "size");
    r = mjcf_need(option, "models/assets/base.xml", "<option>", error);
    if (r < 0)
        return r;
    r = xml_set(option, "timestep", "0.002");
    if (r == 0 && size) {       /* room for 5000 contacts would be 1.3 GB for each mjData; model.c sets what is needed */
        xml_unset(size, "nconmax");
        xml_unset(size, "njmax");
    }
    if (r < 0)
        return error_set(error, -r, "models/assets/base.xml: out of memory");
    *ret = TAKE_PTR(root);
    return 0;
}

/* One object or fixture behind what is there; only its assets and its body count. */
static int add_object(const struct libero_assets *assets, const struct bddl_thing *thing, bool movable, struct xml_node *root,
                      struct error *error)
{
    _cleanup_(xml_freep) struct xml_node *object = NULL;
    int r = scene_object(assets, thing, movable, &object, error);

    if (r < 0)
        return r;
    r = mjcf_merge_assets(root, object);
    if (r == 0)
        r = xml_append(xml_child(root, "worldbody"), xml_child(xml_child(object, "worldbody"), "body"));
    return r < 0 ? error_set(error, -r, "%s: out of memory", thing->name) : 0;
}

static int compose(const struct libero_assets *assets, const struct libero_arena *arena, const struct bddl_problem *problem,
                   struct xml_node *root, struct error *error)
{
    _cleanup_(xml_freep) struct xml_node *room = NULL, *robot = NULL;
    int r;

    r = scene_arena(assets, arena, problem, &room, error);
    if (r == 0)
        r = scene_robot(assets, arena, &robot, error);
    if (r < 0)
        return r;
    r = mjcf_merge(root, room, xml_child(root, "worldbody"));
    if (r == 0)
        r = mjcf_merge(root, robot, xml_child(root, "worldbody"));
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", problem->file);
    for (int i = 0; i < problem->n_objects && r == 0; i++)
        r = add_object(assets, &problem->objects[i], true, root, error);
    for (int i = 0; i < problem->n_fixtures && r == 0; i++)
        if (strcmp(problem->fixtures[i].name, arena->workspace) != 0)
            r = add_object(assets, &problem->fixtures[i], false, root, error);
    return r;
}

int scene_compose(const struct libero_assets *assets, const struct bddl_problem *problem, struct strbuf *xml, struct error *error)
{
    const struct libero_arena *arena = libero_arena(problem->problem);
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    int r;

    if (!arena)
        return error_set(error, EINVAL, "%s: problem class '%s' is not one of LIBERO's five", problem->file, problem->problem);
    r = read_base(assets, &root, error);
    if (r == 0)
        r = compose(assets, arena, problem, root, error);
    if (r < 0)
        return error_prefix(error, r, "%s", problem->file);
    xml_print(root, xml);
    return xml->failed ? error_set(error, ENOMEM, "%s: out of memory", problem->file) : 0;
}
