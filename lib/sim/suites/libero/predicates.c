#include "sim/suites/libero/predicates.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* A name of a statement: a region, else a thing. */
struct operand {
    const struct libero_region *region;
    const struct libero_thing *thing;           /* of a region: its parent, or NULL */
    const int *joints;
    int n_joints, owner;                        /* owner: index of thing, -1 none */
};

static struct operand find(const struct libero_task *task, const char *name)
{
    int region = libero_region(task, name), thing = libero_thing(task, name);
    struct operand o = { .owner = -1 };

    if (region >= 0) {
        o.region = &task->regions[region];
        o.owner = o.region->parent;
        o.joints = o.region->joints;
        o.n_joints = o.region->n_joints;
    } else if (thing >= 0) {
        o.owner = thing;
        o.joints = task->things[thing].joints;
        o.n_joints = task->things[thing].n_joints;
    }
    o.thing = o.owner >= 0 ? &task->things[o.owner] : NULL;
    return o;
}

static const struct libero_threshold *threshold(const struct operand *o, enum bddl_predicate predicate)
{
    if (!o->thing)
        return NULL;
    switch (predicate) {
    case BDDL_OPEN: return &o->thing->category->open;
    case BDDL_CLOSE: return &o->thing->category->close;
    case BDDL_TURNON: return &o->thing->category->turnon;
    case BDDL_TURNOFF: return &o->thing->category->turnoff;
    default: return NULL;
    }
}

int predicate_check(const struct libero_task *task, const struct bddl_statement *s, struct error *error)
{
    const struct operand a = find(task, s->first), b = s->second ? find(task, s->second) : (struct operand) { .owner = -1 };
    const struct libero_threshold *limit = threshold(&a, s->predicate);
    const char *file = task->problem->file, *name = bddl_predicate_name[s->predicate];

    switch (s->predicate) {
    case BDDL_ON:
    case BDDL_IN:
        if (a.region || !a.thing)
            return error_set(error, EINVAL, "%s: line %d: %s: '%s' must be an object", file, s->line, name, s->first);
        if (b.region ? b.region->site < 0 : !b.thing)
            return error_set(error, EINVAL, "%s: line %d: %s: the scene has no site or object '%s'", file, s->line, name,
                             s->second);
        if (s->predicate == BDDL_IN && !b.region)
            return error_set(error, EINVAL, "%s: line %d: in: '%s' must be a region", file, s->line, s->second);
        return 0;
    case BDDL_UP:
        return a.thing && !a.region
                   ? 0
                   : error_set(error, EINVAL, "%s: line %d: up: '%s' must be an object", file, s->line, s->first);
    default:
        if (!limit || !limit->sign || ((s->predicate == BDDL_TURNON || s->predicate == BDDL_TURNOFF) && a.region))
            return error_set(error, EINVAL, "%s: line %d: '%s' cannot be judged by %s", file, s->line, s->first, name);
        return 0;
    }
}

static bool beyond(const struct libero_threshold *limit, double q)
{
    return limit->sign > 0 ? q > limit->at || (limit->inclusive && q == limit->at) : q < limit->at;
}

/* open, turnon: any joint. close, turnoff: all of them. */
static bool joints_beyond(const struct operand *o, const struct libero_threshold *limit, bool all, const mjData *data)
{
    for (int i = 0; i < o->n_joints; i++)
        if (beyond(limit, data->qpos[o->joints[i]]) != all)
            return !all;
    return all;
}

static bool touch(const struct libero_task *task, const mjData *data, int a, int b)
{
    for (int i = 0; i < data->ncon; i++) {
        const int one = data->contact[i].geom[0], two = data->contact[i].geom[1];
        const int first = one < 0 ? -1 : task->geom_owner[one], second = two < 0 ? -1 : task->geom_owner[two];

        if ((first == a && second == b) || (first == b && second == a))
            return true;
    }
    return false;
}

static void turn(const double *R, const double v[3], double ret[3])
{
    for (int i = 0; i < 3; i++)
        ret[i] = R[3 * i] * v[0] + R[3 * i + 1] * v[1] + R[3 * i + 2] * v[2];
}

/* B carries A: A's centre above B's, they touch, and less than 3 cm apart in the plane. */
static bool on_thing(const struct libero_task *task, const mjData *data, int a, int b)
{
    const double *pa = data->xpos + 3 * task->things[a].body, *pb = data->xpos + 3 * task->things[b].body;
    const double dx = pb[0] - pa[0], dy = pb[1] - pa[1];

    return pb[2] <= pa[2] && touch(task, data, a, b) && sqrt(dx * dx + dy * dy) < 0.03;
}

/* A within the region's outline and up to 10 cm above its top; and touching what the region belongs to. The original turns the
 * offset by the site's matrix, not by its transpose. */
static bool on_region(const struct libero_task *task, const mjData *data, int a, const struct libero_region *region)
{
    const double *size = task->model->site_size + 3 * region->site, *pa = data->xpos + 3 * task->things[a].body;
    const double *centre = data->site_xpos + 3 * region->site;
    const double offset[3] = { pa[0] - centre[0], pa[1] - centre[1], pa[2] - centre[2] };
    double d[3];

    turn(data->site_xmat + 9 * region->site, offset, d);
    return size[2] - 0.005 < d[2] && d[2] < size[2] + 0.10 && fabs(d[0]) < size[0] && fabs(d[1]) < size[1] &&
           (region->parent < 0 || touch(task, data, region->parent, a));
}

static bool in_region(const struct libero_task *task, const mjData *data, int a, const struct libero_region *region)
{
    const double *pa = data->xpos + 3 * task->things[a].body, *centre = data->site_xpos + 3 * region->site;
    double half[3];

    turn(data->site_xmat + 9 * region->site, task->model->site_size + 3 * region->site, half);
    for (int i = 0; i < 3; i++) {
        const double hi = centre[i] + fabs(half[i]), lo = centre[i] - fabs(half[i]) - (i == 2 ? 0.01 : 0);

        if (!(pa[i] > lo && pa[i] < hi))
            return false;
    }
    return true;
}

bool predicate_holds(const struct libero_task *task, const mjData *data, const struct bddl_statement *s)
{
    const struct operand a = find(task, s->first), b = s->second ? find(task, s->second) : (struct operand) { .owner = -1 };
    const struct libero_threshold *limit = threshold(&a, s->predicate);

    switch (s->predicate) {
    case BDDL_ON:
        return b.region ? on_region(task, data, a.owner, b.region) : on_thing(task, data, a.owner, b.owner);
    case BDDL_IN:
        return in_region(task, data, a.owner, b.region);
    case BDDL_UP:
        return data->xpos[3 * a.thing->body + 2] >= 1.0;
    default:
        return joints_beyond(&a, limit, s->predicate == BDDL_CLOSE || s->predicate == BDDL_TURNOFF, data);
    }
}

bool predicate_goal(const struct libero_task *task, const mjData *data)
{
    for (int i = 0; i < task->problem->n_goal; i++)
        if (!predicate_holds(task, data, &task->problem->goal[i]))
            return false;
    return true;
}

bool predicate_burner(const struct libero_task *task, const mjData *data)
{
    const struct libero_thing *stove = task->stove < 0 ? NULL : &task->things[task->stove];

    for (int i = 0; stove && i < stove->n_joints; i++)
        if (beyond(&stove->category->turnon, data->qpos[stove->joints[i]]))
            return true;
    return false;
}
