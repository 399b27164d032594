#include "wire/peer.h"

struct peer *peer_find(struct peer_table *table, const void *id, size_t id_size)
{
    struct peer *peer;

    HASH_FIND(by_id, table->by_id, id, id_size, peer);
    return peer;
}

struct peer *peer_numbered(struct peer_table *table, uint64_t number)
{
    struct peer *peer;

    HASH_FIND(by_number, table->by_number, &number, sizeof number, peer);
    return peer;
}

struct peer *peer_add(struct peer_table *table, const void *id, size_t id_size)
{
    struct peer *peer;

    if (table->n == WIRE_PEERS_MAX || id_size > sizeof peer->id)
        return NULL;
    peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    peer->number = ++table->last_number;
    memcpy(peer->id, id, id_size);
    peer->id_size = id_size;
    HASH_ADD_KEYPTR(by_id, table->by_id, peer->id, id_size, peer);
    HASH_ADD(by_number, table->by_number, number, sizeof peer->number, peer);
    table->n++;
    return peer;
}

struct peer *peer_remove(struct peer_table *table, struct peer *peer)
{
    HASH_DELETE(by_id, table->by_id, peer);
    HASH_DELETE(by_number, table->by_number, peer);
    table->n--;
    free(peer);
    return NULL;
}
