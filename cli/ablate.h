/* ablate.h - `gantry ablate`: the ladder of a method's parts, rung by rung, from one start per seed.
 *
 *   ablate_list | ablate_play (resumes) -> ablate_measure -> ablate_write | ablate_print | ablate_plot
 *
 * For each seed one start run (the configuration's stages up to the reward model) is played; every rung is a run directory that
 * branches off it (run_branch.h), DIR/seed-S/RUNG; F is E's look-ahead, and F' branches off E. A rung differs from its neighbour
 * by one part, plays as many episodes, from the same weights and the same seed, and is tested on the same states. Failure rule:
 * -errno, *error has the line. */
#pragma once

#include "daemon/run_config.h"

enum { ABLATE_SEEDS_MAX = 16, ABLATE_TASKS_MAX = 16 };

enum ablate_rung { RUNG_A, RUNG_A_MORE, RUNG_B, RUNG_B_SIMULATOR, RUNG_C, RUNG_D, RUNG_E, RUNG_F, RUNG_F_ANEW, RUNG_E_PRM,
                   RUNGS };

struct ablate_rung_info {
    const char *name;   /* "A'" */
    const char *folder; /* "A-more"; F has E's */
    const char *title;
    enum ablate_rung over; /* what it is compared with; itself: nothing */
};
extern const struct ablate_rung_info ablate_rungs[RUNGS];

struct ablate {
    struct run_config config; /* as given */
    char dir[200];
    uint64_t first_seed;
    int seeds;
    bool wanted[RUNGS];
    int search_n; /* of F and F' */
};

/* Stages of a start run, and of a rung (start and what is its own). Checked like any configuration. */
int ablate_start_config(const struct ablate *ablate, int seed, struct run_config *ret, struct error *error);
int ablate_rung_config(const struct ablate *ablate, int seed, enum ablate_rung rung, struct run_config *ret, struct error *error);
/* What would be done, on stdout. */
int ablate_list(const struct ablate *ablate, struct error *error);
/* Do what is not done yet; lines with time left. -EINTR: it was interrupted, the same call goes on. */
int ablate_play(const struct ablate *ablate, struct error *error);

/* ---- what came of it (ablate_result.c) ------------------------------------------------------------------------- */

struct ablate_measured {
    bool there;
    int seeds;
    double *outcomes;          /* (seeds, states) */
    double success, low, high; /* hierarchical 95 %; one seed: over its states */
    double tasks[ABLATE_TASKS_MAX];
    double temperature[ABLATE_SEEDS_MAX];
    double env_steps, wall_s; /* of the rung's own training stages, mean over the seeds */
};
struct ablate_result {
    int states;
    struct ablate_measured rungs[RUNGS];
};
int ablate_measure(const struct ablate *ablate, struct ablate_result *ret, struct error *error);
void ablate_result_release(struct ablate_result *result);
int ablate_write(const struct ablate *ablate, const struct ablate_result *result, struct strbuf *out);
int ablate_print(const struct ablate *ablate, const struct ablate_result *result);
int ablate_plot(const struct ablate_result *result, const char *path, struct error *error);
