/* membership.h - who takes part in the run: workers, actors, PRM servers, learner ranks.
 *
 * A member is one process, known by its role and its `instance` (random per process). Its number is given by Hello and lives
 * as long as the coordinator's epoch; the same process saying Hello again keeps it. A member that is not heard of for ttl_ms
 * is lost (it may come back); one that said Bye or whose exit was noticed is gone. When places run out, those that are gone or
 * were lost an hour ago are forgotten. Memory only: after a restart of the coordinator everybody says Hello again.
 *
 * Thread rule: the coordinator's loop thread only.  Failure rule: -errno, outputs untouched. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/macro.h"
#include "run/ledger.h"

enum member_role { MEMBER_WORKER = 2, MEMBER_ACTOR = 3, MEMBER_PRM = 4, MEMBER_LEARNER = 5 };    /* the numbers of proto Role */
enum member_state { MEMBER_ALIVE, MEMBER_LOST, MEMBER_GONE };

enum { MEMBER_VERSIONS = 8, MEMBER_ILL = 3 };

struct member_version {         /* what a server said about one version */
    enum version_kind kind;
    uint64_t version;
    bool ready;                 /* false: refused (text says why) */
    uint64_t said_ms;           /* last so: a server that tries again says nothing until it knows */
};

struct member {
    uint32_t id;                /* from 1 */
    enum member_role role;
    uint64_t instance;          /* random per process: tells a reconnect from a restart */
    uint64_t address_id;        /* opaque: the edge's way to reach it, from its last Hello */
    enum member_state state;
    uint64_t heard_ms;          /* monotonic */
    uint32_t slots;             /* worker: episodes at once */
    uint32_t rank, pid;
    bool cordoned;              /* gets no new leases; a server: asked only if there is no other */
    bool leaving;               /* told to drain: finishes what it holds, then says Bye */
    bool reserved;              /* is being emptied to play a suspected episode alone */
    struct member_version versions[MEMBER_VERSIONS];
    uint32_t n_versions;
    char host[64], device[24], isa[16], build[48];
    char name[48];              /* NAME or NAME#LIFE of which there is one at a time; empty: no such claim */
    char address[128], public_key[48];      /* servers: where they listen; key empty on ipc */
    char user[48];              /* the key it speaks with, over tcp: nobody else may speak in its name; empty on ipc */
    uint64_t delivered;         /* episodes journaled from it, for status */
    uint32_t failed;            /* worker: episodes in which its simulator failed, in a row and none delivered; from MEMBER_ILL on
                                 * others come first */
    uint64_t failed_last;       /* the last of them: once more is no other */
    bool gave_back;             /* worker: a lease (or it ran out), and delivered nothing since: others that want work come first */
    uint64_t wanted_more_ms;    /* worker: asked then for more than there was; 0: it got all that it last asked for */
};

struct membership {
    struct member *items;       /* by id, ascending */
    size_t n, capacity;
    uint32_t last_id;
    uint64_t revision;          /* moves whenever the endpoints that others should know change */
};

void membership_release(struct membership *m);

/* Find or make the member of (role, instance); *ret is borrowed until the next membership_hello. *ret_new: it was not known,
 * or had been lost or gone. An older process of the same learner rank or the same server address is gone by this. -ENOMEM. */
int membership_hello(struct membership *m, const struct member *hello, uint64_t now_ms, struct member **ret, bool *ret_new);
struct member *membership_find(struct membership *m, uint32_t id);      /* NULL: unknown, lost for good or gone */
struct member *membership_find_process(struct membership *m, const char *host, uint32_t pid);
/* Nobody could be heard for the last `ms`: they do not count. */
void membership_excuse(struct membership *m, uint64_t ms);
/* Next member that has not been heard of for ttl_ms and was alive: marks it lost. NULL: none. */
struct member *membership_take_lost(struct membership *m, uint64_t now_ms, uint32_t ttl_ms);
void membership_remove(struct membership *m, struct member *member);    /* gone */

/* What a server says of a version; a version that is in no list any more is forgotten by membership_keep. */
void membership_version(struct membership *m, struct member *member, enum version_kind kind, uint64_t version, bool ready,
                        uint64_t now_ms);
void membership_keep(struct membership *m, enum version_kind kind, const uint64_t *versions, size_t n);
/* By all servers alive, and there is one: each has said so at since_ms or later; by one alive at least. */
bool membership_refused(const struct membership *m, enum version_kind kind, uint64_t version, uint64_t since_ms);
bool membership_ready(const struct membership *m, enum version_kind kind, uint64_t version);
struct member *membership_learner(const struct membership *m);          /* alive rank 0, or NULL */
struct member *membership_other(const struct membership *m, const struct member *member);   /* alive, of its role; or NULL */
size_t membership_count(const struct membership *m, enum member_role role);     /* alive */
