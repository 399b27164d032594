#include "run/builds.h"

#include <inttypes.h>
#include <string.h>

#include "base/macro.h"

enum { COORDINATOR = 0, LEARNER = 4 };

const char *const run_build_roles[RUN_BUILD_ROLES] = {"coordinator", "env worker", "actor", "PRM server", "learner"};

/* -1: no room for another. */
static int item_of(struct run_builds *b, const char *name)
{
    for (size_t i = 0; i < b->n; i++)
        if (!strcmp(b->items[i].name, name))
            return (int)i;
    if (b->n == RUN_BUILDS)
        return -1;
    b->items[b->n] = (struct run_build) {0};
    snprintf(b->items[b->n].name, sizeof b->items->name, "%s", name);
    return (int)b->n++;
}

static void learner_has(struct run_builds *b, size_t item, uint64_t wall_ms)
{
    if ((b->n_learner && b->learner[b->n_learner - 1].item == item) || b->n_learner == RUN_BUILD_SPANS)
        return;
    b->learner[b->n_learner].since_ms = wall_ms;
    b->learner[b->n_learner++].item = item;
}

static void add(struct run_builds *b, unsigned role, const char *mark, const struct ledger_event *event)
{
    char name[sizeof b->items->name];
    const char *at = NULL;
    int item;

    if (role >= RUN_BUILD_ROLES)
        return;
    for (const char *next = event->text; (next = strstr(next, mark)); next++)
        at = next;              /* the last: a host's name is before it, and may hold anything */
    if (!at || !at[strlen(mark)]) {
        b->silent = true;
        return;
    }
    snprintf(name, sizeof name, "%s", at + strlen(mark));
    item = item_of(b, name);
    if (item < 0)
        return;
    b->items[item].roles |= 1u << role;
    if (role == LEARNER)
        learner_has(b, (size_t)item, event->wall_ms);
}

/* "member 7: learner, host ..."; until November 2026 "member 7: role 5, ...", the wire's number. RUN_BUILD_ROLES: neither. */
static unsigned role_that_joined(const char *text)
{
    const char *word = strstr(text, ": ");
    unsigned number;

    if (!word)
        return RUN_BUILD_ROLES;
    word += 2;
    if (sscanf(word, "role %u,", &number) == 1)
        return number - 1;
    for (unsigned role = 0; role < RUN_BUILD_ROLES; role++) {
        size_t n = strlen(run_build_roles[role]);

        if (!strncmp(word, run_build_roles[role], n) && word[n] == ',')
            return role;
    }
    return RUN_BUILD_ROLES;
}

static int note(const struct ledger_event *event, void *arg)
{
    struct run_builds *b = arg;
    unsigned role;

    if (!strcmp(event->kind, "start")) {
        add(b, COORDINATOR, " build=", event);
    } else if (!strcmp(event->kind, "joined")) {
        role = role_that_joined(event->text);
        if (role != COORDINATOR)
            add(b, role, ", build ", event);
    }
    return 0;
}

int run_builds_read(struct ledger *ledger, struct run_builds *ret)
{
    struct run_builds builds = {0};
    int r = ledger_each_event(ledger, 0, note, &builds);

    if (r < 0)
        return r;
    *ret = builds;
    return 0;
}

int run_builds_at(const struct run_builds *b, uint64_t committed_ms)
{
    int item = -1;

    for (size_t i = 0; i < b->n_learner && b->learner[i].since_ms <= committed_ms; i++)
        item = (int)b->learner[i].item;
    return item;
}
