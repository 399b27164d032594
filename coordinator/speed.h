/* speed.h - how fast a run goes and how long its stage will still take, for people: the status document says it, `gantry up`,
 * `gantry status` and the page show it.
 *
 * Fed with a look at the totals several times a second. Rates are over the last half minute of work, by a clock that stands still
 * while nobody works: what a pause, a dead learner or the loading of a version takes lowers no rate. They begin at the first work
 * that is heard of and not when the stage does (workers may need seconds to start), less SPEED_SETTLE_MS until everybody has been
 * heard, because what the first heartbeats tell was done before them. After an interruption the rate from before it stands until
 * there is a new one.
 *
 * Environment steps are those of journaled episodes and what heartbeats tell of running ones: episodes begin and end together,
 * their ends alone would be a rate that jumps with each wave of them.
 *
 * Time left: of a pass of episodes, the steps they will still take at the mean length so far, and the tail in which slots find no
 * more; of sft and of a reward model, the minibatches; of rl, what passes of each kind (train, warm-up of the critic, val, reward
 * model) have taken on average (the newest most, the first hardly) times how many are to come (stage_plan_left). None before
 * most of what is to come is of kinds that are known: two such passes have ended, or one that took SPEED_SURE_MS. Of a drain, the
 * minibatches of the update in hand; episodes in hand soon end.
 *
 * Pure: time is an argument.  Thread rule: none. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/stage_plan.h"

enum { SPEED_SAMPLES = 32, SPEED_SAMPLE_MS = 1000, SPEED_WINDOW_MS = 30000, SPEED_SETTLE_MS = 2000, SPEED_LEAST_MS = 2000,
       SPEED_IDLE_MS = 5000, SPEED_SURE_MS = 60000 };

struct speed_look {
    uint64_t now_ms;                    /* monotonic */
    bool stopped;                       /* paused, finished: rates stay as they were, no time is left of this */
    bool draining;                      /* only what is in hand is still to come */
    bool playing, training;             /* both, with max_staleness; neither: a moment between two passes, or something is
                                         * missing */
    uint32_t stage, iteration;          /* of the pass that is open */
    enum pass_kind kind;
    bool iterates;                      /* an rl stage: `after` counts the passes behind this one */
    uint32_t after[PASS_KINDS];
    double steps, episodes;             /* journaled since this process started */
    double running, steps_running;      /* episodes that are being played; their steps, as far as heard */
    double missing;                     /* episodes of this pass that are not in */
    double updates, updates_planned;    /* minibatches of the update that is being made */
};

/* One rate: of a total by a clock that others move. */
struct speed_rate {
    struct { double at_ms, total; } sample[SPEED_SAMPLES];      /* oldest first */
    int n;
    double clock_ms, total;             /* now */
    double moved_ms, begun_ms;          /* when the total moved last, and first */
    bool begun;
    double known;                       /* per second; 0: not known */
};

struct speed {
    bool seen;
    struct speed_look last;
    uint64_t worked_ms;                 /* monotonic: when somebody last played or trained, or a pause ended */
    struct speed_rate steps, updates;
    double pass_ms, pass_steps, pass_episodes;      /* of this pass: worked on it; totals when it began */
    bool whole;                         /* it was seen from its beginning */
    struct { double mean_ms; int n; } pass[PASS_KINDS];         /* in this stage */
};

/* Zero it at the beginning. */
void speed_look(struct speed *speed, const struct speed_look *look);

double speed_steps(const struct speed *speed);      /* environment steps a second; NAN: nobody plays, or not known yet */
double speed_updates(const struct speed *speed);    /* minibatches a second, likewise */
double speed_left_s(const struct speed *speed);     /* seconds, of the stage; of this pass where it does not iterate; of the
                                                     * drain. NAN: not known, or nobody works */
