/* member_gauges.h - what members' processes say of themselves in heartbeats, and what those that are gone had said.
 *
 * The summary wants totals and peaks over all that ever took part; a run of weeks sees any number of processes. So those that are
 * gone are added up by role, and only as many are kept as twice those that are here.
 *
 * Thread rule: the coordinator's loop thread only.  Failure rule: NULL; what was to be noted comes with the next heartbeat
 * again. */
#pragma once

#include "coordinator/membership.h"
#include "coordinator/pace.h"

enum { MEMBER_GAUGES = 16 };

struct gauge { char name[32]; double value, peak; };       /* of one member both are its last; of those gone: sum, largest */

struct member_gauges {
    uint32_t member;            /* 0: those that are gone */
    enum member_role role;
    struct gauge items[MEMBER_GAUGES];
    unsigned n;
    struct pace pace;           /* of a worker */
};

struct gauges {
    struct member_gauges *items;        /* here, or not yet added up */
    size_t n, capacity;
    struct member_gauges gone[MEMBER_LEARNER + 1];      /* by role */
};

void gauges_release(struct gauges *gauges);

/* The place for what `member` says now, empty but for its pace; NULL: not a member, or no memory. Borrowed until the next
 * call. */
struct member_gauges *gauges_place(struct gauges *gauges, const struct membership *members, uint32_t member);
/* One too many is left out, and what is no number. The last of a name counts. */
void gauges_put(struct member_gauges *place, const char *name, double value);

const struct member_gauges *gauges_find(const struct gauges *gauges, uint32_t member);     /* NULL: it has said nothing */
double gauges_value(const struct member_gauges *of, const char *name);                     /* 0: not said; of NULL: 0 */

/* Over all members of a role, also those that are gone: the sum, or the largest. */
double gauges_over_role(const struct gauges *gauges, enum member_role role, const char *name, bool peak);
