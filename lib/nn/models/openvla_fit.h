/* openvla_fit.h - what a published checkpoint leaves to the script that evaluates it, settled once, in the files of a run's copy.
 *
 *   whose statistics   of several data sets in dataset_statistics.json (or norm_stats) the one called as the suite is, or that
 *                      with _no_noops behind, unless the run names one; the others are left out
 *   gripper            OpenVLA's data, LIBERO's too, have 1 open, 0 closed; LIBERO's simulator takes -1 open, 1 closed:
 *                      gantry_gripper
 *   centre crop        OpenVLA's checkpoints for LIBERO were trained on random crops of .9 of the area and see the middle when they
 *                      act: gantry_center_crop
 *   robot's state      a policy that takes it and does not know its range, as a fresh one does not (`gantry model oft --state`), gets
 *                      that of the data it imitates, else what the suite's own robot reaches
 *
 * Source: run_libero_eval.py and its helpers in OpenVLA and OpenVLA-OFT. What config.json says stands. Whoever loads the copy finds
 * all of it said, and so does whoever is given the checkpoint that comes out.
 * Thread rule: none.  Failure rule: -errno with one line; `ret_` outputs are untouched. */
#pragma once

#include "nn/models/openvla.h"

struct openvla_fit_ask {
    const char *suite;          /* its name: "libero_goal" */
    const char *chain;          /* how its pictures are made (openvla_config.image_chain) */
    const char *unnorm_key;     /* the data set whose statistics count; "": see above */
    double center_crop;         /* share of the area; 0: see above; 1: whole pictures */
    bool used;                  /* it acts or learns in this run (not where demonstrations are all there is) */
    bool imitates;              /* it learns from demonstrations first: a range of the state can still be chosen */
    const char *data;           /* ... of this directory, with dataset_statistics.json; NULL: those that the suite's expert plays */
};

struct openvla_fit {
    const struct action_stats *stats;   /* the model's: those that count */
    bool alone;                         /* ... and there are no others */
    bool turn_gripper;
    float center_crop;                  /* to be said; 0: nothing */
    int state;                          /* so many numbers of the robot's state have a range to be said; 0: nothing */
    bool state_of_data;                 /* the data's, not the suite's own */
    double state_low[OPENVLA_MAX_PROPRIO], state_high[OPENVLA_MAX_PROPRIO];
};

/* -EINVAL: several data sets and none that fits, none at all, no such data set, config.json says another crop, a robot's state whose
 * range nobody knows. */
int openvla_fit_find(const struct openvla *model, const struct openvla_fit_ask *ask, struct openvla_fit *ret,
                     struct error *error);
/* Would the policy, so fitted, learn from these data to open its hand where it is to close? -EINVAL with the remedy. data: a directory
 * with dataset_statistics.json, whose actions are to be imitated. */
int openvla_fit_check_data(const struct openvla *model, const struct openvla_fit *fit, const char *suite, const char *data,
                           struct error *error);
/* Is there anything to write? */
bool openvla_fit_changes(const struct openvla_fit *fit);
/* What there is, for people: "actions in the units of libero_goal_no_noops, gripper turned (1 open becomes -1), ..."; "": nothing. */
void openvla_fit_words(const struct openvla_fit *fit, char ret[static 256]);
/* Write it into DIR, a copy of the model's directory that nobody else reads yet: config.json, dataset_statistics.json. */
int openvla_fit_write(const struct openvla_fit *fit, const char *dir, struct error *error);
