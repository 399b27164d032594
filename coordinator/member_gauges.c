#include "coordinator/member_gauges.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/array.h"

void gauges_release(struct gauges *gauges)
{
    free(gauges->items);
    *gauges = (struct gauges) { 0 };
}

static struct gauge *find(const struct member_gauges *of, const char *name)
{
    for (unsigned i = 0; of && i < of->n; i++)
        if (!strcmp(of->items[i].name, name))
            return (struct gauge *)&of->items[i];
    return NULL;
}

static void add_up(struct member_gauges *gone, const struct member_gauges *left)
{
    for (unsigned i = 0; i < left->n; i++) {
        struct gauge *sum = find(gone, left->items[i].name);

        if (!sum && gone->n == MEMBER_GAUGES)
            continue;
        if (!sum) {
            sum = &gone->items[gone->n++];
            *sum = (struct gauge) { 0 };
            memcpy(sum->name, left->items[i].name, sizeof(sum->name));
        }
        sum->value += left->items[i].value;
        sum->peak = MAX(sum->peak, left->items[i].value);
    }
}

/* Those that are gone make room. */
static void collect_gone(struct gauges *g, const struct membership *members)
{
    size_t kept = 0;

    for (size_t i = 0; i < g->n; i++)
        if (membership_find((struct membership *)members, g->items[i].member))
            g->items[kept++] = g->items[i];
        else
            add_up(&g->gone[g->items[i].role], &g->items[i]);
    g->n = kept;
}

struct member_gauges *gauges_place(struct gauges *g, const struct membership *members, uint32_t member)
{
    struct member_gauges *place = (struct member_gauges *)gauges_find(g, member);
    const struct member *known = membership_find((struct membership *)members, member);
    struct pace pace = place ? place->pace : (struct pace) {0};

    if (!known)
        return NULL;
    if (!place && g->n == g->capacity) {
        collect_gone(g, members);
        if (g->n * 2 >= g->capacity && array_room(&g->items, g->capacity, &g->capacity, sizeof(*g->items)) < 0)
            return NULL;
    }
    if (!place)
        place = &g->items[g->n++];
    *place = (struct member_gauges) { .member = member, .role = known->role, .pace = pace };
    return place;
}

void gauges_put(struct member_gauges *place, const char *name, double value)
{
    struct gauge *gauge = find(place, name);

    if (!isfinite(value) || (!gauge && place->n == MEMBER_GAUGES))
        return;
    if (!gauge)
        gauge = &place->items[place->n++];
    snprintf(gauge->name, sizeof(gauge->name), "%s", name);
    gauge->value = gauge->peak = value;
}

const struct member_gauges *gauges_find(const struct gauges *g, uint32_t member)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->items[i].member == member)
            return &g->items[i];
    return NULL;
}

double gauges_value(const struct member_gauges *of, const char *name)
{
    const struct gauge *gauge = find(of, name);

    return gauge ? gauge->value : 0;
}

double gauges_over_role(const struct gauges *g, enum member_role role, const char *name, bool peak)
{
    const struct gauge *gone = find(&g->gone[role], name);
    double result = gone ? peak ? gone->peak : gone->value : 0;

    for (size_t i = 0; i < g->n; i++)
        if (g->items[i].role == role) {
            double value = gauges_value(&g->items[i], name);

            result = peak ? MAX(result, value) : result + value;
        }
    return result;
}
