#include "env_worker/servers.h"

#include <errno.h>
#include <string.h>

static void remove_entry(struct servers *servers, unsigned i)
{
    struct wire_client *client = servers->entries[i].client;

    servers->entries[i] = servers->entries[--servers->n];
    wire_client_free(client);       /* last: ends calls, whose owners may look at the table */
}

static struct server_entry *find(struct servers *servers, const Gantry__Endpoint *endpoint)
{
    unsigned i;

    for (i = 0; i < servers->n; i++)
        if (servers->entries[i].role == endpoint->role &&
            strcmp(wire_client_address(servers->entries[i].client), endpoint->address) == 0)
            return &servers->entries[i];
    return NULL;
}

static int add(struct servers *servers, const Gantry__Endpoint *endpoint, struct server_entry **ret, struct error *error)
{
    struct wire_client_options options = {
        .address = endpoint->address, .server_key = endpoint->public_key, .credits = servers->credits,
    };
    struct server_entry *entry = &servers->entries[servers->n];
    int r;

    if (servers->n == SERVERS_MAX)
        return error_set(error, ENOSPC, "more than %d servers", SERVERS_MAX);
    *entry = (struct server_entry) { .role = endpoint->role };
    r = wire_client_new(servers->wire, &options, &entry->client, error);
    if (r < 0)
        return r;
    servers->n++;
    *ret = entry;
    return 0;
}

unsigned servers_update(struct servers *servers, Gantry__Endpoint *const *endpoints, size_t n, struct error *error)
{
    struct server_entry *entry;
    unsigned refused = 0, i;
    size_t k;

    for (i = 0; i < servers->n; i++)
        servers->entries[i].named = false;
    for (k = 0; k < n; k++) {
        const Gantry__Endpoint *endpoint = endpoints[k];

        if (endpoint->role == GANTRY__ROLE__ROLE_COORDINATOR || endpoint->role == GANTRY__ROLE__ROLE_ENV_WORKER ||
            (endpoint->role == GANTRY__ROLE__ROLE_LEARNER && endpoint->rank != 0))
            continue;       /* nothing to ask them */
        entry = find(servers, endpoint);
        if (!entry && add(servers, endpoint, &entry, error) < 0) {
            refused++;
            continue;
        }
        entry->member = endpoint->member;
        entry->rank = endpoint->rank;
        entry->cordoned = endpoint->cordoned;
        entry->named = true;
        entry->n_versions = (unsigned)MIN(endpoint->n_versions, (size_t)SERVER_VERSIONS_MAX);
        for (i = 0; i < entry->n_versions; i++)     /* the newest are last */
            entry->versions[i] = endpoint->versions[endpoint->n_versions - entry->n_versions + i];
    }
    for (i = servers->n; i-- > 0;)
        if (i < servers->n && !servers->entries[i].named)
            remove_entry(servers, i);
    return refused;
}

void servers_release(struct servers *servers)
{
    while (servers->n > 0)
        remove_entry(servers, servers->n - 1);
}

static int rank_of(const struct server_entry *entry, uint64_t version)
{
    unsigned i;
    int has = version == 0;

    for (i = 0; i < entry->n_versions; i++)
        has |= entry->versions[i] == version;
    return 4 * has + (wire_client_up(entry->client) ? 2 : 0) + !entry->cordoned;
}

struct wire_client *servers_pick(const struct servers *servers, Gantry__Role role, uint64_t version, unsigned spread)
{
    struct wire_client *equals[SERVERS_MAX], *usual, *least;
    unsigned i, n = 0;
    int best = -1, rank;

    for (i = 0; i < servers->n; i++) {
        if (servers->entries[i].role != role)
            continue;
        rank = rank_of(&servers->entries[i], version);
        if (rank > best)
            n = 0;
        best = MAX(best, rank);
        if (rank == best)
            equals[n++] = servers->entries[i].client;
    }
    if (n == 0)
        return NULL;
    usual = least = equals[(servers->offset + spread) % n];
    for (i = 0; i < n; i++)
        if (wire_client_outstanding(equals[i]) < wire_client_outstanding(least))
            least = equals[i];
    return wire_client_outstanding(usual) >= wire_client_outstanding(least) + SERVERS_SLACK ? least : usual;
}
