/* staged_dir.h - a directory that is wholly there or not there at all, also after a power cut.
 *
 *   _cleanup_(staged_dir_release) struct staged_dir dir = {0};
 *   staged_dir_open(&dir, "models/new")  ->  files into dir.temporary  ->  staged_dir_commit(&dir)
 *
 * Files go into a new sibling of the name wanted; commit makes them durable and renames it, replacing nothing. Without a commit,
 * release removes what was written. A process that is killed leaves a directory called NAME.tmp.PID behind, never a half-written
 * NAME. */
#pragma once

#include "base/error.h"

struct staged_dir {
    char *path;             /* the name wanted */
    char *temporary;        /* where the files go until then; NULL: not open, or committed */
};

/* -EEXIST: `path` is there already and is not an empty directory. Makes missing parents. */
int staged_dir_open(struct staged_dir *dir, const char *path, struct error *error);
int staged_dir_commit(struct staged_dir *dir, struct error *error);
void staged_dir_release(struct staged_dir *dir);
