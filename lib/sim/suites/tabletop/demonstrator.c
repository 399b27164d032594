/* The expert made human. Two styles (the recipe and its figures: docs/method.md):
 *
 * clean   executed = expert + N(0, .3) on dx dy dz, label = expert: the policy sees what to do from off the path
 *         (DART), and its labels carry no noise.
 * slow    executed = label = slow_speed * expert + N(0, slow_noise) on dx dy dz: a hesitant tele-operator, whose pace
 *         the episode limit punishes. The slowness sits in the mode of the action, so a low sampling temperature
 *         cannot remove it; going faster has to be learnt. */
#include "sim/suites/tabletop/tabletop.h"

#include <errno.h>
#include <string.h>

#define CLEAN_NOISE 0.3

int tabletop_demonstrate(struct sim_slot *base, const char *style, uint64_t seed, int step,
                         float ret_action[SIM_ACTION_DIMS], float ret_label[SIM_ACTION_DIMS])
{
    const struct tabletop_rules *rules = ((struct tabletop_slot *)base)->task->rules;
    struct philox noise = philox_at(seed, PHILOX_NOISE, (uint64_t)step, 0, 0);
    float label[SIM_ACTION_DIMS], action[SIM_ACTION_DIMS];
    double speed, spread, moved;
    bool slow = strcmp(style, "slow") == 0;
    int i, r;

    if (!slow && strcmp(style, "clean") != 0)
        return -EINVAL;
    r = base->task->driver->expert(base, label);
    if (r < 0)
        return r;

    speed = slow ? rules->slow_speed : 1;
    spread = slow ? rules->slow_noise : CLEAN_NOISE;
    memcpy(action, label, sizeof(action));
    for (i = 0; i < 3; i++) {
        moved = speed * (double)label[i] + spread * philox_normal(&noise);
        action[i] = (float)CLAMP(moved, -1.0, 1.0);
    }
    memcpy(ret_action, action, sizeof(action));
    memcpy(ret_label, slow ? action : label, sizeof(label));
    return 0;
}
