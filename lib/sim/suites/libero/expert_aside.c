#include <math.h>

#include "base/macro.h"
#include "sim/suites/libero/expert_look.h"

#define ROOM 0.015 /* m between a thing put aside and everything else */
#define STEP 0.02

/* A rectangle on the ground. */
struct area {
    double lo[2], hi[2];
};

static bool overlap(const struct area *a, const struct area *b, double room)
{
    return a->lo[0] < b->hi[0] + room && b->lo[0] < a->hi[0] + room && a->lo[1] < b->hi[1] + room && b->lo[1] < a->hi[1] + room;
}

static struct area area_of(const double lo[3], const double hi[3])
{
    return (struct area){.lo = {lo[0], lo[1]}, .hi = {hi[0], hi[1]}};
}

/* What the part passes over on its way. */
static struct area swept(const struct look *l, const struct part *part)
{
    struct area area = {.lo = {1e9, 1e9}, .hi = {-1e9, -1e9}};

    for (int k = 0; k < l->shapes->n; k++) {
        struct shape shape = l->shapes->at[k];

        for (int end = 0; end < 2 && shape.body == part->body; end++) {
            double lo[3], hi[3];

            shape_bounds(&shape, lo, hi);
            for (int i = 0; i < 2; i++) {
                area.lo[i] = fmin(area.lo[i], lo[i]);
                area.hi[i] = fmax(area.hi[i], hi[i]);
            }
            part_carry(part, part->to - part->q, shape.c, shape.R);
        }
    }
    return area;
}

bool stands_in_the_way(const struct look *l, const struct part *part, int thing)
{
    const struct area way = swept(l, part);
    double lo[3], hi[3];
    struct area area;

    if (!shapes_bounds(l->shapes, thing, lo, hi))
        return false;
    area = area_of(lo, hi);
    return overlap(&area, &way, 0);
}

/* Nothing there but what carries the thing now. */
static bool is_room(const struct look *l, int thing, const struct area *area, double bottom)
{
    bool carried = false;

    for (int k = 0; k < l->shapes->n; k++) {
        double lo[3], hi[3];
        struct area other;

        if (l->shapes->at[k].thing == thing)
            continue;
        shape_bounds(&l->shapes->at[k], lo, hi);
        other = area_of(lo, hi);
        if (hi[2] > bottom + .005 && overlap(area, &other, ROOM))
            return false;
        carried = carried || (fabs(hi[2] - bottom) <= .005 && other.lo[0] < area->lo[0] && other.hi[0] > area->hi[0] &&
                              other.lo[1] < area->lo[1] && other.hi[1] > area->hi[1]);
    }
    return carried;
}

bool place_aside(const struct look *l, const struct part *part, int thing, double ret[2])
{
    enum { RINGS = 15, WAYS = 16 };
    const struct area way = swept(l, part);
    const double *at = l->data->xpos + 3 * l->task->things[thing].body;
    double lo[3], hi[3], best = 1e9;

    if (!shapes_bounds(l->shapes, thing, lo, hi))
        return false;
    for (int i = 0; i < RINGS * WAYS; i++) {
        const int ring = 1 + i / WAYS, way_out = i % WAYS;
        const double far = STEP * ring, angle = 2 * M_PI * way_out / WAYS;
        const double move[2] = {far * cos(angle), far * sin(angle)};
        const double back[2] = {at[0] + move[0] - (way.lo[0] + way.hi[0]) / 2, at[1] + move[1] - (way.lo[1] + way.hi[1]) / 2};
        const double cost = far + hypot(back[0], back[1]);
        struct area area = area_of(lo, hi);

        for (int k = 0; k < 2; k++) {
            area.lo[k] += move[k];
            area.hi[k] += move[k];
        }
        if (cost >= best || overlap(&area, &way, ROOM) || !is_room(l, thing, &area, lo[2]))
            continue;
        ret[0] = at[0] + move[0];
        ret[1] = at[1] + move[1];
        best = cost;
    }
    return best < 1e9;
}
