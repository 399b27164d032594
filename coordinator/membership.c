#include "coordinator/membership.h"

#include <errno.h>
#include <string.h>

#include "base/array.h"

enum { FORGET_MS = 3600 * 1000 };

void membership_release(struct membership *m)
{
    free(m->items);
    *m = (struct membership) { 0 };
}

static bool is_server(const struct member *member)
{
    return member->role == MEMBER_ACTOR || member->role == MEMBER_PRM || member->role == MEMBER_LEARNER;
}

/* A new process has taken the place of `old`: the same learner rank, or the same listening address. */
static bool replaces(const struct member *new, const struct member *old)
{
    if (old->role != new->role || old->state == MEMBER_GONE)
        return false;
    if (new->role == MEMBER_LEARNER)
        return old->rank == new->rank;
    return is_server(new) && new->address[0] && !strcmp(old->address, new->address);
}

/* It said Bye, its exit was noticed, or its machine went away long ago: if it comes back, it says Hello and is a new member. */
static bool is_over(const struct member *member, uint64_t now_ms)
{
    return member->state == MEMBER_GONE || (member->state == MEMBER_LOST && now_ms - member->heard_ms >= FORGET_MS);
}

/* A place for one more: one that is long gone, or a new one at the end. Ids stay in ascending order by reusing none. */
static struct member *add(struct membership *m, uint64_t now_ms)
{
    if (m->n == m->capacity) {
        size_t kept = 0;

        for (size_t i = 0; i < m->n; i++)       /* a run of weeks sees many processes */
            if (!is_over(&m->items[i], now_ms))
                m->items[kept++] = m->items[i];
        m->n = kept;
        /* as if it were full, where half of it is: else all would be looked through again soon */
        if ((kept > m->capacity / 2 || !m->capacity) && array_room(&m->items, m->capacity, &m->capacity, sizeof(*m->items)) < 0)
            return NULL;
    }
    return &m->items[m->n++];
}

int membership_hello(struct membership *m, const struct member *hello, uint64_t now_ms, struct member **ret, bool *ret_new)
{
    struct member *member = NULL;
    bool is_new;

    for (size_t i = 0; i < m->n; i++) {
        if (m->items[i].role == hello->role && m->items[i].instance == hello->instance && m->items[i].state != MEMBER_GONE &&
            !strcmp(m->items[i].user, hello->user))
            member = &m->items[i];
        else if (replaces(hello, &m->items[i]))
            membership_remove(m, &m->items[i]);
    }
    is_new = !member || member->state != MEMBER_ALIVE;
    if (!member) {
        member = add(m, now_ms);
        if (!member)
            return -ENOMEM;
        *member = *hello;
        member->id = ++m->last_id;
        member->n_versions = 0;
        member->cordoned = member->leaving = member->reserved = member->gave_back = false;
        member->delivered = 0;
        member->failed = 0;
        member->failed_last = 0;
        member->wanted_more_ms = 0;
    }
    member->state = MEMBER_ALIVE;
    member->heard_ms = now_ms;
    member->address_id = hello->address_id;
    m->revision += is_new && is_server(member);
    *ret = member;
    *ret_new = is_new;
    return 0;
}

struct member *membership_find(struct membership *m, uint32_t id)
{
    size_t low = 0, high = m->n;

