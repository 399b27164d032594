/* scene.h - compose one task's MJCF as LIBERO and robosuite do: same elements, same order, so same ids.
 *
 *   scene_compose(&assets, problem, &xml, error) -> one MJCF text with absolute file names, for model.h to compile
 *
 * The order of merging decides ids, the layout of qpos and which surface reflects: arena, robot (with mount and gripper
 * inside), objects as in :objects, fixtures as in :fixtures. Everything compiles under base.xml's one <compiler> (radians, mass
 * from group 0 only); children's own compiler, option, size and default blocks are dropped, defaults being written into the
 * elements first. A second asset of the same kind and name is dropped.
 * Files: scene.c the whole, scene_arena.c, scene_robot.c, scene_object.c the parts, mjcf.h what they share. */
#pragma once

#include "base/strbuf.h"
#include "sim/suites/libero/bddl.h"
#include "sim/suites/libero/catalog.h"

enum robosuite_version { ROBOSUITE_1_4_0, ROBOSUITE_1_4_1 };    /* 1.4.1: link7 of the arm collides */

struct libero_assets {
    char *libero;               /* the folder that holds assets, bddl_files, init_files */
    char *robosuite;            /* the folder that holds models/assets */
    enum robosuite_version version;
};

/* Appends to *xml. -ENOENT, -EINVAL: a file that is missing or not as expected, named in the line. */
int scene_compose(const struct libero_assets *assets, const struct bddl_problem *problem, struct strbuf *xml,
                  struct error *error);
