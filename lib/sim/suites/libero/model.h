/* model.h - a composed scene as a constant mjModel: compiled once, kept on disk, its textures shared.
 *
 *   model_open(&assets, problem, cache, &model, error) -> shared by all slots of the task -> model_close
 *
 * The cache folder (NULL or "": none) holds <key>.mjb, the compiled model without its textures, and textures/<digest>; the key
 * is a digest of the MJCF, of the contents of every file it names, and of MuJoCo's version, so a stale entry is never found.
 * A damaged or missing entry is compiled anew. Pictures that several models (or one model several times) use lie once in memory,
 * in a region that lives as long as the process: mjModel.tex_data points there. Never pass such a model to mj_copyModel or
 * mj_saveModel. Compiling takes seconds, loading tens of milliseconds. Thread rule: any thread; calls take turns. */
#pragma once

#include "sim/mujoco_slot.h"
#include "sim/suites/libero/scene.h"

int model_open(const struct libero_assets *assets, const struct bddl_problem *problem, const char *cache, mjModel **ret,
               struct error *error);
void model_close(mjModel *model);
