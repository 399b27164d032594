/* Time left to the second: of which passes and episodes it is reckoned, when it is not said, and that pauses do not count. Looks
 * are made by hand here; test_speed.c has a town that works. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "coordinator/speed.h"

enum { TICK_MS = 200 };

struct desk { struct speed speed; struct speed_look look; };

static void look(struct desk *d, double seconds)
{
    for (int i = 0; i < seconds * 1000 / TICK_MS; i++) {
        d->look.now_ms += TICK_MS;
        speed_look(&d->speed, &d->look);
    }
}

/* The pass before ends with the first look at this one. */
static void pass(struct desk *d, enum pass_kind kind, double seconds)
{
    d->look.kind = kind;
    look(d, seconds);
    d->look.iteration++;
}

static void begin(struct desk *d)
{
    *d = (struct desk) {.look = {.now_ms = 1000, .training = true, .iterates = true}};
    pass(d, PASS_TRAIN, 5);             /* its beginning was not seen: it does not count */
}

static void assert_left(const struct desk *d, double seconds)
{
    if (!(fabs(speed_left_s(&d->speed) - seconds) < 1e-6))
        fail_msg("%g s are left, not %g", seconds, speed_left_s(&d->speed));
}

static void assert_unknown(const struct desk *d) { assert_true(isnan(speed_left_s(&d->speed))); }

/* The first pass is forgotten once there is a second; of many, the newest counts an eighth. */
static void the_newest_passes_count_most(void **state)
{
    struct desk d;

    (void)state;
    begin(&d);
    pass(&d, PASS_TRAIN, 100);
    pass(&d, PASS_TRAIN, 10);
    pass(&d, PASS_TRAIN, 20);
    d.look.after[PASS_TRAIN] = 1;
    look(&d, 0.2);
    assert_left(&d, 15 + 15);
    look(&d, 14.8);
    d.look.iteration++;
    for (int i = 0; i < 8; i++)
        pass(&d, PASS_TRAIN, 15);
    pass(&d, PASS_TRAIN, 31);
    d.look.after[PASS_TRAIN] = 0;
    look(&d, 0.2);
    assert_left(&d, 15 + 16 / 8);
    look(&d, 30);
    assert_left(&d, 0);                 /* longer than it should */
}

/* One pass that was long, or two; and more than three fourths of what is to come of such kinds. Of a kind that is not known yet
 * a pass takes what others do. */
static void only_what_is_known_is_said(void **state)
{
    struct desk d;

    (void)state;
    begin(&d);
    pass(&d, PASS_TRAIN, 59.8);
    look(&d, 0.2);
    assert_unknown(&d);
    begin(&d);
    pass(&d, PASS_TRAIN, 60);
    look(&d, 0.2);
    assert_left(&d, 60);
    d.look.after[PASS_TRAIN] = 5;
    d.look.after[PASS_VAL] = 2;
    look(&d, 0.2);
    assert_unknown(&d);
    d.look.after[PASS_TRAIN] = 6;
    look(&d, 0.2);
    assert_left(&d, 60 * 9 - 0.4);

    look(&d, 59.4);
    d.look.iteration++;
    d.look.kind = PASS_VAL;
    d.look.after[PASS_TRAIN] = 3;
    d.look.after[PASS_VAL] = 0;
    look(&d, 0.2);
    assert_unknown(&d);                 /* this one is of such a kind itself */
    d.look.after[PASS_TRAIN] = 4;
    look(&d, 0.2);
    assert_left(&d, 60 * 5 - 0.2);
    look(&d, 29.6);
    d.look.iteration++;
    d.look.kind = PASS_PRM;
    d.look.after[PASS_TRAIN] = 7;
    look(&d, 0.2);
    assert_left(&d, (60 + 30) / 2 + 60 * 7);

    d.look.stage++;                     /* passes of another stage are others */
    look(&d, 0.2);
    assert_unknown(&d);
}

