#include "sim/suites/libero/expert.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/macro.h"
#include "base/philox.h"
#include "sim/suites/libero/expert_look.h"
#include "sim/suites/libero/predicates.h"

enum { LOOK_EVERY = 20 }; /* steps between two searches while nothing can be taken */

void go_to_phase(struct look *l, enum phase phase)
{
    l->m->phase = phase;
    l->m->steps = 0;
}

/* ---- the goal ----------------------------------------------------------------------------------------------- */

/* A region of a drawer that is nearer to shut than to open: nothing can be put in. */
static bool is_shut(const struct look *l, const char *name)
{
    const int region = libero_region(l->task, name);
    const struct libero_region *of = region < 0 ? NULL : &l->task->regions[region];
    const struct libero_threshold *open = of && of->parent >= 0 ? &l->task->things[of->parent].category->open : NULL;

    return open && open->sign && of->n_joints > 0 && open->sign * l->data->qpos[of->joints[0]] < open->sign * open->at / 2;
}

/* Does a place belong to what the other name means: the same, or a region of that thing? */
static bool belongs(const struct look *l, const char *place, const char *name)
{
    const int region = libero_region(l->task, place);

    return strcmp(place, name) == 0 || (region >= 0 && l->task->regions[region].parent >= 0 &&
                                        l->task->regions[region].parent == libero_thing(l->task, name));
}

/* Later: to shut, or to open for its own sake, what something is still to be put in; to put something on what is itself to be
 * moved. */
static bool must_wait(const struct look *l, const struct bddl_statement *s)
{
    const struct bddl_problem *problem = l->task->problem;

    for (int i = 0; i < problem->n_goal; i++) {
        const struct bddl_statement *other = &problem->goal[i];
        const bool moves_place = s->predicate == BDDL_CLOSE || s->predicate == BDDL_OPEN;
        const bool fills = moves_place && other->predicate == BDDL_IN && belongs(l, other->second, s->first);
        const bool carries = s->predicate == BDDL_ON && other->second && strcmp(other->first, s->second) == 0;

        if ((fills || carries) && !predicate_holds(l->task, l->data, other))
            return true;
    }
    return false;
}

static int joint_at(const struct look *l, int qpos)
{
    for (int j = 0; j < l->task->model->njnt; j++)
        if (l->task->model->jnt_qposadr[j] == qpos)
            return j;
    return -1;
}

/* Where something shall go in and all is shut: open it, unless it would open over that thing. */
static enum expert_first before_filling(struct look *l, const struct bddl_statement *s)
{
    const struct libero_region *region = &l->task->regions[libero_region(l->task, s->second)];
    const int thing = libero_thing(l->task, s->first);
    struct part part;

    if (part_towards(l, joint_at(l, region->joints[0]), &l->task->things[region->parent].category->open, &part) == 0 &&
        stands_in_the_way(l, &part, thing) && place_aside(l, &part, thing, l->m->aside))
        return ASIDE_FIRST;
    return OPEN_FIRST;
}

static const struct bddl_statement *next_statement(struct look *l)
{
    const struct bddl_problem *problem = l->task->problem;

    for (int i = 0; i < problem->n_goal; i++) {
        const struct bddl_statement *s = &problem->goal[i];
        uint32_t first;

        if (predicate_holds(l->task, l->data, s) || must_wait(l, s))
            continue;
        first = s->predicate == BDDL_IN && is_shut(l, s->second) ? before_filling(l, s) : NOTHING_FIRST;
        if ((uint32_t)i != l->m->statement || first != l->m->first)
            l->m->attempts = 0;
        l->m->statement = (uint32_t)i;
        l->m->first = first;
        return s;
    }
    return NULL;
}

/* The statement in hand is kept until its movement is done, reached or not; between movements the next one is chosen. */
static bool find_goal(struct look *l)
{
    const struct bddl_problem *problem = l->task->problem;

    l->goal = l->m->phase == PLAN || l->m->phase == AWAY ? next_statement(l) : &problem->goal[l->m->statement];
    if (!l->goal)
        return false;
    if (l->m->first == OPEN_FIRST) {
        l->opening = (struct bddl_statement){.predicate = BDDL_OPEN, .first = l->goal->second, .line = l->goal->line};
        l->goal = &l->opening;
    }
    l->region = libero_region(l->task, l->goal->first);
    l->thing = l->region >= 0 ? l->task->regions[l->region].parent : libero_thing(l->task, l->goal->first);
    return l->thing >= 0;
}

