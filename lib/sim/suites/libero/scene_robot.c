/* scene_robot.c - the Panda arm, what it stands on, its gripper: one tree with the prefixes robot0_, mount0_, gripper0_. */
#include <errno.h>
#include <string.h>

#include "sim/suites/libero/mjcf.h"

enum { ARM_JOINTS = 7 };

static const double arm_damping[ARM_JOINTS] = { 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01 };

/* Unnamed geoms get g<i>_vis or g<i>_col, counted per kind in document order. */
static int name_geoms(struct xml_node *node, int counts[2])
{
    int r = 0;

    if (strcmp(node->tag, "geom") == 0 && !xml_get(node, "name")) {
        const char *group = xml_get(node, "group");
        bool visual = group && strcmp(group, "1") == 0;

        r = xml_setf(node, "name", "g%d_%s", counts[visual]++, visual ? "vis" : "col");
    }
    for (int i = 0; i < node->n_children && r == 0; i++)
        r = name_geoms(node->children[i], counts);
    return r;
}

/* A robot part: geoms named, everything prefixed, collision geoms recoloured. *ret_body: its one root body. */
static int read_part(const struct libero_assets *assets, const char *file, const char *prefix, const char *rgba,
                     struct xml_node **ret, struct xml_node **ret_body, struct error *error)
{
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    _cleanup_free_ char *folder = NULL;
    struct xml_node *world;
    int counts[2] = {0}, r;

    if (asprintf(&folder, "%s/models/assets", assets->robosuite) < 0) {
        folder = NULL;
        return error_set(error, ENOMEM, "%s: out of memory", file);
    }
    r = mjcf_read(folder, file, &root, error);
    if (r < 0)
        return r;
    world = xml_child(root, "worldbody");
    r = mjcf_need(xml_child(world, "body"), file, "a body in <worldbody>", error);
    if (r < 0)
        return r;
    r = name_geoms(root, counts);
    r = r < 0 ? r : mjcf_prefix(root, prefix);
    r = r < 0 ? r : mjcf_recolor(world, rgba, NULL);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", file);
    *ret_body = xml_child(world, "body");
    *ret = TAKE_PTR(root);
    return 0;
}

/* 1.4.1 and later let link7 collide, 1.4.0 does not: the files may be of either, the switch decides. */
static int set_link7(struct xml_node *root, enum robosuite_version version, const char *file, struct error *error)
{
    struct xml_node *link7 = xml_find(root, "body", "robot0_link7"), *geom = xml_find(root, "geom", "robot0_link7_collision");
    int r = mjcf_need(link7, file, "a body link7", error);

    if (r < 0)
        return r;
    if (version == ROBOSUITE_1_4_0 && geom) {
        xml_free(xml_detach(geom));
    } else if (version == ROBOSUITE_1_4_1 && !geom) {
        geom = xml_add(link7, "geom");
        r = geom ? xml_set(geom, "type", "mesh") : -ENOMEM;
        r = r < 0 ? r : xml_set(geom, "group", "0");
        r = r < 0 ? r : xml_set(geom, "mesh", "robot0_link7");
        r = r < 0 ? r : xml_set(geom, "name", "robot0_link7_collision");
        r = r < 0 ? r : xml_set(geom, "rgba", "0 0.5 0 1");
    }
    return r < 0 ? error_set(error, -r, "%s: out of memory", file) : 0;
}

static int set_if_open(struct xml_node *node, const char *attribute, double value)
{
    return xml_get(node, attribute) ? 0 : mjcf_set_numbers(node, attribute, &value, 1);
}

static int set_joints(struct xml_node *root)
{
    int r = 0;

    for (int i = 0; i < ARM_JOINTS && r == 0; i++) {
        char name[32];
        struct xml_node *joint;

        snprintf(name, sizeof(name), "robot0_joint%d", i + 1);
        joint = xml_find(root, "joint", name);
        if (!joint)
            return -EINVAL;
        r = set_if_open(joint, "frictionloss", 0.1);
        r = r < 0 ? r : set_if_open(joint, "armature", 5.0 / (i + 1));
        r = r < 0 ? r : mjcf_set_numbers(joint, "damping", &arm_damping[i], 1);
    }
    return r;
}

int scene_robot(const struct libero_assets *assets, const struct libero_arena *arena, struct xml_node **ret, struct error *error)
{
    static const char file[] = "robots/panda/robot.xml", gripper_file[] = "grippers/panda_gripper.xml";
    static const double on_mount[3] = { 0, 0, 0.01 }, on_ground[3];     /* mount's top below the robot's base */
    const char *mount_file = arena->mounted ? "mounts/rethink_mount.xml" : "mounts/null_mount.xml";
    const double base[3] = { arena->base[0], arena->base[1], arena->base[2] - (arena->mounted ? -0.922 - -0.01 : 0) };
    _cleanup_(xml_freep) struct xml_node *robot = NULL, *mount = NULL, *gripper = NULL;
    struct xml_node *body, *mount_body, *gripper_body, *hand;
    int r;

    r = read_part(assets, file, "robot0_", "0 0.5 0 1", &robot, &body, error);
    if (r == 0)
        r = read_part(assets, mount_file, "mount0_", "0.5 0.5 0 1", &mount, &mount_body, error);
    if (r == 0)
        r = read_part(assets, gripper_file, "gripper0_", "0 0 0.5 1", &gripper, &gripper_body, error);
    if (r == 0)
        r = set_link7(robot, assets->version, file, error);
    if (r < 0)
        return r;
    hand = xml_find(body, "body", "robot0_right_hand");
    r = mjcf_need(hand, file, "a body right_hand", error);
    if (r < 0)
        return r;

    r = set_joints(robot);
    if (r == -EINVAL)
        return error_set(error, EINVAL, "%s: expected joint1 to joint7 in it", file);
    r = r < 0 ? r : mjcf_set_numbers(mount_body, "pos", arena->mounted ? on_mount : on_ground, 3);
    r = r < 0 ? r : mjcf_merge(robot, mount, body);
    r = r < 0 ? r : mjcf_merge(robot, gripper, hand);
    r = r < 0 ? r : mjcf_set_numbers(body, "pos", base, 3);
    if (r < 0)
        return error_set(error, -r, "%s: out of memory", file);
    *ret = TAKE_PTR(robot);
    return 0;
}
