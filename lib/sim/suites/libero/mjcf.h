/* mjcf.h - what robosuite does to every MJCF it merges (robosuite/models/base.py, utils/mjcf_utils.py); for the scene_*.c. */
#pragma once

#include "sim/suites/libero/scene.h"
#include "sim/suites/libero/xml.h"

/* Read a child file: defaults written into the elements that name a class, file names made absolute, and every section that
 * merging looks at (worldbody, asset, actuator, sensor, tendon, equality, contact) present. */
int mjcf_read(const char *folder, const char *file, struct xml_node **ret, struct error *error);

/* Put `prefix` before every name and reference below `node` that does not begin with it. */
int mjcf_prefix(struct xml_node *node, const char *prefix);
/* Collision geoms (group 0 or none) get this colour and lose their material; `except`: a geom's name, or NULL. */
int mjcf_recolor(struct xml_node *node, const char *rgba, const char *except);

/* Move child's assets into root's; what root has already (same tag and name) is dropped with the child. */
int mjcf_merge_assets(struct xml_node *root, struct xml_node *child);
/* Assets, then worldbody's children into `body` (NULL: none), then actuators, sensors, tendons, equalities, contacts. */
int mjcf_merge(struct xml_node *root, struct xml_node *child, struct xml_node *body);

/* -ENOENT with the file and what was looked for, when `node` is NULL. */
int mjcf_need(const struct xml_node *node, const char *file, const char *what, struct error *error);

/* "%.17g %.17g ...": doubles as Python prints them, to the last bit. */
int mjcf_set_numbers(struct xml_node *node, const char *attribute, const double *numbers, int n);

int scene_arena(const struct libero_assets *assets, const struct libero_arena *arena, const struct bddl_problem *problem,
                struct xml_node **ret, struct error *error);
int scene_robot(const struct libero_assets *assets, const struct libero_arena *arena, struct xml_node **ret, struct error *error);
/* movable: with a free joint. */
int scene_object(const struct libero_assets *assets, const struct bddl_thing *thing, bool movable, struct xml_node **ret,
                 struct error *error);
