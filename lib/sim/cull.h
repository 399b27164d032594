/* cull.h - leave out of a MuJoCo scene what its picture cannot show: geoms outside the camera's frustum.
 *
 * MuJoCo sends every vertex of every mesh to OpenGL, also of the arm behind the wrist's camera, and once more for each mirror. A
 * software renderer pays for all of it. A geom goes when the box around it lies outside the frustum, and its mirror images lie
 * outside what each mirror in the picture can show. The picture stays the same to the bit.
 * Not for scenes with shadows: what throws one may be out of sight. */
#pragma once

#include <mujoco/mujoco.h>

/* Between mjv_updateScene and mjr_render. How many geoms went; 0 where a light casts shadows that are drawn. */
int scene_cull(const mjModel *model, mjvScene *scene, int width, int height);
