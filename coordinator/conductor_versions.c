/* conductor_versions.c - which versions the servers shall hold, said until each has answered for each. */
#include <string.h>

#include "coordinator/conductor_internal.h"

static size_t add_wanted(uint64_t *list, size_t n, uint64_t version)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == version)
            return n;
    if (n == MEMBER_VERSIONS)
        return n;
    list[n] = version;
    return n + 1;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Most needed first: what is being played with, what comes next, the newest. In the message they are in ascending order. */
size_t conductor_wanted(const struct conductor *c, enum version_kind kind, uint64_t ret[MEMBER_VERSIONS])
{
    uint64_t policy, prm;
    struct work work;
    size_t n = 0;

    for (size_t i = 0; i < c->n_open; i++)
        if (c->open[i].n && (kind == KIND_POLICY ? !c->open[i].work.expert : c->open[i].row.prm_version != 0))
            n = add_wanted(ret, n, kind == KIND_POLICY ? c->open[i].row.policy_version : c->open[i].row.prm_version);
    if (!c->memory.finished && stage_plan_work(c->config, &c->memory, c->memory.stage, c->memory.iteration, &work) == 0 &&
        work.purpose) {
        conductor_work_versions(c, &work, &policy, &prm);
        if (kind == KIND_POLICY && !work.expert)
            n = add_wanted(ret, n, policy);
        else if (kind == KIND_PRM && prm)
            n = add_wanted(ret, n, prm);
    }
    if (kind == KIND_POLICY && versions_newest(&c->versions, kind))
        n = add_wanted(ret, n, conductor_newest_policy(c));
    if (kind == KIND_PRM && c->memory.prm_current)
        n = add_wanted(ret, n, c->memory.prm_current);
    if (kind == KIND_PRM && c->memory.prm_next)         /* loaded before its iteration comes */
        n = add_wanted(ret, n, c->memory.prm_next);
    if (kind == KIND_PRM && c->memory.shadow.version)
        n = add_wanted(ret, n, c->memory.shadow.version);
    qsort(ret, n, sizeof(*ret), compare_u64);
    return n;
}

static bool is_server_of(const struct member *member, enum version_kind kind)
{
    return member->state == MEMBER_ALIVE && member->role == (kind == KIND_POLICY ? MEMBER_ACTOR : MEMBER_PRM);
}

void conductor_send_versions(struct conductor *c, const struct member *member)
{
    enum version_kind kind = member->role == MEMBER_ACTOR ? KIND_POLICY : KIND_PRM;
    const struct ledger_version **keep = conductor_take(c, MEMBER_VERSIONS * sizeof(*keep));
    struct conductor_effect *effect;
    size_t n = 0;

    for (size_t i = 0; keep && i < c->n_wanted[kind]; i++) {
        const struct ledger_version *known = versions_find(&c->versions, kind, c->wanted[kind][i]);
        struct ledger_version *copy = known ? conductor_take(c, sizeof(*copy)) : NULL;

        if (!copy)
            continue;       /* a version number that the configuration names and nobody made: can_open goes on waiting */
        *copy = *known;
        keep[n++] = copy;
    }
    if (!n)
        return;
    effect = conductor_emit(c, CONDUCTOR_VERSIONS);
    effect->to = member->address_id;
    effect->member = member->id;
    effect->versions.kind = kind;
    effect->versions.keep = keep;
    effect->versions.n_keep = n;
    effect->versions.shadow = kind == KIND_PRM ? c->memory.shadow.version : 0;
}

static bool has_answered(const struct member *member, enum version_kind kind, uint64_t version)
{
    for (uint32_t i = 0; i < member->n_versions; i++)
        if (member->versions[i].kind == kind && member->versions[i].version == version)
            return true;
    return false;
}

void conductor_want_versions(struct conductor *c)
{
    for (enum version_kind kind = KIND_POLICY; kind <= KIND_PRM; kind++) {
        uint64_t wanted[MEMBER_VERSIONS];
        size_t n = conductor_wanted(c, kind, wanted);
        uint64_t shadow = kind == KIND_PRM ? c->memory.shadow.version : 0;
        bool moved = n != c->n_wanted[kind] || memcmp(wanted, c->wanted[kind], n * sizeof(*wanted)) ||
            shadow != c->shadow_said[kind];
        bool due = c->now_ms - c->wanted_sent_ms[kind] >= RESEND_MS;

        if (moved) {
            memcpy(c->wanted[kind], wanted, n * sizeof(*wanted));
            c->n_wanted[kind] = n;
            c->shadow_said[kind] = shadow;
            membership_keep(&c->members, kind, wanted, n);
        }
        if (!moved && !due)
            continue;
        c->wanted_sent_ms[kind] = c->now_ms;
        for (size_t i = 0; i < c->members.n; i++) {
            const struct member *member = &c->members.items[i];
            bool lacks = moved || shadow;       /* nobody answers that it heard of a trial: said again while it lasts */

            for (size_t k = 0; k < n && !lacks; k++)
                lacks = !has_answered(member, kind, wanted[k]);
            if (is_server_of(member, kind) && lacks)
                conductor_send_versions(c, member);
        }
    }
}
