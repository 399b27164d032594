#include "coordinator/lease.h"

#include <errno.h>
#include <string.h>

void lease_table_init(struct lease_table *table, uint64_t epoch, uint32_t ttl_ms, uint32_t first_step_ms)
{
    *table = (struct lease_table) { .epoch = epoch, .ttl_ms = ttl_ms, .first_step_ms = first_step_ms };
}

void lease_table_release(struct lease_table *table)
{
    free(table->items);
    free(table->index);
    *table = (struct lease_table) { 0 };
}

/* ---- the index: linear probing, deletion by shifting back ---------------------------------------- */

static size_t bucket_home(const struct lease_table *table, uint64_t episode)
{
    return (size_t)((episode * 0x9E3779B97F4A7C15u) >> 32) & (table->buckets - 1);
}

/* The bucket of `episode`, or the empty one where it would go. */
static size_t bucket_of(const struct lease_table *table, uint64_t episode)
{
    size_t b = bucket_home(table, episode);

    while (table->index[b] && table->items[table->index[b] - 1].episode != episode)
        b = (b + 1) & (table->buckets - 1);
    return b;
}

static void bucket_delete(struct lease_table *table, size_t hole)
{
    size_t mask = table->buckets - 1;

    for (size_t b = (hole + 1) & mask; table->index[b]; b = (b + 1) & mask) {
        size_t home = bucket_home(table, table->items[table->index[b] - 1].episode);

        if (((b - home) & mask) >= ((b - hole) & mask)) {   /* its probe passes the hole: it may fill it */
            table->index[hole] = table->index[b];
            hole = b;
        }
    }
    table->index[hole] = 0;
}

static int table_grow(struct lease_table *table)
{
    size_t capacity = table->capacity ? 2 * table->capacity : 64;
    struct lease *items = realloc(table->items, capacity * sizeof(*items));
    uint32_t *index;

    if (!items)
        return -ENOMEM;
    table->items = items;
    index = calloc(2 * capacity, sizeof(*index));
    if (!index)
        return -ENOMEM;
    free(table->index);
    table->index = index;
    table->capacity = capacity;
    table->buckets = 2 * capacity;
    for (size_t i = 0; i < table->n; i++)
        index[bucket_of(table, items[i].episode)] = (uint32_t)i + 1;
    return 0;
}

static struct lease *find(const struct lease_table *table, uint64_t episode)
{
    uint32_t item = table->n ? table->index[bucket_of(table, episode)] : 0;

    return item ? &table->items[item - 1] : NULL;
}

static int add(struct lease_table *table, const struct lease *lease)
{
    int r = table->n == table->capacity ? table_grow(table) : 0;

    if (r < 0)
        return r;
    table->items[table->n++] = *lease;
    table->index[bucket_of(table, lease->episode)] = (uint32_t)table->n;
    return 0;
}

static void take(struct lease_table *table, struct lease *lease, struct lease *ret_lease)
{
    struct lease taken = *lease;
    struct lease *last = &table->items[table->n - 1];

    bucket_delete(table, bucket_of(table, taken.episode));
    if (lease != last) {
        table->index[bucket_of(table, last->episode)] = (uint32_t)(lease - table->items) + 1;
        *lease = *last;
    }
    table->n--;
    if (ret_lease)
        *ret_lease = taken;
}

/* ---- leases ------------------------------------------------------------------------------------ */

int lease_grant(struct lease_table *table, uint64_t episode, uint32_t member, bool alone, uint64_t now_ms,
                struct lease *ret_lease)
{
    struct lease lease;
    int r;

    if (find(table, episode))
        return -EEXIST;
    lease = (struct lease) {
        .episode = episode,
        .fence = table->epoch << 32 | (table->granted + 1),
        .member = member,
        .alone = alone,
        .expires_ms = now_ms + table->first_step_ms,    /* a cold worker may compile its model first */
    };
    r = add(table, &lease);
    if (r < 0)
        return r;
    table->granted++;
    *ret_lease = lease;
    return 0;
}

