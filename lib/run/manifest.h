/* manifest.h - the commit point of a version: a directory that is wholly there, under its number, or not at all.
 *
 *   version_begin       makes policies/.tmp-<host>-<pid>-<number>; the caller writes the checkpoint's files into it
 *   version_commit      hashes the files, writes manifest.json, fsyncs all and the directory, renames without replacing,
 *                       fsyncs the parent
 *   -EEXIST             somebody committed this number first: discard the work, load the winner
 *   manifest_read, manifest_verify, version_list, version_drop
 *
 * manifest.json: format, run, kind, number, parent, plan_digest, group_epoch, stage, iteration, consumed [{episode, digest}],
 * files [{name, size, sha256}]. A version's digest is the SHA-256 of its manifest.json.
 * Thread rule: none shared. Failure rule: -errno, *error names the file.
 * Fault points: version.fsync, version.manifest, version.rename, version.renamed (after). */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/sha256.h"

struct manifest_episode { uint64_t episode; uint8_t digest[SHA256_SIZE]; };
struct manifest_file { char name[128]; uint64_t size; uint8_t sha256[SHA256_SIZE]; };

struct manifest {
    uint64_t run;
    int kind;                   /* enum version_kind: 0 policy, 1 prm */
    uint64_t number, parent;
    uint8_t plan_digest[SHA256_SIZE];
    uint64_t group_epoch;
    uint32_t stage, iteration;
    struct manifest_episode *consumed;      /* the episodes this version was trained on and its parents were not */
    size_t n_consumed;
    struct manifest_file *files;            /* filled by version_commit and manifest_read, in name order */
    size_t n_files;
    uint8_t digest[SHA256_SIZE];            /* of manifest.json: filled likewise */
};
void manifest_release(struct manifest *manifest);

enum { VERSION_PATH = 512 };
/* "RUN/policies/v000012", "RUN/prms/v000003". -ENAMETOOLONG. */
int version_path(const char *run_dir, int kind, uint64_t number, char ret[VERSION_PATH]);
int version_begin(const char *run_dir, int kind, uint64_t number, char ret_dir[VERSION_PATH], struct error *error);
int version_commit(const char *run_dir, const char *dir, struct manifest *manifest, struct error *error);
void version_discard(const char *dir);                      /* remove an uncommitted directory */
/* Before versions are looked for at a start: remove directories that dead processes left uncommitted; what they committed is
 * durable. */
int version_sweep(const char *run_dir);

/* A name that a version's file may have: it stays inside its directory, and is not hidden. */
bool manifest_plain_name(const char *name);

/* Parse dir/manifest.json. -ENOENT: no manifest; -EBADMSG: not one. */
int manifest_read(const char *dir, struct manifest *ret, struct error *error);
/* Sizes and checksums of the files that `want` says yes to (NULL: all). -EBADMSG names the first that differs. */
int manifest_verify(const char *dir, const struct manifest *manifest, bool (*want)(const char *name), struct error *error);

/* Committed numbers of a kind, ascending; caller frees. */
int version_list(const char *run_dir, int kind, uint64_t **ret, size_t *ret_n);
/* Retention: remove a version's weights; its manifest.json stays (history needs it). 0 if they are gone already. */
int version_drop(const char *run_dir, int kind, uint64_t number);
/* Drop all committed versions of a kind but the newest two and keep[]. */
int version_retain(const char *run_dir, int kind, const uint64_t *keep, size_t n_keep);
/* A checkpoint directory's files (no sub-directories, hidden files or manifest.json) into a version that was begun. -ENOENT: there
 * are none. */
int version_copy(const char *from, const char *dir, struct error *error);
/* Such a copy committed under `number`, e.g. policies/v000000. When that exists already, *manifest is read from it: 0. */
int version_import(const char *run_dir, int kind, uint64_t number, const char *from, struct manifest *manifest,
                   struct error *error);
