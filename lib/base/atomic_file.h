/* atomic_file.h - a file that is wholly there or not there at all, also after a power cut.
 *
 *   atomic_file_write("dir/name", bytes, n)     temp -> write -> fsync -> rename -> fsync of the directory
 *
 * A whole directory that becomes visible by one rename (staged_dir.h, run/manifest.h) is written without all that:
 *
 *   file_write* -> directory_sync -> rename_noreplace
 *
 * An fsync of each file in turn waits for the disk each time; so they are all sent on their way first and waited for together
 * (directory_sync.c).
 *
 * Fault points: atomic_file.write, atomic_file.fsync, atomic_file.rename. */
#pragma once

#include "base/macro.h"

/* Replace `path`. -errno, and the old file is still there. A device or a pipe is written to, and stays what it is. A link is
 * replaced, too: what gantry keeps under a name of its own is never written into what somebody else's link leads to. */
int atomic_file_write(const char *path, const void *bytes, size_t n);

/* The same for a name that a person gave (-o FILE): a link stays, and the file that it leads to is replaced beside itself, or
 * made. -ELOOP: it leads nowhere. -EACCES: the kernel does not follow others' links here (fs.protected_symlinks). */
int atomic_file_write_through(const char *path, const void *bytes, size_t n);
/* Whether it can be, before hours are spent on what is to be in it. */
int atomic_file_may_write_through(const char *path);

/* Whole file, or what comes out of a pipe until its end, into memory, a NUL behind it. Caller frees. -EFBIG: larger than `limit`. */
int file_read(const char *path, size_t limit, char **ret_bytes, size_t *ret_n);

/* The directory's entries are durable: what was made, renamed or removed in it. */
int fsync_directory(const char *path);

/* Make or overwrite `path`, not yet durable. A failure leaves a torn file. */
int file_write(const char *path, const void *bytes, size_t n);
/* A copy of a file, not yet durable; blocks are shared where the file system can. -EEXIST: `to` is there. A failure leaves a torn
 * file. */
int file_copy(const char *from, const char *to);
/* What was written to fd starts on its way to the disk; nobody waits, and errors are directory_sync's. */
void file_send_off(int fd);
/* The files of a directory (not those below it) and its entries are durable. */
int directory_sync(const char *path);

/* rename that refuses to replace (RENAME_NOREPLACE), then fsync of the parent. -EEXIST: someone was first. On network file
 * systems that know no such flag an empty directory is replaced, and two who rename files to one name at the same time need a
 * lock. */
int rename_noreplace(const char *from, const char *to);

int mkdir_p(const char *path, unsigned mode);   /* like mkdir -p; 0 if it exists */
int remove_tree(const char *path);              /* like rm -rf, never follows links; 0 if absent */
