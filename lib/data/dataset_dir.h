/* dataset_dir.h - recorded episodes outside a run: what `gantry data import` makes and a `demos: {from: DIR}` stage reads.
 *
 *     DIR/dataset.json              what it is: counts, shapes, where it came from, what was left out
 *     DIR/dataset_statistics.json   as OpenVLA has it: put it into a policy's directory that shall learn from this
 *     DIR/journal/                  one record an episode, as a run's journal (run/journal.h), sealed
 *
 *   writer: dataset_create -> dataset_put* -> dataset_finish      (the directory appears whole, or not at all)
 *   reader: dataset_open -> dataset_get(0 .. info.episodes-1) -> dataset_close
 *
 * Thread rule: none.  Failure rule: -errno, one line naming the file and the episode. */
#pragma once

#include "base/staged_dir.h"
#include "proto/trajectory.pb-c.h"
#include "run/journal.h"

#define DATASET_FORMAT "gantry-dataset-1"
enum { DATASET_RUN = 1 }; /* the run id in its journal */

struct dataset_info {
    char source[16]; /* libero-hdf5, rlds, npz, ... */
    char name[64];   /* key in dataset_statistics.json */
    char image_chain[64];
    int episodes, steps;
    int height, width, cameras, state, action_dims;
    bool gripper;       /* the last number of an action is one, which is not normalised */
    int no_ops, failed, empty; /* left out: steps that do nothing; episodes that did not succeed; episodes without steps */
};

struct dataset_writer {
    struct staged_dir dir;
    struct journal *journal;
    struct dataset_info info; /* counts so far; the caller fills source, name, gripper, no_ops, failed and empty */
};
/* -EEXIST: `path` is there already, and not empty. */
int dataset_create(const char *path, struct dataset_writer *ret, struct error *error);
/* The shapes of the first are everybody's. The trajectory's run and episode are set here. */
int dataset_put(struct dataset_writer *writer, Gantry__Trajectory *trajectory, const uint8_t *frames, size_t n_frames,
                struct error *error);
/* statistics: the text of dataset_statistics.json. */
int dataset_finish(struct dataset_writer *writer, const char *statistics, struct error *error);
void dataset_writer_release(struct dataset_writer *writer);

struct dataset_dir {
    char *path;
    struct journal *journal;
    struct dataset_info info;
    struct journal_entry *entries; /* [info.episodes] */
};
/* -ENOENT: no data set; -EBADMSG: dataset.json and the journal do not agree, or are damaged. */
int dataset_open(const char *path, struct dataset_dir **ret, struct error *error);
struct dataset_dir *dataset_close(struct dataset_dir *dir);
DEFINE_FREEP(struct dataset_dir, dataset_close)
/* Caller frees: gantry__trajectory__free_unpacked, free. ret_frames NULL: the trajectory alone. */
int dataset_get(const struct dataset_dir *dir, int i, Gantry__Trajectory **ret, uint8_t **ret_frames, size_t *ret_n,
                struct error *error);
/* SHA-256 over the episodes' digests: which data a policy learnt from. */
void dataset_digest(const struct dataset_dir *dir, uint8_t ret[SHA256_SIZE]);
