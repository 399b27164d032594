/* export.h - successful episodes out of a journal or a data set, one numpy archive each: what source_npz.c reads back.
 *
 *     DIR/episode_000001.npz    action (T,A) f4, image (T,H,W,3) u8 [wrist_image, image_2 ...], state (T,S) f4 if there is one,
 *                               instruction, task, image_chain: text; success: bool; episode: u8
 *     DIR/info.json             how many, of what
 *
 * action is what the robot did. deploy/npz_to_lerobot.py makes a LeRobot data set of such a directory.
 * Failure rule: -errno, one line; nothing is left behind. */
#pragma once

#include "data/dataset_dir.h"

struct export_options {
    bool all;    /* those that did not succeed, too */
    int purpose; /* enum episode_purpose: only these; 0: any */
    bool (*tell)(void *arg, int done, int total, int64_t steps);
    void *arg;
};
struct export_result {
    int episodes, left_out;
    int64_t steps;
};
/* entries[n]: of this journal, in order. */
int dataset_export(struct journal *journal, const struct journal_entry *entries, size_t n, const char *to,
                   const struct export_options *options, struct export_result *ret, struct error *error);
