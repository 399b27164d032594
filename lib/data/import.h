/* import.h - episodes of others become a data set of ours (dataset_dir.h): `gantry data import`.
 *
 * Per episode: one that did not succeed is left out; steps that do nothing are (an action whose numbers but the gripper's are all
 * but zero, with the gripper as in the last step that was kept: OpenVLA's rule); the gripper becomes OpenVLA's (1 open, 0
 * closed); pictures go through the declared chain; what is to be imitated is kept in the data's own units, and statistics are
 * taken; one without a step is left out and told. A source has as many pictures as actions, an episode one more: the last is
 * shown twice (no action follows it).
 * Thread rule: none.  Failure rule: -errno, one line naming file, episode and field; no directory is left behind. */
#pragma once

#include "data/dataset_dir.h"
#include "data/source.h"

enum { IMPORT_MAX_ACTION = 16, IMPORT_MAX_STATE = 32 };     /* numbers that a policy can have (nn/models/openvla.h) */

#define CHAIN_LANCZOS "lanczos3" /* resized as TensorFlow does it, nothing else: no suite of ours shows such pictures */

/* The last number of an action: a gripper, as it is or LIBERO's (-1 open, 1 closed); or one like the others. */
enum import_gripper { GRIPPER_AS_IT_IS, GRIPPER_LIBERO, GRIPPER_NONE };

struct import_options {
    const char *format; /* source.h */
    struct source_options source;
    const char *name;  /* of the data set: key of its statistics */
    const char *chain; /* NULL: libero-hdf5, rlds: TF_EVALUATION_CHAIN; npz: render */
    int size;          /* pixels, square; 0: 224, npz: as the first picture is */
    bool resize;       /* size was asked for: pictures of other sizes are scaled to it, also by the chain render */
    enum import_gripper gripper;
    bool drop_no_ops;
    bool keep_failed;
    int limit;                                                   /* episodes at most; 0: all */
    bool (*tell)(void *arg, int done, int total, int64_t steps); /* after each episode; false: stop (-ECANCELED). May be NULL */
    void (*left_out)(void *arg, const char *where); /* an episode without steps. May be NULL */
    void *arg;                                      /* of both */
};
/* What the format has by itself: chain, size, gripper, no-ops. -EINVAL: no such format. */
int import_defaults(const char *format, struct import_options *ret, struct error *error);
int dataset_import(const char *from, const char *to, const struct import_options *options, struct dataset_info *ret,
                   struct error *error);
