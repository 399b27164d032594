/* base_link.h - base.json: a version that holds only what was trained names the checkpoint below it, by directory and digest.
 *
 *   {"base": "../v000000", "manifest_sha256": "..."}     the directory is seen from the one that base.json lies in
 *
 * Written beside a policy's adapters and beside a reward model's head and adapters; whoever loads such a directory checks the
 * digest of the base's manifest.json first.
 * Thread rule: none.  Failure rule: -errno with one line that names the file; `ret_` outputs are untouched. */
#pragma once

#include <limits.h>

#include "base/error.h"

/* 0: DIR has none, it is whole; 1: *ret is its base's directory, whose manifest.json is the one that was named. -ENOENT,
 * -EBADMSG. */
int base_link_follow(const char *dir, char ret[PATH_MAX], struct error *error);
/* The same as it is written, without looking whether the base is there: the directory seen from DIR, and its manifest's
 * SHA-256. */
int base_link_read(const char *dir, char ret_base[PATH_MAX], char ret_sha256[65], struct error *error);
/* DIR's own, by which others may name it as their base: 1; 0: it has no manifest.json. */
int base_link_digest(const char *dir, char ret_sha256[65], struct error *error);
/* Into a directory that exists; BASE (seen from DIR) must be there, with its manifest.json. fsyncs. */
int base_link_write(const char *dir, const char *base, struct error *error);
