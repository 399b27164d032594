/* power_disk.h - a disk that keeps only what it was made to keep: every change below a directory is noted, and the directory can
 * be made again as a power cut after any of them would have left it.
 *
 *   power_begin(root) -> (the program's open, write, fsync, rename ... are told to power_*) -> power_rebuild(at, variant, seed,
 *   into)
 *
 * The rules are what POSIX promises and no more. fsync of a file keeps its bytes and length; fsync of a directory keeps the names
 * in it, and only that does. A name that was not kept is gone with everything below it. What was not synced may be there or not:
 * nothing of it, all of it, all but half of the last write, or any sectors and a beginning of the changes of names.
 *
 * The notes lie in memory that child processes share, so that a life can end as by kill -9 and another go on.
 * Thread rule: power_* from any thread. Failure rule: what does not fit ends the process. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum power_variant { POWER_NOTHING, POWER_ALL, POWER_TORN, POWER_RANDOM };

void power_begin(const char *root);
bool power_is_below(const char *path);
size_t power_changes(void);             /* so far: `at` of power_rebuild counts them */
enum power_change { POWER_WRITE, POWER_SYNC, POWER_NAME };      /* truncation: a write */
enum power_change power_change(size_t at);      /* the last before `at` > 0 */

/* What happened, after it succeeded. Paths and descriptors elsewhere are ignored. */
void power_opened(int fd, const char *path, int flags, bool created);
void power_closed(int fd);
void power_wrote(int fd, const void *bytes, size_t n, uint64_t offset);
void power_truncated(int fd, uint64_t size);
void power_synced(int fd);
void power_renamed(const char *from, const char *to);
void power_unlinked(const char *path);
void power_made(const char *path);      /* a directory */

/* The disk after the first `at` changes, into an empty directory that exists. 0 or -errno. */
int power_rebuild(size_t at, enum power_variant variant, uint64_t seed, const char *into);
