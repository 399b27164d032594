/* sim.h - the verbs of `gantry sim` that play in a suite by themselves, and the words they share.
 *
 * --suite NAME, --task N|NAME, --split train|val|test, --states A..B, --renderer, --robosuite, --substeps, --cache are read by
 * sim_target_read, which takes them out of argv; each verb then reads its own and refuses what is left over. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "image/image.h"
#include "sim/sim.h"

int sim_play(int argc, char **argv);
int sim_render_verb(int argc, char **argv);
int sim_bench(int argc, char **argv);
int sim_serve(int argc, char **argv);

/* One line on stderr; CLI_FAILED. */
int sim_fail(const struct error *error, int r);

struct sim_target {
    struct sim_options options;         /* strings borrowed from argv */
    const char *suite_name, *task_name; /* task: number or name, NULL: 0 */
    enum sim_split split;
    uint64_t first, last; /* states */
    int device;           /* sim_renderer_open's */
    struct sim_suite *suite;
    struct sim_task *task;
    const struct sim_task_info *info;
};

/* The shared words. -EINVAL: one of them is wrong (line in error). Opens nothing. */
int sim_target_read(int *argc, char **argv, struct sim_target *ret, struct error *error);
/* The suite and the task. -ENOENT: no such suite or task, or its files are not here. */
int sim_target_open(struct sim_target *target, struct error *error);
void sim_target_close(struct sim_target *target);
/* sim_renderer_open of what --renderer said; whoever asked for a GPU is told on stderr what draws. */
int sim_open_renderer(const struct sim_target *target, int size, struct sim_renderer **ret, struct error *error);
const char *sim_split_name(enum sim_split split);

/* A whole number behind `name`, in lo..hi; `value` if it is not there. -EINVAL: the line. */
int sim_number(int *argc, char **argv, const char *name, long lo, long hi, long value, long *ret, struct error *error);
