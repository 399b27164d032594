#include "env_worker/servers.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

enum { ASIDE_ANSWERS = 4, ASIDE_BAD = 500, ASIDE_FIRST_MS = 1000, ASIDE_MOST_MS = 60000, PROBE_MS = 30000 };

/* ---- health ------------------------------------------------------------------------------------------- */

bool health_note(struct health *h, bool good, uint64_t now_ms, uint64_t random)
{
    uint64_t ms;

    if (h->aside_until_ms && good) {
        *h = (struct health) {.times = h->times / 2};   /* one that comes and goes is trusted less and less quickly */
        return true;
    }
    h->bad = (uint16_t)((3 * h->bad + (good ? 0 : 1000)) / 4);
    h->answers = (uint16_t)MIN(h->answers + 1, 1000);
    if (good || h->answers < ASIDE_ANSWERS || h->bad < ASIDE_BAD || now_ms < h->aside_until_ms)
        return false;           /* what was asked before it was set aside and fails now adds nothing */
    ms = MIN((uint64_t)ASIDE_FIRST_MS << MIN(h->times, 16U), (uint64_t)ASIDE_MOST_MS);
    h->aside_until_ms = now_ms + ms * 3 / 4 + random % (ms / 2 + 1);
    h->probe_until_ms = 0;
    h->times++;
    return h->times == 1;
}

bool health_good(const struct health *h, uint64_t now_ms)
{
    return !h->aside_until_ms || (now_ms >= h->aside_until_ms && now_ms >= h->probe_until_ms);
}

void health_asked(struct health *h, uint64_t now_ms)
{
    if (h->aside_until_ms)
        h->probe_until_ms = now_ms + PROBE_MS;
}

/* ---- patience ----------------------------------------------------------------------------------------- */

void patience_note(struct patience *p, uint64_t ms)
{
    p->slowest_ms = (uint32_t)MIN(MAX(ms, (uint64_t)p->slowest_ms / 8 * 7), (uint64_t)PATIENCE_MOST_MS);
}

uint32_t patience_ms(const struct patience *p, uint32_t least_ms)
{
    return (uint32_t)CLAMP(4 * (uint64_t)p->slowest_ms, (uint64_t)least_ms, (uint64_t)PATIENCE_MOST_MS);
}

/* ---- the list ------------------------------------------------------------------------------------------ */

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

static int rank_of(const struct server_entry *entry, uint64_t version, uint64_t now_ms)
{
    unsigned i;
    int has = version == 0;

    for (i = 0; i < entry->n_versions; i++)
        has |= entry->versions[i] == version;
    return 8 * has + (wire_client_up(entry->client) ? 4 : 0) + (health_good(&entry->health, now_ms) ? 2 : 0) + !entry->cordoned;
}

struct wire_client *servers_pick(struct servers *servers, Gantry__Role role, uint64_t version, unsigned spread)
{
    struct server_entry *equals[SERVERS_MAX], *usual, *least;
    uint64_t now_ms = clock_mono_ms();
    unsigned i, n = 0;
    int best = -1, rank;

    for (i = 0; i < servers->n; i++) {
        if (servers->entries[i].role != role)
            continue;
        rank = rank_of(&servers->entries[i], version, now_ms);
        if (rank > best)
            n = 0;
        best = MAX(best, rank);
        if (rank == best)
            equals[n++] = &servers->entries[i];
    }
    if (n == 0)
        return NULL;
    usual = least = equals[(servers->offset + spread) % n];
    for (i = 0; i < n; i++)
        if (wire_client_outstanding(equals[i]->client) < wire_client_outstanding(least->client))
            least = equals[i];
    if (wire_client_outstanding(usual->client) >= wire_client_outstanding(least->client) + SERVERS_SLACK)
        usual = least;
    for (i = 0; i < n; i++)     /* one that was set aside and may be tried again: now */
        if (equals[i]->health.aside_until_ms && health_good(&equals[i]->health, now_ms))
            usual = equals[i];
    health_asked(&usual->health, now_ms);
    return usual->client;
}

static struct server_entry *entry_of(const struct servers *servers, const struct wire_client *client)
{
    for (unsigned i = 0; i < servers->n; i++)
        if (servers->entries[i].client == client)
            return (struct server_entry *)&servers->entries[i];
    return NULL;
}

uint32_t servers_patience(const struct servers *servers, const struct wire_client *client, uint32_t least_ms)
{
    const struct server_entry *entry = entry_of(servers, client);
    bool alone = true;

    if (!entry)
        return least_ms;
    for (unsigned i = 0; i < servers->n; i++)
        alone &= &servers->entries[i] == entry || servers->entries[i].role != entry->role ||
                 !wire_client_up(servers->entries[i].client);
    return alone ? PATIENCE_MOST_MS : patience_ms(&entry->patience, least_ms);
}

void servers_took(struct servers *servers, const struct wire_client *client, int result, uint64_t since_ms)
{
    struct server_entry *entry = entry_of(servers, client);
    uint64_t ms = clock_mono_ms() - since_ms;
    uint32_t before;

    if (!entry || (result != 0 && (result != -ETIMEDOUT || !wire_client_up(client))))
        return;
    before = entry->patience.slowest_ms;
    patience_note(&entry->patience, ms);
    if (result == -ETIMEDOUT && entry->patience.slowest_ms > before + before / 4)
        log_warn("a server is there and has not answered in time, it gets more", "role=%s member=%u waited_ms=%" PRIu64
                 " next_ms=%" PRIu32, wire_role_name(entry->role), entry->member, ms, patience_ms(&entry->patience, 0));
}

void servers_note(struct servers *servers, const struct wire_client *client, bool good)
{
    struct server_entry *entry = entry_of(servers, client);

    if (!entry || !health_note(&entry->health, good, clock_mono_ms(), clock_mono_ns()))
        return;
    if (good)
        log_info("a server answers again", "role=%s member=%u address=%s", wire_role_name(entry->role), entry->member,
                 LOG_Q(wire_client_address(client)));
    else
        log_warn("a server is set aside: most of its answers are failures", "role=%s member=%u address=%s",
                 wire_role_name(entry->role), entry->member, LOG_Q(wire_client_address(client)));
}
