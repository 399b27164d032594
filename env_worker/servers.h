/* servers.h - who this worker may ask: one client per server the coordinator named.
 *
 * The list outlives the coordinator: without it the worker goes on with the servers it knew. A server that is taken off the
 * list is let go, which ends its open calls (-ECANCELED). Thread rule: the loop's thread. */
#pragma once

#include "wire/client.h"

enum { SERVERS_MAX = 64, SERVER_VERSIONS_MAX = 8 };

struct server_entry {
    Gantry__Role role;
    uint32_t member, rank;
    uint64_t versions[SERVER_VERSIONS_MAX];     /* ready there, as the coordinator knows it */
    unsigned n_versions;
    bool cordoned;                              /* only if there is no other */
    bool named;                                 /* in the newest list */
    struct wire_client *client;                 /* owned */
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

/* A server of the role, preferably one that has the version ready, then one that answers, then one that is not cordoned. Among
 * equals the same `spread` (a slot) gets the same one as long as that one keeps up; when it has SERVERS_SLACK more of our calls open
 * than the least busy, it gets that one: a slow server is asked less, without anybody measuring it. version 0: any. NULL: none. */
enum { SERVERS_SLACK = 2 };
struct wire_client *servers_pick(const struct servers *servers, Gantry__Role role, uint64_t version, unsigned spread);
