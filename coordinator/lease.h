/* lease.h - who plays which episode, and until when.
 *
 * A lease is a promise that one worker alone plays an episode. The episode itself was fixed in the ledger when its iteration
 * opened; a lease only assigns it. It ends when the learner has journaled the episode, when the worker gives it back or is
 * known to have died, or when its step counter stops moving for ttl_ms; then the episode is free again. Leases live in memory:
 * after a restart of the coordinator workers announce what they still play (lease_adopt).
 *
 * A fence is coordinator epoch << 32 | counter: a later grant compares greater, over restarts too. What carries another fence
 * than the table's is stale and changes nothing here.
 *
 * Calls, in order:  lease_grant | lease_adopt -> lease_progress* -> lease_end;  lease_take_expired from the timer.
 * Thread rule: the coordinator's loop thread only.  Failure rule: -errno, outputs untouched. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/episode.h"
#include "base/macro.h"

struct lease {
    uint64_t episode;       /* ledger key */
    uint64_t fence;
    uint32_t member;        /* who plays */
    uint32_t step;          /* last step heard of: counts all that gets done; a larger one renews */
    uint32_t played;        /* actions executed, as heard with it */
    bool alone;             /* its member plays nothing beside it */
    uint8_t unmentioned;    /* heartbeats of its member in a row that did not name it */
    uint64_t expires_ms;    /* monotonic, this process only: never written to the ledger */
};

struct lease_table {
    uint64_t epoch;         /* the coordinator's */
    uint32_t granted;       /* counter half of the last fence */
    uint32_t ttl_ms;        /* without a moving step counter */
    uint32_t first_step_ms; /* until the first step: a cold worker may compile its model first */
    struct lease *items;    /* in no order */
    size_t n, capacity;
    uint32_t *index;        /* open addressing on the episode id: item + 1, 0 = empty */
    size_t buckets;         /* power of two */
    bool renew_stale;       /* seeded bug for tests/sim: renew whatever the fence */
};

void lease_table_init(struct lease_table *table, uint64_t epoch, uint32_t ttl_ms, uint32_t first_step_ms);
void lease_table_release(struct lease_table *table);

/* Assign `episode` to `member`. *ret_lease is a copy; the table keeps its own. -EEXIST: somebody holds it. -ENOMEM. */
int lease_grant(struct lease_table *table, uint64_t episode, uint32_t member, bool alone, uint64_t now_ms,
                struct lease *ret_lease);

/* A worker announces that it still plays `episode` under a fence given before. Taken over when its fence is of an earlier
 * epoch and nobody holds the episode under a later one; true again for a lease that is held exactly so.
 * -ESTALE: no longer its. */
int lease_adopt(struct lease_table *table, uint64_t episode, uint64_t fence, uint32_t member, uint32_t step, uint64_t now_ms);

void lease_set_alone(struct lease_table *table, uint64_t episode);      /* its member plays nothing beside it */

/* The holder says which step it is at. A larger step renews, and so does waiting for a server: that another worker would wait,
 * too. An equal step is not an error and renews nothing. -ESTALE: not held under this fence: the worker should stop playing it. */
int lease_progress(struct lease_table *table, const struct held_lease *held, uint64_t now_ms);

/* NULL: nobody holds it. Borrowed until the next change. */
const struct lease *lease_find(const struct lease_table *table, uint64_t episode);
size_t lease_count(const struct lease_table *table, uint32_t member);

/* End it whoever holds it. -ENOENT. */
int lease_end(struct lease_table *table, uint64_t episode);

/* A heartbeat of `member` has been gone through: its leases that it did not name (mentioned[] holds the episodes it named) count
 * one more. Takes out one that has gone unnamed LEASE_UNMENTIONED times (the grant was lost, or the episode was finished and
 * the learner's word is late), -ENOENT when there is none; `first` counts, the calls after it only take. */
enum { LEASE_UNMENTIONED = 3 };
int lease_take_unmentioned(struct lease_table *table, uint32_t member, const struct held_lease *mentioned, size_t n, bool first,
                           struct lease *ret_lease);

/* `member` is not heard of any more: its leases end at `until_ms` at the latest, also those that had time for a first step. */
void lease_hasten(struct lease_table *table, uint32_t member, uint64_t until_ms);

/* Nobody could be heard for the last `ms`: they do not count. */
void lease_excuse(struct lease_table *table, uint64_t ms);

/* Take out one lease that has expired (or: one of `member`), -ENOENT when there is none: call until then. */
int lease_take_expired(struct lease_table *table, uint64_t now_ms, struct lease *ret_lease);
int lease_take_member(struct lease_table *table, uint32_t member, struct lease *ret_lease);
