#include "sim/suites/libero/placement.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { TRIES = 5000 };
static const double finger_rest = 0.020833;
static const double movable_z = 0.01;           /* m above what carries it */

struct draw {
    struct mt19937 *mt;
    const struct libero_task *task;
    const mjData *data;                         /* kinematics before anything is placed */
    bool placed[LIBERO_MAX_THINGS];
    double pose[LIBERO_MAX_THINGS][7];
    int order[LIBERO_MAX_THINGS], n_order;      /* placed things, first placed first */
    struct error *error;
};

void placement_seed(struct placement_stream *stream, uint32_t seed)
{
    mt19937_seed(&stream->mt, seed);
    stream->resets = 0;
}

/* ---- joints of :init (open ...) and so on ----------------------------------------------------------------- */

static const struct libero_threshold *drawn_range(const struct libero_category *category, enum bddl_predicate predicate)
{
    switch (predicate) {
    case BDDL_OPEN: return &category->open;
    case BDDL_CLOSE: return &category->close;
    case BDDL_TURNON: return &category->turnon;
    case BDDL_TURNOFF: return &category->turnoff;
    default: return NULL;
    }
}

static void draw_joints(struct draw *d, struct placement *ret)
{
    const struct bddl_problem *problem = d->task->problem;

    for (int i = 0; i < problem->n_init; i++) {
        const struct bddl_statement *s = &problem->init[i];
        const int region = libero_region(d->task, s->first), thing = region >= 0 ? d->task->regions[region].parent :
                                                                                libero_thing(d->task, s->first);
        const struct libero_threshold *range = thing < 0 ? NULL : drawn_range(d->task->things[thing].category, s->predicate);
        const int *joints = region >= 0 ? d->task->regions[region].joints : thing >= 0 ? d->task->things[thing].joints : NULL;
        const int n = region >= 0 ? d->task->regions[region].n_joints : thing >= 0 ? d->task->things[thing].n_joints : 0;
        double value;

        if (!range || !range->sign)
            continue;
        value = mt19937_uniform(d->mt, range->draw[0], range->draw[1]);
        for (int j = 0; j < n; j++) {
            int k = 0;

            while (k < ret->n_joints && ret->joints[k].qpos != joints[j])
                k++;
            if (k == BDDL_MAX)
                continue;
            ret->joints[k].qpos = joints[j];
            ret->joints[k].value = value;
            ret->n_joints = MAX(ret->n_joints, k + 1);
        }
    }
}

/* ---- poses ---------------------------------------------------------------------------------------------------- */

static void put(struct draw *d, int thing, const double pos[3], const double quat[4])
{
    memcpy(d->pose[thing], pos, sizeof(double) * 3);
    memcpy(d->pose[thing] + 3, quat, sizeof(double) * 4);
    d->placed[thing] = true;
    d->order[d->n_order++] = thing;
}

/* Does it stand clear of all that is placed? */
static bool is_clear(const struct draw *d, int thing, const double pos[3])
{
    const struct libero_thing *own = &d->task->things[thing];

    for (int i = 0; i < d->n_order; i++) {
        const struct libero_thing *other = &d->task->things[d->order[i]];
        const double *at = d->pose[d->order[i]], dx = pos[0] - at[0], dy = pos[1] - at[1];

        if (sqrt(dx * dx + dy * dy) <= other->radius + own->radius && pos[2] - at[2] <= other->top - own->bottom)
            return false;
    }
    return true;
}

/* The original writes x, y, z, w, and MuJoCo reads them as w, x, y, z: harmless, and part of the benchmark. */
static void draw_rotation(struct draw *d, int thing, double quat[4])
{
    const struct libero_category *category = d->task->things[thing].category;
    double first = mt19937_uniform(d->mt, category->rotation.range[0], category->rotation.range[1]), second;
    const int axis = category->rotation.about == 'y' ? 1 : category->rotation.about == 'z' ? 2 : 0;

    memset(quat, 0, sizeof(double) * 4);
    if (category->rotation.draws == 1) {
        quat[axis] = sin(first / 2);
        quat[3] = cos(first / 2);
        return;
    }
    second = mt19937_uniform(d->mt, category->rotation.range[0], category->rotation.range[1]);
    quat[0] = sin(first / 2) * cos(second / 2);         /* (about z) times (about x) */
    quat[1] = sin(first / 2) * sin(second / 2);
    quat[2] = cos(first / 2) * sin(second / 2);
    quat[3] = cos(first / 2) * cos(second / 2);
}

