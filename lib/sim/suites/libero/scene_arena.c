/* scene_arena.c - the room: its style's textures, its table, its cameras, a site for every region on the work surface. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "sim/suites/libero/mjcf.h"

static const char environment_rgba[] = "0.5 0.5 0 1";

/* The texture's file becomes another one of the same folder. */
static int restyle(struct xml_node *root, const char *texture, const char *file, const char *scene, struct error *error)
{
    struct xml_node *node = xml_find(xml_child(root, "asset"), "texture", texture);
    const char *old = node ? xml_get(node, "file") : NULL;
    _cleanup_free_ char *folder = NULL;

    if (!old)
        return error_set(error, EINVAL, "%s: expected texture '%s' with a file in it", scene, texture);
    folder = strndup(old, (size_t)(strrchr(old, '/') - old));
    return folder && xml_setf(node, "file", "%s/%s", folder, file) == 0 ? 0
                                                                        : error_set(error, ENOMEM, "%s: out of memory", scene);
}

/* Table arenas: size, place and legs are computed, not read. */
static int place_table(const struct libero_arena *arena, struct xml_node *body)
{
    static const double dx[4] = { 0.1, -0.1, -0.1, 0.1 }, dy[4] = { 0.1, 0.1, -0.1, -0.1 };
    static const double zero[3];
    const double *half = arena->table_half;
    const double centre[3] = { 0, 0, -half[2] + arena->offset[2] }, top[3] = { 0, 0, half[2] };
    struct xml_node *collision = xml_find(body, "geom", "table_collision"), *visual = xml_find(body, "geom", "table_visual");
    struct xml_node *site = xml_find(body, "site", "table_top"), *floor = xml_find(body->parent, "geom", "floor");
    int r;

    if (!collision || !visual || !site || !floor)
        return -EINVAL;
    r = mjcf_set_numbers(floor, "pos", zero, 3);
    r = r < 0 ? r : mjcf_set_numbers(body, "pos", centre, 3);
    r = r < 0 ? r : mjcf_set_numbers(collision, "size", half, 3);
    r = r < 0 ? r : xml_set(collision, "friction", arena->table_friction);
    r = r < 0 ? r : mjcf_set_numbers(visual, "size", half, 3);
    r = r < 0 ? r : mjcf_set_numbers(site, "pos", top, 3);
    for (int i = 0; i < 4 && r == 0; i++) {
        const double z = (arena->offset[2] - half[2]) / 2.0, size[2] = { 0.025, z };
        const double pos[3] = { half[0] > fabs(dx[i] * 2.0) ? copysign(half[0], dx[i]) - dx[i] : 0,
                                half[1] > fabs(dy[i] * 2.0) ? copysign(half[1], dy[i]) - dy[i] : 0, -z };
        char name[32];
        struct xml_node *leg;

        snprintf(name, sizeof(name), "table_leg%d_visual", i + 1);
        leg = xml_find(body, "geom", name);
        if (!leg)
            return -EINVAL;
        r = mjcf_set_numbers(leg, "pos", pos, 3);
        r = r < 0 ? r : mjcf_set_numbers(leg, "size", size, 2);
    }
    return r;
}

static int set_camera(struct xml_node *world, const struct libero_camera *camera)
{
    struct xml_node *node = xml_find(world, "camera", camera->name);
    int r = 0;

    if (!node) {
        node = xml_add(world, "camera");
        r = node ? xml_set(node, "name", camera->name) : -ENOMEM;
    }
    r = r < 0 ? r : mjcf_set_numbers(node, "pos", camera->pos, 3);
    return r < 0 ? r : mjcf_set_numbers(node, "quat", camera->quat, 4);
}

/* A thin box over the region's rectangle. */
static int add_region_site(const struct libero_arena *arena, const struct bddl_region *region, struct xml_node *body)
{
    static const double upright[4] = { 1, 0, 0, 0 };
    const double *range = region->range;
    const double size[3] = { (range[2] - range[0]) / 2, (range[3] - range[1]) / 2, 0.007 };
    const double pos[3] = { (range[2] + range[0]) / 2 + (arena->offset_sites ? arena->offset[0] : 0),
                            (range[3] + range[1]) / 2 + (arena->offset_sites ? arena->offset[1] : 0), arena->site_z };
    struct xml_node *site = xml_add(body, "site");
    int r = site ? xml_set(site, "name", region->name) : -ENOMEM;

    r = r < 0 ? r : mjcf_set_numbers(site, "pos", pos, 3);
    r = r < 0 ? r : mjcf_set_numbers(site, "quat", upright, 4);
    r = r < 0 ? r : mjcf_set_numbers(site, "rgba", region->rgba, 4);
    r = r < 0 ? r : mjcf_set_numbers(site, "size", size, 3);
    return r < 0 ? r : xml_set(site, "type", "box");
}

int scene_arena(const struct libero_assets *assets, const struct libero_arena *arena, const struct bddl_problem *problem,
                struct xml_node **ret, struct error *error)
{
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    struct xml_node *world, *body;
    char file[128];
    int r;

    snprintf(file, sizeof(file), "assets/scenes/%s.xml", arena->scene);
    r = mjcf_read(assets->libero, file, &root, error);
    if (r < 0)
        return r;
    world = xml_child(root, "worldbody");
    body = xml_find(world, "body", arena->body);
    r = mjcf_need(body, file, "a body for the work surface", error);
    if (r == 0)
        r = restyle(root, "texplane", arena->floor, file, error);
    if (r == 0)
        r = restyle(root, "tex-wall", arena->wall, file, error);
    if (r < 0)
        return r;

    r = mjcf_recolor(world, environment_rgba, "floor");
    if (r == 0 && arena->table_half[0] > 0)
        r = place_table(arena, body);
    for (int i = 0; i < (int)ARRAY_SIZE(arena->cameras) && arena->cameras[i].name && r == 0; i++)
        r = set_camera(world, &arena->cameras[i]);
    for (int i = 0; i < problem->n_regions && r == 0; i++) {
        const struct bddl_region *region = &problem->regions[i];

        if (!strstr(region->name, arena->workspace))
            continue;
        if (!region->has_range)
            return error_set(error, EINVAL, "%s: region %s on the work surface needs (:ranges ((x0 y0 x1 y1)))", problem->file,
                             region->name);
        r = add_region_site(arena, region, body);
    }
    if (r == -EINVAL)
        return error_set(error, EINVAL, "%s: expected table_collision, table_visual, four table_leg*_visual and site table_top",
                         file);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", file);
    *ret = TAKE_PTR(root);
    return 0;
}
