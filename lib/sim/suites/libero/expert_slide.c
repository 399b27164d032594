#include <math.h>

#include "base/macro.h"
#include "sim/suites/libero/expert_look.h"
#include "sim/suites/libero/predicates.h"

#define AHEAD 0.03 /* m that the fingers aim for, sliding */
#define LOST 0.1   /* m from where they should be: the dish did not come along */
#define FROM 0.02  /* m from the middle, towards the rim that is pushed */

/* Too flat to be taken, and meant for a place on the work surface. */
bool should_slide(const struct look *l)
{
    const int place = l->goal->second ? libero_region(l->task, l->goal->second) : -1;
    double lo[3], hi[3];

    return l->goal->predicate == BDDL_ON && place >= 0 && l->task->regions[place].parent < 0 &&
           shapes_bounds(l->shapes, l->thing, lo, hi) && 4 * (hi[2] - lo[2]) < fmin(hi[0] - lo[0], hi[1] - lo[1]);
}

/* Where the fingers stand in the dish, pressing on its bottom, and the way to go. */
static void stand_of(const struct look *l, double ret_x[3], double ret_go[2])
{
    const double *at = l->data->xpos + 3 * l->task->things[l->thing].body;
    double place[2], lo[3] = {0}, hi[3], far;

    place_of(l, place);
    far = fmax(hypot(place[0] - at[0], place[1] - at[1]), 1e-6);
    for (int i = 0; i < 2; i++) {
        ret_go[i] = (place[i] - at[i]) / far;
        ret_x[i] = at[i] + FROM * ret_go[i];
    }
    (void)shapes_bounds(l->shapes, l->thing, lo, hi); /* should_slide has seen it */
    ret_x[2] = lo[2] + HAND_TIP;
}

int plan_slide(struct look *l)
{
    double go[2], yaw;

    stand_of(l, l->m->grip, go);
    yaw = atan2(go[1], go[0]);
    l->m->yaw = yaw > M_PI_2 ? yaw - M_PI : yaw < -M_PI_2 ? yaw + M_PI : yaw;
    go_to_phase(l, SLIDE_OVER);
    return 0;
}

void do_slide_over(struct look *l, float action[7])
{
    const double height = fmax(travel_height(l, l->m->grip, HAND_TIP, .05, -1), l->m->grip[2] + .06);
    double target[3];
    const bool there = travel(l, l->m->grip, height, target);

    aim(l, target, l->m->yaw, 1, action);
    if ((there && is_turned(action)) || l->m->steps > 60)
        go_to_phase(l, SLIDE_DOWN);
}

void do_slide_down(struct look *l, float action[7])
{
    aim(l, l->m->grip, l->m->yaw, 1, action);
    if (away(l, l->m->grip) < .008 || l->m->steps > 12)
        go_to_phase(l, SLIDE);
}

/* The rim ahead takes the dish along; what is pulled like that follows, whichever way it is turned. */
void do_slide(struct look *l, float action[7])
{
    double x[3], go[2], target[3];

    stand_of(l, x, go);
    for (int i = 0; i < 2; i++)
        target[i] = l->x[i] + AHEAD * go[i];
    target[2] = l->m->grip[2];
    aim(l, target, l->m->yaw, 1, action);
    if (predicate_holds(l->task, l->data, l->goal) || away_xy(l, x) > LOST || l->m->steps > 100) {
        mju_copy3(l->m->target, l->x);
        go_to_phase(l, AWAY);
    }
}