/* x and y from a rectangle around `base`, rotation behind; tried until the place is free when `checked`. */
static int draw_pose(struct draw *d, int thing, const double base[3], const double range[4], double shrink, double z,
                     bool checked)
{
    for (int i = 0; i < TRIES; i++) {
        double pos[3], quat[4];

        pos[0] = mt19937_uniform(d->mt, range[0] + shrink, range[2] - shrink) + base[0];
        pos[1] = mt19937_uniform(d->mt, range[1] + shrink, range[3] - shrink) + base[1];
        pos[2] = z + base[2] - d->task->things[thing].bottom;
        if (checked && !is_clear(d, thing, pos))
            continue;
        draw_rotation(d, thing, quat);
        put(d, thing, pos, quat);
        return 0;
    }
    return error_set(d->error, EAGAIN, "%s: no free place for %s in %d tries", d->task->problem->file,
                     d->task->things[thing].name, TRIES);
}

static int draw_fixture(struct draw *d, int thing, const struct bddl_region *region)
{
    const struct libero_arena *arena = d->task->arena;
    const double lo = fmin(region->yaw[0], region->yaw[1]), hi = fmax(region->yaw[0], region->yaw[1]);
    double pos[3], quat[4] = {0}, yaw;

    pos[0] = mt19937_uniform(d->mt, region->range[0], region->range[2]) + arena->offset[0];
    pos[1] = mt19937_uniform(d->mt, region->range[1], region->range[3]) + arena->offset[1];
    pos[2] = arena->fixture_z + arena->offset[2] - d->task->things[thing].bottom;
    yaw = mt19937_uniform(d->mt, lo, hi);
    quat[0] = cos(yaw / 2);
    quat[3] = sin(yaw / 2);
    put(d, thing, pos, quat);
    return 0;
}

/* ---- :init (on ...), (in ...) ------------------------------------------------------------------------------------ */

enum place_kind { NOWHERE, ON_SURFACE, ON_SITE, IN_SITE, ON_OBJECT };

/* What a statement asks for. *ret_target: the thing below; *ret_region: the region, or NULL. */
static enum place_kind classify(const struct libero_task *task, const struct bddl_statement *s, int *ret_target,
                                const struct bddl_region **ret_region)
{
    const int target = s->second ? libero_thing(task, s->second) : -1;

    *ret_region = s->second ? bddl_region(task->problem, s->second) : NULL;
    *ret_target = target;
    if (s->predicate == BDDL_ON && target >= 0 && task->things[target].movable)
        return ON_OBJECT;
    if (!*ret_region || (s->predicate != BDDL_ON && s->predicate != BDDL_IN))
        return NOWHERE;
    *ret_target = libero_thing(task, (*ret_region)->target);
    if (s->predicate == BDDL_IN)
        return IN_SITE;
    return *ret_target >= 0 ? ON_SITE : ON_SURFACE;
}

/* R v of a unit quaternion (w first). */
static void turn(const double q[4], const double v[3], double ret[3])
{
    mju_rotVecQuat(ret, v, q);
}

static int place_on_site(struct draw *d, const struct bddl_statement *s, int thing, int target, const struct bddl_region *region,
                         bool top)
{
    const int site = mj_name2id(d->task->model, mjOBJ_SITE, region->name);
    double base[3], offset[3], range[4] = {0};

    if (target < 0 || site < 0 || !d->placed[target])
        return error_set(d->error, EINVAL, "%s: line %d: '%s' cannot be placed at '%s', which has no site or no place yet",
                         d->task->problem->file, s->line, s->first, s->second);
    turn(d->pose[target] + 3, d->data->site_xpos + 3 * site, offset);
    for (int i = 0; i < 3; i++)
        base[i] = d->pose[target][i] + offset[i] + (i == 2 && top ? d->task->things[target].top : 0);
    for (int i = 0; i < 2 && top; i++) {
        range[i] = -d->task->model->site_size[3 * site + i] / 2;
        range[2 + i] = -range[i];
    }
    return draw_pose(d, thing, base, range, top ? d->task->things[thing].radius : 0, 0, true);
}

static int place_on_object(struct draw *d, const struct bddl_statement *s, int thing, int target)
{
    static const double nowhere[4];
    double base[3];

    if (!d->placed[target])
        return error_set(d->error, EINVAL, "%s: line %d: '%s' cannot be placed on '%s', which has no place yet",
                         d->task->problem->file, s->line, s->first, s->second);
    memcpy(base, d->pose[target], sizeof(base));
    base[2] += d->task->things[target].top;
    return draw_pose(d, thing, base, nowhere, 0, movable_z, false);
}

