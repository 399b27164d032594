/* peer.h - who is connected to a server: found by routing id (a message came) or by number (a push goes).
 *
 * ZeroMQ's routing ids are new with each connection, so a peer is one connection; its number is never used again.
 * Internal to server.c. Thread rule: the loop's thread only. */
#pragma once

#include <uthash.h>

#include "base/macro.h"
#include "wire/message.h"

struct held;                            /* server.c: a request that has no answer yet */

struct peer {
    uint64_t number;
    uint8_t id[WIRE_PEER_ID_MAX];       /* routing id */
    size_t id_size;
    uint64_t heard_ms;                  /* last message */
    unsigned outstanding;               /* requests without an answer */
    struct held *held;                  /* those requests */
    UT_hash_handle by_id, by_number;
};

struct peer_table {
    struct peer *by_id, *by_number;
    uint64_t last_number;
    unsigned n;
};

/* The peer with this routing id; NULL: not there. */
struct peer *peer_find(struct peer_table *table, const void *id, size_t id_size);
struct peer *peer_numbered(struct peer_table *table, uint64_t number);

/* NULL: out of memory, or there are WIRE_PEERS_MAX. */
struct peer *peer_add(struct peer_table *table, const void *id, size_t id_size);
struct peer *peer_remove(struct peer_table *table, struct peer *peer);      /* frees; returns NULL */
