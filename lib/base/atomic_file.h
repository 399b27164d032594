/* atomic_file.h - a file that is wholly there or not there at all, also after a power cut.
 *
 *   atomic_file_write("dir/name", bytes, n)     temp -> write -> fsync -> rename -> fsync of the directory
 *
 * Fault points: atomic_file.write, atomic_file.fsync, atomic_file.rename. */
#pragma once

#include "base/macro.h"

/* Replace `path`. -errno, and the old file is still there. */
int atomic_file_write(const char *path, const void *bytes, size_t n);

/* Whole file into memory, a NUL behind it. Caller frees. -EFBIG: larger than `limit`. */
int file_read(const char *path, size_t limit, char **ret_bytes, size_t *ret_n);

int fsync_directory(const char *path);
int fsync_file(const char *path);

/* rename that refuses to replace (RENAME_NOREPLACE), then fsync of the parent. -EEXIST: someone was first. */
int rename_noreplace(const char *from, const char *to);

int mkdir_p(const char *path, unsigned mode);   /* like mkdir -p; 0 if it exists */
int remove_tree(const char *path);              /* like rm -rf, never follows links; 0 if absent */