/* A pass goes on while it waits for a moment; longer, and nobody knows when it will go on. */
static void waiting_is_no_work(void **state)
{
    struct desk d;

    (void)state;
    begin(&d);
    pass(&d, PASS_TRAIN, 60);
    look(&d, 10.2);
    assert_left(&d, 50);
    d.look.training = false;
    look(&d, 5);
    assert_left(&d, 45);
    look(&d, 0.2);
    assert_unknown(&d);
    look(&d, 100);
    d.look.training = true;
    look(&d, 1);
    assert_left(&d, 44);
}

/* Where passes do not iterate: what its episodes still need, less what those being played have done, and the tail. */
static void episodes_of_this_pass(void **state)
{
    struct desk d = {.look = {.now_ms = 1000, .playing = true, .missing = 10, .running = 4, .steps_running = 100}};

    (void)state;
    look(&d, 0.2);
    for (int i = 0; i < 60; i++) {      /* 100 steps a second, of 50 an episode */
        d.look.steps += 20;
        d.look.episodes += 0.4;
        look(&d, 0.2);
    }
    assert_left(&d, (10 * 50 - 100 + 4 * 50 / 2) / 100.0);
    d.look.missing = 1;                 /* and four play still: the tail alone */
    look(&d, 0.2);
    assert_left(&d, 4 * 50 / 2 / 100.0);

    d.look.iteration++;                 /* the next pass has shorter ones */
    d.look.missing = 30;
    look(&d, 0.2);
    assert_unknown(&d);
    for (int i = 0; i < 200; i++) {
        d.look.steps += 20;
        d.look.episodes += 2;
        look(&d, 0.2);
    }
    assert_left(&d, (30 * 10 - 100 + 4 * 10 / 2) / 100.0);
}

/* Of sft and of a reward model: the minibatches, at the rate of this update once it has one. */
static void updates_of_this_one(void **state)
{
    struct desk d = {.look = {.now_ms = 1000, .training = true, .updates_planned = 300}};

    (void)state;
    look(&d, 0.2);
    for (int i = 0; i < 50; i++) {
        d.look.updates += 1;
        look(&d, 0.2);
    }
    assert_left(&d, 250 / 5.0);
    d.look.updates = 0;                 /* another, as long */
    look(&d, 0.2);
    assert_left(&d, 300 / 5.0);
    for (int i = 0; i < 50; i++) {
        d.look.updates += 0.2;
        look(&d, 0.2);
    }
    assert_left(&d, 290);
    d.look.updates = d.look.updates_planned = 0;
    look(&d, 0.2);
    assert_unknown(&d);                 /* nothing is planned */
}

/* A drain waits for what is in hand: the update's minibatches, also in an rl stage, of whose passes none comes any more. Episodes in
 * hand end by themselves, nobody asks how long. */
static void a_drain_lasts_as_long_as_its_update(void **state)
{
    struct desk d;

    (void)state;
    begin(&d);
    d.look.updates_planned = 100;
    for (int i = 0; i < 50; i++) {
        d.look.draining = i >= 25;
        d.look.updates += 1;
        look(&d, 0.2);
    }
    assert_left(&d, 50 / 5.0);
    assert_true(fabs(speed_updates(&d.speed) - 5) < 1e-6);

    d = (struct desk) {.look = {.now_ms = 1000, .playing = true, .missing = 10, .running = 4, .steps_running = 100}};
    for (int i = 0; i < 60; i++) {
        d.look.draining = i >= 30;
        d.look.steps += 20;
        d.look.episodes += 0.4;
        look(&d, 0.2);
    }
    assert_unknown(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_passes_count_most), cmocka_unit_test(only_what_is_known_is_said),
        cmocka_unit_test(waiting_is_no_work), cmocka_unit_test(episodes_of_this_pass), cmocka_unit_test(updates_of_this_one),
        cmocka_unit_test(a_drain_lasts_as_long_as_its_update),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