static int place(struct draw *d, const struct bddl_statement *s, enum place_kind kind, int target,
                 const struct bddl_region *region)
{
    const int thing = libero_thing(d->task, s->first);
    const struct libero_arena *arena = d->task->arena;

    if (thing < 0 || d->placed[thing])
        return error_set(d->error, EINVAL, "%s: line %d: '%s' is %s", d->task->problem->file, s->line, s->first,
                         thing < 0 ? "nothing that can be placed" : "placed twice");
    switch (kind) {
    case ON_SURFACE:
        if (!region->has_range)
            return error_set(d->error, EINVAL, "%s: line %d: region '%s' has no :ranges", d->task->problem->file, s->line,
                             s->second);
        if (!d->task->things[thing].movable)
            return draw_fixture(d, thing, region);
        return draw_pose(d, thing, arena->offset, region->range, arena->shrink_regions ? d->task->things[thing].radius : 0,
                         movable_z, true);
    case ON_SITE: return place_on_site(d, s, thing, target, region, true);
    case IN_SITE: return place_on_site(d, s, thing, target, region, false);
    case ON_OBJECT: return place_on_object(d, s, thing, target);
    default: return 0;
    }
}

static int place_all(struct draw *d, enum place_kind wanted)
{
    int r = 0;

    for (int i = 0; i < d->task->problem->n_init && r == 0; i++) {
        const struct bddl_statement *s = &d->task->problem->init[i];
        const struct bddl_region *region;
        int target;
        const enum place_kind kind = classify(d->task, s, &target, &region);

        if (kind == wanted)
            r = place(d, s, kind, target, region);
    }
    return r;
}

int placement_draw(struct placement_stream *stream, const struct libero_task *task, mjData *scratch, struct placement *ret,
                   struct error *error)
{
    struct draw *d = calloc(1, sizeof(*d));
    int r = 0;

    if (!d)
        return error_set(error, ENOMEM, "%s: out of memory", task->problem->file);
    *d = (struct draw) { .mt = &stream->mt, .task = task, .data = scratch, .error = error };
    memset(ret, 0, sizeof(*ret));
    stream->resets++;
    for (int i = 0; i < ARM; i++)
        ret->arm_noise[i] = mt19937_normal(d->mt);
    for (int i = 0; i < stream->resets + 1; i++)        /* the original's list of statements grows by one copy per reset */
        draw_joints(d, ret);

    mju_copy(scratch->qpos, task->model->qpos0, (int)task->model->nq);
    for (int i = 0; i < ret->n_joints; i++)
        scratch->qpos[ret->joints[i].qpos] = ret->joints[i].value;
    mj_kinematics(task->model, scratch);

    for (enum place_kind kind = ON_SURFACE; kind <= ON_OBJECT && r == 0; kind++)
        r = place_all(d, kind);
    for (int i = 0; i < task->n_things && r == 0; i++)
        memcpy(i < task->n_objects ? ret->object_pose[i] : ret->fixture_pose[i - task->n_objects],
               d->placed[i] ? d->pose[i] : (const double[7]) { 0, 0, 0, 1 }, sizeof(d->pose[i]));
    for (int i = task->n_objects; i < task->n_things && r == 0; i++)
        if (!d->placed[i])      /* a fixture that no statement places stays where its file puts it */
            for (int k = 0; k < 7; k++)
                ret->fixture_pose[i - task->n_objects][k] = k < 3 ? task->model->body_pos[3 * task->things[i].body + k] :
                                                                    task->model->body_quat[4 * task->things[i].body + k - 3];
    free(d);
    return r;
}

void placement_state(const struct libero_task *task, const struct placement *placement, double noise, double *ret_row)
{
    double *qpos = ret_row + 1;

    memset(ret_row, 0, sizeof(double) * (size_t)(1 + task->model->nq + task->model->nv));
    mju_copy(qpos, task->model->qpos0, (int)task->model->nq);
    for (int i = 0; i < ARM; i++)
        qpos[i] = controller_rest_posture[i] + noise * placement->arm_noise[i];
    qpos[ARM] = finger_rest;
    qpos[ARM + 1] = -finger_rest;
    for (int i = 0; i < task->n_objects; i++)
        memcpy(qpos + task->things[i].free_qpos, placement->object_pose[i], sizeof(placement->object_pose[i]));
    for (int i = 0; i < placement->n_joints; i++)
        qpos[placement->joints[i].qpos] = placement->joints[i].value;
}
