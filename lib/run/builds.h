/* builds.h - which builds of gantry have run a run: its coordinators say theirs when they start, members when they join, and the
 * ledger's events keep both. A run may be drained and go on with a newer build, and a member elsewhere may have another than the
 * rest.
 *
 * Thread rule: none shared.  Failure rule: -errno, outputs untouched. */
#pragma once

#include "run/ledger.h"

enum { RUN_BUILDS = 16, RUN_BUILD_SPANS = 64, RUN_BUILD_ROLES = 5 };

struct run_build {
    char name[48];              /* as `gantry --version` says it; it comes from members: not to be trusted as text */
    unsigned roles;             /* bit i: run_build_roles[i] ran with it */
};

struct run_builds {
    struct run_build items[RUN_BUILDS];     /* in the order in which they came; what is more is left out */
    size_t n;
    struct { uint64_t since_ms; size_t item; } learner[RUN_BUILD_SPANS];    /* rank 0 and others: wall clock, whenever it
                                                                             * changed */
    size_t n_learner;
    bool silent;                /* somebody did not say (gantry before November 2026) */
};

/* "coordinator", "env worker", "actor", "PRM server", "learner": in the order of the wire's numbers, which begin at 1. */
extern const char *const run_build_roles[RUN_BUILD_ROLES];

/* From the ledger's events. */
int run_builds_read(struct ledger *ledger, struct run_builds *ret);

/* Which of items[] committed a version at that time; -1: nobody knows. */
int run_builds_at(const struct run_builds *builds, uint64_t committed_ms);
