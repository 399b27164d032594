/* check.h - compare with reference data made by the original Python stack: `gantry sim check --suite libero --golden DIR`.
 *
 * DIR holds physics/<suite>_<task>_row<k>.npz, predicates/<suite>_<task>.npz, models/<suite>_<task>.json.gz, pictures in images,
 * in the format of that stack's manifest; any other rollouts made by the same generator are accepted. Tolerances, per step t:
 *   physics, reference   |qpos - golden| and |observation - golden| <= bound = max(1e-9, 100 sens_noise[t]); contacts, success
 *                        equal; |ctrl - golden| <= max(1e-6, 10 bound): where contacts amplify rounding, a torque moves with
 *                        the joints' velocities, and the original's own rerun on another CPU is 2e-6 away
 *   physics, onepass     |qpos - golden| <= max(1e-9, 10 sens_onepass[t])
 *   models               names and integers equal, floats to 1e-9 relative, meshes and pictures by digest
 *   predicates           equal after forward and after one step of the reference order */
#pragma once

#include "sim/suites/libero/libero.h"

struct zip_archive;

struct check_result {
    double qpos, ctrl, observation;     /* largest absolute difference over the steps */
    double bound;               /* tolerance of qpos where it was largest relative to it */
    int first_bad;              /* first step out of tolerance; -1: none */
    int contacts_differ;        /* steps whose number of contacts differs */
    int wrong;                  /* predicate values, rewards, done flags that differ */
    int compared;               /* steps, or predicate values, or pictures */
    double pixels;              /* images: smallest share of a picture's pixels that are within 1 of 255 */
    char where[200];            /* the first thing that differs, in words; "" when nothing does */
};

/* One physics file in one order. -errno: the file cannot be read (line in error). Result says whether it agrees. */
int check_physics(const struct libero_task *task, const char *path, enum libero_order order, struct check_result *ret,
                  struct error *error);
int check_predicates(const struct libero_task *task, const char *path, struct check_result *ret, struct error *error);
/* The compiled model against a dump (models/<suite>_<task>.json.gz). */
int check_model(const struct libero_task *task, const char *path, struct check_result *ret, struct error *error);
/* images/<suite>_<task>_states.npz and the pictures beside it: 99.9 % of the pixels within 1, on the same renderer and files.
 * renderers: for sides 128 and 256. The task must have come through sim_task_open. */
int check_images(const struct libero_task *task, const char *path, struct sim_renderer *const renderers[2],
                 struct check_result *ret, struct error *error);
/* All of it agrees, and there was something to compare. */
bool check_passed(const struct check_result *result);

/* For check_*.c. Array `name` as doubles (caller frees), `columns` to a row (0: any). *ret_rows (may be NULL): how many. */
int check_read_rows(const struct zip_archive *file, const char *name, size_t columns, double **ret, size_t *ret_rows,
                    struct error *error);
/* The same, of so many rows and no others. */
int check_read_exactly(const struct zip_archive *file, const char *name, size_t columns, size_t rows, double **ret,
                       struct error *error);
/* fixture_pose by fixture_names, in the order of the task's things. */
int check_read_fixtures(const struct libero_task *task, const struct zip_archive *file, double ret_poses[LIBERO_MAX_FIXTURES][7],
                        struct error *error);
