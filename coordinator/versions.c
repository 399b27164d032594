#include "coordinator/versions.h"

#include <errno.h>
#include <string.h>

#include "base/array.h"
#include "base/macro.h"

void versions_release(struct versions *v)
{
    free(v->items);
    *v = (struct versions) { 0 };
}

int versions_add(struct versions *v, const struct ledger_version *version, bool *ret_new)
{
    const struct ledger_version *known = versions_find(v, version->kind, version->number);

    if (known && memcmp(known->digest, version->digest, SHA256_SIZE))
        return -EEXIST;
    if (!known) {
        if (array_room(&v->items, v->n, &v->capacity, sizeof(*v->items)) < 0)
            return -ENOMEM;
        v->items[v->n] = *version;
        v->items[v->n++].metrics = NULL;
    }
    if (ret_new)
        *ret_new = !known;
    return 0;
}

static bool is_listed(const uint64_t *list, size_t n, uint64_t number)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == number)
            return true;
    return false;
}

void versions_forget(struct versions *v, enum version_kind kind, const uint64_t *keep, size_t n_keep)
{
    const struct ledger_version *passed = versions_newest_passed(v, kind);
    uint64_t passed_number = passed ? passed->number : 0;
    size_t kept = 0, above = 0;

    for (size_t i = 0; i < v->n; i++)
        above += v->items[i].kind == kind;
    for (size_t i = 0; i < v->n; i++) {         /* in order of commitment: the newest of a kind are the last */
        bool other = v->items[i].kind != kind;

        above -= !other;
        if (other || above < VERSIONS_RECENT || v->items[i].number == passed_number ||
            is_listed(keep, n_keep, v->items[i].number))
            v->items[kept++] = v->items[i];
    }
    v->n = kept;
}

const struct ledger_version *versions_find(const struct versions *v, enum version_kind kind, uint64_t number)
{
    for (size_t i = v->n; i-- > 0;)
        if (v->items[i].kind == kind && v->items[i].number == number)
            return &v->items[i];
    return NULL;
}

const struct ledger_version *versions_newest(const struct versions *v, enum version_kind kind)
{
    const struct ledger_version *newest = NULL;

    for (size_t i = 0; i < v->n; i++)
        if (v->items[i].kind == kind && (!newest || v->items[i].number > newest->number))
            newest = &v->items[i];
    return newest;
}

const struct ledger_version *versions_newest_passed(const struct versions *v, enum version_kind kind)
{
    const struct ledger_version *newest = NULL;

    for (size_t i = 0; i < v->n; i++)
        if (v->items[i].kind == kind && v->items[i].gate_passed && (!newest || v->items[i].number > newest->number))
            newest = &v->items[i];
    return newest;
}
