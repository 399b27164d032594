/* servers.h - who this worker may ask: one client per server the coordinator named.
 *
 * The list outlives the coordinator: without it the worker goes on with the servers it knew. A server that is taken off the
 * list is let go, which ends its open calls (-ECANCELED). Thread rule: the loop's thread. */
#pragma once

#include "wire/client.h"

enum { SERVERS_MAX = 64, SERVER_VERSIONS_MAX = 8 };

/* How well a server answers. One whose answers are mostly failures is set aside: asked only if there is no other, and after 1 s
 * (doubling to 60 s, +-25 %) once, to see. An answer puts it back. Pure. */
struct health {
    uint16_t bad;               /* of a thousand, lately */
    uint16_t answers;           /* since it was last put back; stops at 1000 */
    uint32_t times;             /* set aside in a row */
    uint64_t aside_until_ms;    /* 0: it is not set aside */
    uint64_t probe_until_ms;    /* one request is out to see how it does; its answer is waited for so long */
};
/* Returns true when this answer has set it aside, or put it back. */
bool health_note(struct health *health, bool good, uint64_t now_ms, uint64_t random);
/* As good as any; a server that was set aside: now and then, and then health_asked is to be called. */
bool health_good(const struct health *health, uint64_t now_ms);
void health_asked(struct health *health, uint64_t now_ms);

/* How long an answer of a server may take: four times what the slowest took lately. That somebody is there is the connection's to
 * tell; a large model on few cores, or behind a long queue, answers in its own time, and who asks anew too early has computed in
 * vain. Pure. */
struct patience { uint32_t slowest_ms; };
enum { PATIENCE_MOST_MS = 600000 };
/* An answer took so long, or one was waited for so long in vain. */
void patience_note(struct patience *patience, uint64_t ms);
uint32_t patience_ms(const struct patience *patience, uint32_t least_ms);

struct server_entry {
    Gantry__Role role;
    uint32_t member, rank;
    uint64_t versions[SERVER_VERSIONS_MAX];     /* ready there, as the coordinator knows it */
    unsigned n_versions;
    bool cordoned;                              /* only if there is no other */
    bool named;                                 /* in the newest list */
    struct wire_client *client;                 /* owned */
    struct health health;
    struct patience patience;
};

struct servers {
    struct wire *wire;          /* borrowed */
    unsigned credits;           /* calls outstanding at one server */
    unsigned offset;            /* where spreading begins: the member's number, so that workers do not all begin with the first */
    struct server_entry entries[SERVERS_MAX];
    unsigned n;
};

/* Take over a new list. Returns how many could not be used (bad address, too many); *error has the last reason. */
unsigned servers_update(struct servers *servers, Gantry__Endpoint *const *endpoints, size_t n, struct error *error);
void servers_release(struct servers *servers);

/* A server of the role, preferably one that has the version ready, then one that answers, then one that is not set aside, then
 * one that is not cordoned. Among equals the same `spread` (a slot) gets the same one as long as that one keeps up; when it has
 * SERVERS_SLACK more of our calls open than the least busy, it gets that one: a slow server is asked less, without anybody
 * measuring it. version 0: any. NULL: none. */
enum { SERVERS_SLACK = 2 };
struct wire_client *servers_pick(struct servers *servers, Gantry__Role role, uint64_t version, unsigned spread);
/* How long that server may take for an answer (where there is no other to ask, giving up early would help nobody), and how long it
 * has taken (result: of the call, since_ms: when it was sent). */
uint32_t servers_patience(const struct servers *servers, const struct wire_client *client, uint32_t least_ms);
void servers_took(struct servers *servers, const struct wire_client *client, int result, uint64_t since_ms);
/* What came of asking that server: good, or no answer, or one that cannot be used. NOT_YET and the like say nothing of it: do not
 * call. */
void servers_note(struct servers *servers, const struct wire_client *client, bool good);
