/* base_files.h - the weight files of a base that several versions on it share while they are loaded.
 *
 * Versions that hold only what was trained (nn/base_link.h) are loaded one after the other on the same base, of billions of
 * parameters: its files are mapped, and looked through, once, and every version's frozen matrices point into the same mapping
 * (which is how a device knows that it has them: nn/device/mirror.h). A base is known by the digest of its manifest.json, which
 * lists its files' digests; held for as long as a version is loaded on it.
 * Thread rule: any.  Failure rule: -errno with one line that names the file. */
#pragma once

#include "nn/hf.h"

struct base_files;

/* What somebody found out, so that whoever comes later need not: all values are finite; the files are those that the manifest lists. */
enum base_mark { BASE_FINITE = 1, BASE_VERIFIED = 2 };

/* Those with this digest (64 hexadecimal digits) that have this mark, if a model of this process holds them; else NULL. A
 * reference. */
struct base_files *base_files_held(const char sha256[65], enum base_mark mark);
/* Those with this digest, or else the files of `dir`, mapped anew. A reference. */
int base_files_get(const char *dir, const char sha256[65], struct base_files **ret, struct error *error);
struct base_files *base_files_unref(struct base_files *files);  /* NULL is fine; returns NULL */
DEFINE_FREEP(struct base_files, base_files_unref)
/* Theirs for as long as there is a reference; not to be closed. */
const struct hf_shards *base_files_shards(const struct base_files *files);
void base_files_mark(struct base_files *files, enum base_mark mark);
bool base_files_have(const struct base_files *files, enum base_mark mark);
