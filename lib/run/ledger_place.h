/* ledger_place.h - may a ledger lie on this file system?
 *
 * SQLite's write-ahead log usually shares memory between its processes (ledger.sqlite-shm), which network file systems cannot
 * give. A ledger has one process at a time: held with locking_mode=EXCLUSIVE it needs locks and fsync only. Where one of those
 * two means nothing between hosts, a second coordinator on another host could hold the same run, or a power cut could take back
 * what was acknowledged: such a place is refused.
 *
 * Pure, but for the functions that take a path. Failure rule: -errno, *error says what was found and the remedy. */
#pragma once

#include <stdint.h>

#include "base/error.h"

enum ledger_place {
    LEDGER_LOCAL,           /* one host: readers may share the file */
    LEDGER_SHARED,          /* a network file system with locks and fsync: everybody holds it EXCLUSIVE, readers too */
    LEDGER_REFUSED,
};

/* f_type: of statfs(2). type: the file system's name in /proc/self/mountinfo ("ext4", "fuse.sshfs"); decides for FUSE, whose
 * f_type is one for all. *ret_name (may be NULL): what to call it, static or `type`. */
enum ledger_place ledger_place(uint32_t f_type, const char *type, const char **ret_name);

enum { LEDGER_PLACE_NAME = 64 };

/* The file system of `path`, or, where that is not there yet, of what it will lie in. -errno of statfs. name: what it is
 * called. */
int ledger_place_of(const char *path, enum ledger_place *ret, char name[LEDGER_PLACE_NAME]);
/* -ENOTSUP where a ledger is refused. */
int ledger_place_check(const char *path, enum ledger_place *ret, struct error *error);