    while (low < high) {                /* ids ascend */
        size_t middle = low + (high - low) / 2;

        if (m->items[middle].id == id)
            return m->items[middle].state == MEMBER_GONE ? NULL : &m->items[middle];
        if (m->items[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

struct member *membership_find_process(struct membership *m, const char *host, uint32_t pid)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->items[i].pid == pid && m->items[i].state != MEMBER_GONE && !strcmp(m->items[i].host, host))
            return &m->items[i];
    return NULL;
}

void membership_excuse(struct membership *m, uint64_t ms)
{
    for (size_t i = 0; i < m->n; i++)
        m->items[i].heard_ms += ms;
}

struct member *membership_take_lost(struct membership *m, uint64_t now_ms, uint32_t ttl_ms)
{
    for (size_t i = 0; i < m->n; i++) {
        struct member *member = &m->items[i];

        if (member->state != MEMBER_ALIVE || now_ms - member->heard_ms < ttl_ms)
            continue;
        member->state = MEMBER_LOST;
        member->reserved = false;
        member->n_versions = 0;         /* it says them again when it is back */
        m->revision += is_server(member);
        return member;
    }
    return NULL;
}

void membership_remove(struct membership *m, struct member *member)
{
    m->revision += is_server(member) && member->state == MEMBER_ALIVE;
    member->state = MEMBER_GONE;
    member->reserved = false;
    member->n_versions = 0;
}

void membership_version(struct membership *m, struct member *member, enum version_kind kind, uint64_t version, bool ready,
                        uint64_t now_ms)
{
    struct member_version *slot = NULL;

    for (uint32_t i = 0; i < member->n_versions; i++)
        if (member->versions[i].kind == kind && member->versions[i].version == version)
            slot = &member->versions[i];
    if (!slot && member->n_versions == MEMBER_VERSIONS) {       /* the oldest is let go: servers hold a few at a time */
        for (uint32_t i = 1; i < member->n_versions; i++)
            member->versions[i - 1] = member->versions[i];
        slot = &member->versions[MEMBER_VERSIONS - 1];
        *slot = (struct member_version) { 0 };
    } else if (!slot) {
        slot = &member->versions[member->n_versions++];
        *slot = (struct member_version) { 0 };
    }
    m->revision += slot->ready != ready;
    *slot = (struct member_version) { .kind = kind, .version = version, .ready = ready, .said_ms = now_ms };
}

void membership_keep(struct membership *m, enum version_kind kind, const uint64_t *versions, size_t n)
{
    for (size_t i = 0; i < m->n; i++) {
        struct member *member = &m->items[i];
        uint32_t kept = 0;

        for (uint32_t k = 0; k < member->n_versions; k++) {
            bool listed = member->versions[k].kind != kind;

            for (size_t j = 0; j < n && !listed; j++)
                listed = member->versions[k].version == versions[j];
            if (listed)
                member->versions[kept++] = member->versions[k];
        }
        m->revision += kept != member->n_versions;
        member->n_versions = kept;
    }
}

bool membership_refused(const struct membership *m, enum version_kind kind, uint64_t version, uint64_t since_ms)
{
    enum member_role role = kind == KIND_POLICY ? MEMBER_ACTOR : MEMBER_PRM;
    size_t refusing = 0;

    for (size_t i = 0; i < m->n; i++) {
        const struct member *member = &m->items[i];
        bool refuses = false;

        if (member->state != MEMBER_ALIVE || member->role != role)
            continue;
        for (uint32_t k = 0; k < member->n_versions; k++)
            refuses |= member->versions[k].kind == kind && member->versions[k].version == version &&
                       !member->versions[k].ready && member->versions[k].said_ms >= since_ms;
        if (!refuses)
            return false;
        refusing++;
    }
    return refusing > 0;
}

bool membership_ready(const struct membership *m, enum version_kind kind, uint64_t version)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct member *member = &m->items[i];

        for (uint32_t k = 0; member->state == MEMBER_ALIVE && k < member->n_versions; k++)
            if (member->versions[k].kind == kind && member->versions[k].version == version && member->versions[k].ready)
                return true;
    }
    return false;
}

struct member *membership_learner(const struct membership *m)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->items[i].role == MEMBER_LEARNER && m->items[i].rank == 0 && m->items[i].state == MEMBER_ALIVE)
            return &m->items[i];
    return NULL;
}

struct member *membership_other(const struct membership *m, const struct member *member)
{
    for (size_t i = 0; i < m->n; i++)
        if (&m->items[i] != member && m->items[i].role == member->role && m->items[i].state == MEMBER_ALIVE &&
            !m->items[i].leaving)
            return &m->items[i];
    return NULL;
}

size_t membership_count(const struct membership *m, enum member_role role)
{
    size_t n = 0;

    for (size_t i = 0; i < m->n; i++)
        n += m->items[i].role == role && m->items[i].state == MEMBER_ALIVE;
    return n;
}
