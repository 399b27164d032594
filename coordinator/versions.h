/* versions.h - the version ledger in memory: which policies and reward models exist, which serve, which may be removed.
 *
 * Filled from the ledger at start and from Committed messages after; those whose weights are removed are forgotten here (the
 * ledger keeps them). The newest policy is what trains on; the current PRM is the newest that passed its gate, or the one an
 * operator swapped to. Pure; rows are ledger rows.
 *
 * Thread rule: the coordinator's loop thread only.  Failure rule: -errno, outputs untouched. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "run/ledger.h"

struct versions {
    struct ledger_version *items;       /* in order of commitment; metrics not kept (NULL) */
    size_t n, capacity;
};

void versions_release(struct versions *v);
/* -EEXIST: the number is there with another digest. 0 also when it is there already. *ret_new (may be NULL) tells. */
int versions_add(struct versions *v, const struct ledger_version *version, bool *ret_new);
/* Forget those of this kind that are not in keep, but for the newest VERSIONS_RECENT (the learner may name them again) and the
 * newest that passed its gate. Pointers into items are void after it. */
enum { VERSIONS_RECENT = 8 };
void versions_forget(struct versions *v, enum version_kind kind, const uint64_t *keep, size_t n_keep);
const struct ledger_version *versions_find(const struct versions *v, enum version_kind kind, uint64_t number);
const struct ledger_version *versions_newest(const struct versions *v, enum version_kind kind);     /* NULL: none */
const struct ledger_version *versions_newest_passed(const struct versions *v, enum version_kind kind);