int goal_joint(const struct look *l)
{
    const struct libero_thing *thing = &l->task->things[l->thing];

    if (l->region >= 0)
        return l->task->regions[l->region].n_joints > 0 ? joint_at(l, l->task->regions[l->region].joints[0]) : -1;
    return thing->n_joints > 0 ? joint_at(l, thing->joints[0]) : -1;
}

/* ---- acting --------------------------------------------------------------------------------------------------- */

static int plan(struct look *l)
{
    const bool by_part = l->goal->predicate == BDDL_OPEN || l->goal->predicate == BDDL_CLOSE;

    return by_part ? plan_part(l) : should_slide(l) ? plan_slide(l) : plan_take(l);
}

static int act(struct look *l, float action[7])
{
    static phase_fn *const phases[N_PHASES] = {
        [OVER] = do_over,
        [DOWN] = do_down,
        [CLOSE] = do_close,
        [LIFT] = do_lift,
        [CARRY] = do_carry,
        [LOWER] = do_lower,
        [OPEN] = do_open,
        [AWAY] = do_away,
        [TWIST] = do_twist,
        [PART_OVER] = do_part_over,
        [PART_DOWN] = do_part_down,
        [PART_REACH] = do_part_reach,
        [PART_GRIP] = do_part_grip,
        [PART_MOVE] = do_part_move,
        [PART_RELEASE] = do_part_release,
        [PART_BACK] = do_part_back,
        [SLIDE_OVER] = do_slide_over,
        [SLIDE_DOWN] = do_slide_down,
        [SLIDE] = do_slide,
    };
    int r = l->m->phase == PLAN && l->m->steps % LOOK_EVERY == 0 ? plan(l) : 0;

    if (r < 0)
        return r;
    l->m->steps++;
    if (l->m->phase == PLAN) /* out of the way */
        aim(l, l->task->rest.x, l->m->yaw, -1, action);
    else
        phases[l->m->phase](l, action);
    return 0;
}

static void run_position(void *user)
{
    struct libero_slot *slot = user;

    mj_fwdPosition(&slot->model, slot->mujoco.data);
}

/* What it looks at must follow from the state's bytes alone: after a step, poses and contacts are those of a substep before. The
 * next step makes its own forward pass, so nothing else notices. */
int libero_expert(struct libero_slot *slot, float ret_action[7])
{
    _cleanup_free_ struct shapes *shapes = malloc(sizeof(*shapes));
    const mjData *data;
    float action[7] = {[6] = -1};
    struct look l;
    int r;

    if (!shapes)
        return -ENOMEM;
    r = mujoco_slot_run(&slot->mujoco, run_position, slot);
    if (r < 0)
        return r;
    data = slot->mujoco.data;
    l = (struct look){
        .slot = slot,
        .task = slot->task,
        .data = data,
        .m = &slot->memory.expert,
        .shapes = shapes,
        .x = data->site_xpos + 3 * slot->task->grip_site,
        .R = data->site_xmat + 9 * slot->task->grip_site,
    };
    shapes_collect(l.task, data, shapes);
    if (find_goal(&l))
        r = act(&l, action);
    if (r == 0)
        memcpy(ret_action, action, sizeof(action));
    return r;
}

int libero_demonstrate(struct libero_slot *slot, const char *style, uint64_t seed, int step, float ret_action[7],
                       float ret_label[7])
{
    const bool slow = strcmp(style, "slow") == 0;
    struct philox noise = philox_at(seed, PHILOX_NOISE, (uint64_t)step, 0, 0);
    float label[7], action[7];
    int r;

    if (!slow && strcmp(style, "clean") != 0)
        return -EINVAL;
    r = libero_expert(slot, label);
    if (r < 0)
        return r;
    memcpy(action, label, sizeof(action));
    for (int i = 0; i < 3; i++)
        action[i] = (float)CLAMP((slow ? .5 : 1) * (double)label[i] + (slow ? .05 : .15) * philox_normal(&noise), -1.0, 1.0);
    memcpy(ret_action, action, sizeof(action));
    memcpy(ret_label, slow ? action : label, sizeof(label));
    return 0;
}
