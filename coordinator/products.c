#include "coordinator/products.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/membership.h"

/* Strict products have the same bits on all CPUs, fast ones on those of one instruction (docs/adr/0003-fast-numerics.md). */
static const char *products_of(const struct member *member, enum numerics numerics)
{
    if (!*member->isa)
        return "a device";
    if (numerics == NUMERICS_FAST && (strcmp(member->isa, "amx") == 0 || strcmp(member->isa, "avx512bf16") == 0))
        return member->isa;
    return "strict";
}

static const char *remedy(const char *a, const char *b)
{
    if (strcmp(a, "a device") == 0 || strcmp(b, "a device") == 0)
        return "put both on devices, or neither";
    if (strcmp(a, "strict") == 0 || strcmp(b, "strict") == 0)
        return "numerics: strict makes them equal";
    return "GANTRY_ISA=avx512bf16 in the environment of all daemons makes them equal";
}

bool products_unlike(const struct membership *members, const struct member *member, enum numerics numerics, char *text,
                     size_t size)
{
    const char *mine = products_of(member, numerics);

    if (member->role != MEMBER_ACTOR && member->role != MEMBER_LEARNER)
        return false;
    for (size_t i = 0; i < members->n; i++) {
        const struct member *other = &members->items[i];
        const char *theirs = products_of(other, numerics);

        if (other->state == MEMBER_GONE || strcmp(mine, theirs) == 0 ||
            (other->role != MEMBER_LEARNER && (other->role != MEMBER_ACTOR || member->role != MEMBER_LEARNER)))
            continue;
        snprintf(text, size, "member %u (%s on %s) multiplies by %s, member %u (%s on %s) by %s: their log-probabilities differ "
                 "a little (logp_gap in the metrics); %s",
                 member->id, member->role == MEMBER_ACTOR ? "actor" : "learner", member->host, mine,
                 other->id, other->role == MEMBER_ACTOR ? "actor" : "learner", other->host, theirs, remedy(mine, theirs));
        return true;
    }
    return false;
}