int lease_adopt(struct lease_table *table, uint64_t episode, uint64_t fence, uint32_t member, uint32_t step, uint64_t now_ms)
{
    struct lease *held = find(table, episode);
    struct lease lease = {
        .episode = episode,
        .fence = fence,
        .member = member,
        .step = step,
        .expires_ms = now_ms + (step ? table->ttl_ms : table->first_step_ms),
    };

    if (held && held->fence == fence)
        return held->member == member ? 0 : -ESTALE;    /* known already: saying so again renews nothing */
    if (fence >> 32 >= table->epoch || (held && held->fence > fence))
        return -ESTALE;
    if (held) {                                         /* announced before by somebody whose grant was earlier */
        *held = lease;
        return 0;
    }
    return add(table, &lease);
}

void lease_set_alone(struct lease_table *table, uint64_t episode)
{
    struct lease *lease = find(table, episode);

    if (lease)
        lease->alone = true;
}

int lease_progress(struct lease_table *table, const struct held_lease *held, uint64_t now_ms)
{
    struct lease *lease = find(table, held->episode);

    if (!lease || (lease->fence != held->fence && !table->renew_stale))
        return -ESTALE;
    if (held->step > lease->step || table->renew_stale) {
        lease->step = held->step;
        lease->played = held->played;
        lease->expires_ms = now_ms + table->ttl_ms;
    } else if (held->waits && held->step == lease->step) {      /* not a late heartbeat. A first step has longer anyway */
        lease->expires_ms = MAX(lease->expires_ms, now_ms + table->ttl_ms);
    }
    return 0;
}

const struct lease *lease_find(const struct lease_table *table, uint64_t episode)
{
    return find(table, episode);
}

size_t lease_count(const struct lease_table *table, uint32_t member)
{
    size_t n = 0;

    for (size_t i = 0; i < table->n; i++)
        n += table->items[i].member == member;
    return n;
}

int lease_end(struct lease_table *table, uint64_t episode)
{
    struct lease *lease = find(table, episode);

    if (!lease)
        return -ENOENT;
    take(table, lease, NULL);
    return 0;
}

void lease_hasten(struct lease_table *table, uint32_t member, uint64_t until_ms)
{
    for (size_t i = 0; i < table->n; i++)
        if (table->items[i].member == member)
            table->items[i].expires_ms = MIN(table->items[i].expires_ms, until_ms);
}

void lease_excuse(struct lease_table *table, uint64_t ms)
{
    for (size_t i = 0; i < table->n; i++)
        table->items[i].expires_ms += ms;
}

int lease_take_expired(struct lease_table *table, uint64_t now_ms, struct lease *ret_lease)
{
    for (size_t i = 0; i < table->n; i++)
        if (now_ms >= table->items[i].expires_ms) {
            take(table, &table->items[i], ret_lease);
            return 0;
        }
    return -ENOENT;
}

int lease_take_member(struct lease_table *table, uint32_t member, struct lease *ret_lease)
{
    for (size_t i = 0; i < table->n; i++)
        if (table->items[i].member == member) {
            take(table, &table->items[i], ret_lease);
            return 0;
        }
    return -ENOENT;
}

static bool mentions(const struct held_lease *mentioned, size_t n, const struct lease *lease)
{
    for (size_t i = 0; i < n; i++)
        if (mentioned[i].episode == lease->episode && mentioned[i].fence == lease->fence)
            return true;
    return false;
}

int lease_take_unmentioned(struct lease_table *table, uint32_t member, const struct held_lease *mentioned, size_t n, bool first,
                           struct lease *ret_lease)
{
    for (size_t i = 0; i < table->n && first; i++) {
        struct lease *lease = &table->items[i];

        if (lease->member == member)
            lease->unmentioned = mentions(mentioned, n, lease) ? 0 : (uint8_t)(lease->unmentioned + 1);
    }
    for (size_t i = 0; i < table->n; i++)
        if (table->items[i].member == member && table->items[i].unmentioned >= LEASE_UNMENTIONED) {
            take(table, &table->items[i], ret_lease);
            return 0;
        }
    return -ENOENT;
}
