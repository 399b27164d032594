/* Rates and time left, as people see them: right within seconds of the first step, unmoved by pauses and restarts, never about
 * work that nobody does. A town of workers plays by its own clock and says so by heartbeats; what speed.c makes of that is
 * compared with what is so. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "coordinator/speed.h"

enum { TICK_MS = 200, BEAT_MS = 1000, WORKERS = 4, SLOTS = 16 };

/* Every slot makes `hz` steps a second; an episode has `length` of them, give or take half. */
struct town {
    struct speed speed;
    struct speed_look look;
    double hz, at[WORKERS][SLOTS], told[WORKERS][SLOTS];
    int length, ends[WORKERS][SLOTS], slots;
    double to_play;                     /* episodes that the pass still has to hand out */
    unsigned draws;
    double played;                      /* steps, in truth */
};

static int draw_length(struct town *t) { return t->length / 2 + (int)((t->draws++ * 7919u) % (unsigned)(t->length + 1)); }

static void begin(struct town *t, double hz, int length, int slots, int episodes)
{
    *t = (struct town) {.hz = hz, .length = length, .slots = slots, .to_play = episodes};
    t->look.missing = episodes;
    t->look.now_ms = 1000;
    speed_look(&t->speed, &t->look);
}

/* 200 ms, in steps of a millisecond or so: workers play, deliver, beat. */
static void play(struct town *t)
{
    for (int ms = 0; ms < TICK_MS; ms += 5)
        for (int w = 0; w < WORKERS; w++)
            for (int s = 0; s < t->slots; s++) {
                bool beats = (t->look.now_ms + (uint64_t)ms + (uint64_t)w * BEAT_MS / WORKERS) % BEAT_MS < 5;

                if (!t->ends[w][s] && t->to_play > 0) {
                    t->to_play--;
                    t->ends[w][s] = draw_length(t);
                    t->at[w][s] = t->told[w][s] = 0;
                }
                if (!t->ends[w][s])
                    continue;
                t->at[w][s] += t->hz * 0.005;
                t->played += t->hz * 0.005;
                if (beats)
                    t->told[w][s] = floor(t->at[w][s]);
                if (t->at[w][s] < t->ends[w][s])
                    continue;
                t->look.steps += t->ends[w][s];
                t->look.episodes++;
                t->look.missing--;
                t->ends[w][s] = 0;
                t->told[w][s] = 0;
            }
}

static void look(struct town *t, bool works)
{
    bool playing = false;

    if (works)
        play(t);
    t->look.now_ms += TICK_MS;
    t->look.running = t->look.steps_running = 0;
    for (int w = 0; w < WORKERS; w++)
        for (int s = 0; s < t->slots; s++) {
            playing |= t->ends[w][s];
            t->look.running += t->ends[w][s] > 0;
            t->look.steps_running += t->told[w][s];
        }
    t->look.playing = playing;
    speed_look(&t->speed, &t->look);
}

static void goes_on(struct town *t, double seconds, bool works)
{
    for (int i = 0; i < seconds * 1000 / TICK_MS; i++)
        look(t, works);
}

static void assert_about(double value, double wanted, double share)
{
    if (!(fabs(value - wanted) <= share * wanted))
        fail_msg("%g, where %g is so", value, wanted);
}

/* The time left at each moment is what it will take, but for what the last wave of episodes makes of it. */
static void plays_to_its_end(struct town *t)
{
    double said[2000], episode_s = t->length / t->hz;
    int n = 0;

    while (t->look.missing > 0) {
        assert_in_range(n, 0, 1999);
        said[n++] = speed_left_s(&t->speed);
        look(t, true);
    }
    for (int i = 0; i < n; i++) {
        double truth = (n - i) * TICK_MS / 1e3;

        if (!(fabs(said[i] - truth) <= 0.1 * truth + 2 * TICK_MS / 1e3 + episode_s * 2 / 3))
            fail_msg("%g s left are said, where %g are", said[i], truth);
    }
}

/* 600 episodes within ten seconds, that begin eight seconds after their stage does: the workers had to start. */
static void test_short_episodes_after_a_slow_start(void **state)
{
    struct town t;

    (void)state;
    begin(&t, 36, 20, 8, 1200);
    goes_on(&t, 8, false);
    assert_true(isnan(speed_steps(&t.speed)) && isnan(speed_left_s(&t.speed)));
    goes_on(&t, 5, true);
    assert_about(speed_steps(&t.speed), 36 * 8 * WORKERS, 0.1);
    plays_to_its_end(&t);
}

/* Waves: all slots begin together, and an episode takes half a minute. Ends alone would say nothing for half a minute, then far
 * too much. */
static void test_long_episodes_before_the_first_has_ended(void **state)
{
    struct town t;

    (void)state;
    begin(&t, 8, 240, 16, 400);
    goes_on(&t, 6, true);
    assert_int_equal(t.look.episodes, 0);
    assert_about(speed_steps(&t.speed), 8 * 16 * WORKERS, 0.1);
    assert_true(isnan(speed_left_s(&t.speed)));         /* nobody knows how long one is */
    for (int second = 0; second < 120; second++) {
        goes_on(&t, 1, true);
        assert_about(speed_steps(&t.speed), 8 * 16 * WORKERS, 0.1);
    }
    plays_to_its_end(&t);
}

/* A full disk for a minute; what was held up is delivered at once when there is room. */
static void test_a_pause_is_no_work(void **state)
{
    struct town t;

    (void)state;
    begin(&t, 20, 40, 8, 3000);
    goes_on(&t, 20, true);
    assert_about(speed_steps(&t.speed), 20 * 8 * WORKERS, 0.1);
    t.look.stopped = true;
    for (int second = 0; second < 60; second++) {
        goes_on(&t, 1, false);
        assert_true(isnan(speed_steps(&t.speed)) && isnan(speed_left_s(&t.speed)));
    }
    t.look.stopped = false;
    t.look.steps += 32 * 40;
    t.look.episodes += 32;
    t.look.missing -= 32;
    t.to_play -= 32;
    for (int second = 0; second < 40; second++) {
        goes_on(&t, 1, true);
        assert_about(speed_steps(&t.speed), 20 * 8 * WORKERS, 0.1);
    }
    plays_to_its_end(&t);
}

/* All workers are gone for two minutes and come back: their running episodes are lost, others play them. */
static void test_nobody_there(void **state)
{
    struct town t;

    (void)state;
    begin(&t, 20, 40, 8, 2000);
    goes_on(&t, 20, true);
    for (int w = 0; w < WORKERS; w++)
        for (int s = 0; s < t.slots; s++)
            if (t.ends[w][s]) {
                t.ends[w][s] = 0;
                t.told[w][s] = 0;
                t.to_play++;
            }
    goes_on(&t, 6, false);
    for (int second = 0; second < 120; second++) {
        goes_on(&t, 1, false);
        assert_true(isnan(speed_steps(&t.speed)) && isnan(speed_left_s(&t.speed)));
    }
    for (int second = 0; second < 20; second++) {
        goes_on(&t, 1, true);
        assert_about(speed_steps(&t.speed), 20 * 8 * WORKERS, 0.1);
    }
    plays_to_its_end(&t);
}

/* The coordinator was killed: its successor is told of episodes in the middle, of which it has not seen the beginning. */
static void test_after_a_restart(void **state)
{
    struct town t;

    (void)state;
    begin(&t, 20, 400, 16, 600);
    goes_on(&t, 30, true);
    t.speed = (struct speed) {0};
    t.look.steps = t.look.episodes = 0;
    memset(t.told, 0, sizeof t.told);                   /* each worker's first word is of all that it has done */
    goes_on(&t, 1, true);
    assert_true(isnan(speed_steps(&t.speed)));
    for (int second = 0; second < 40; second++) {
        goes_on(&t, 1, true);
        if (!isnan(speed_steps(&t.speed)))
            assert_about(speed_steps(&t.speed), 20 * 16 * WORKERS, 0.1);
        assert_true(second < 6 || !isnan(speed_steps(&t.speed)));
    }
}

/* Leases are held for ten seconds before anybody makes a step (a model loads): what who is heard first has done is no rate. */
static void test_nothing_is_heard_at_first(void **state)
{
    struct town t;

    (void)state;
    begin(&t, 0, 240, 16, 400);
    goes_on(&t, 10, true);
    t.hz = 8;
    for (int i = 0; i < 100; i++) {
        look(&t, true);
        if (!isnan(speed_steps(&t.speed)))
            assert_about(speed_steps(&t.speed), 8 * 16 * WORKERS, 0.1);
    }
    assert_false(isnan(speed_steps(&t.speed)));
}

/* Half a minute after they have slowed down the rate is the new one; when they hang it falls. In another stage it is not known
 * before somebody works there. */
static void test_the_rate_is_that_of_now(void **state)
{
    struct town t;

    (void)state;
    begin(&t, 20, 40, 8, 3000);
    goes_on(&t, 45, true);
    assert_about(speed_steps(&t.speed), 20 * 8 * WORKERS, 0.1);
    t.hz = 5;
    goes_on(&t, SPEED_WINDOW_MS / 1e3 + 2, true);
    assert_about(speed_steps(&t.speed), 5 * 8 * WORKERS, 0.1);
    goes_on(&t, 20, false);
    assert_about(speed_steps(&t.speed), 5 * 8 * WORKERS / 3, 0.2);
    t.look.stage++;
    look(&t, false);
    assert_true(isnan(speed_steps(&t.speed)));
    t.hz = 10;
    for (int i = 0; i < 50; i++) {
        look(&t, true);
        if (!isnan(speed_steps(&t.speed)))
            assert_about(speed_steps(&t.speed), 10 * 8 * WORKERS, 0.1);
    }
    assert_false(isnan(speed_steps(&t.speed)));
}

/* Half an episode each is given up at once: those steps were played all the same. */
static void test_episodes_that_are_given_up(void **state)
{
    struct speed_look look = {.now_ms = 1, .playing = true, .running = 8};
    struct speed speed = {0};

    (void)state;
    for (int i = 0; i < 300; i++) {
        look.now_ms += TICK_MS;
        look.steps_running = i == 200 ? 0 : look.steps_running + 20;
        speed_look(&speed, &look);
    }
    assert_about(speed_steps(&speed), 20 * 1e3 / TICK_MS, 0.02);
}

/* ---- stages of iterations ------------------------------------------------------------------------------------------- */

static struct run_config config;

static void set_rl(int iterations, int eval_every, int prm_refresh)
{
    config = (struct run_config) {.n_stages = 1};
    config.stages[0].kind = STAGE_RL;
    config.stages[0].rl.iterations = iterations;
    config.stages[0].rl.eval_every = eval_every;
    config.stages[0].rl.prm_refresh = prm_refresh;
    config.stages[0].rl.value_width = 8;
}

static void test_passes_left_are_those_that_come(void **state)
{
    static const int every[] = {0, 1, 2, 3, 5, 7, 50};
    struct plan_memory memory = {.extra = {0, 3, 4, 9, 17, 18}, .n_extra = 6};

    (void)state;
    for (int iterations = 1; iterations <= 20; iterations++)
        for (size_t v = 0; v < ARRAY_SIZE(every); v++)
            for (size_t p = 0; p < ARRAY_SIZE(every); p++) {
                uint32_t wanted[PASS_KINDS] = {0}, left[PASS_KINDS], n = 0;
                struct work work;

                set_rl(iterations, every[v], every[p]);
                config.stages[0].rl.critic_warmup = (int)(v + p) % 4;
                while (stage_plan_work(&config, &memory, 0, n, &work) == 0)
                    n++;
                for (uint32_t i = n; i-- > 0;) {
                    assert_int_equal(stage_plan_work(&config, &memory, 0, i, &work), 0);
                    assert_true(stage_plan_left(&config, &memory, &work, left));
                    assert_memory_equal(left, wanted, sizeof left);
                    wanted[stage_plan_kind(&config, &work)]++;
                }
                assert_int_equal(wanted[PASS_WARMUP], MIN(config.stages[0].rl.critic_warmup, iterations));
            }
}

/* A stage that stops is at its last pass; what another stage remembers says nothing of this one. */
static void test_passes_left_of_a_stage_that_stops(void **state)
{
    struct plan_memory memory = {.stop = PLAN_PATIENCE};
    uint32_t left[PASS_KINDS], none[PASS_KINDS] = {0};
    struct work work;

    (void)state;
    set_rl(9, 1, 0);
    assert_int_equal(stage_plan_work(&config, NULL, 0, 0, &work), 0);
    assert_true(stage_plan_left(&config, &memory, &work, left));
    assert_memory_equal(left, none, sizeof left);
    memory.stage = 1;
    assert_true(stage_plan_left(&config, &memory, &work, left));
    assert_int_equal(left[PASS_TRAIN], 9);
    config.stages[0].kind = STAGE_EVAL;
    assert_false(stage_plan_left(&config, NULL, &work, left));
    assert_memory_equal(left, none, sizeof left);
}

/* Train passes of 4 s of play and 3 s of training (1 s of a critic alone), val passes of 6 s, one second between two. */
static double pass_s(enum pass_kind kind, struct speed_look *look, int tick)
{
    double at = tick * TICK_MS / 1e3;

    look->playing = at >= 1 && at < (kind == PASS_VAL ? 7 : 5);
    look->training = kind != PASS_VAL && at >= 5;
    return kind == PASS_VAL ? 7 : kind == PASS_WARMUP ? 6 : 8;
}

static void test_time_left_of_iterations(void **state)
{
    struct speed speed = {0};
    struct speed_look look = {.now_ms = 1};
    double said[4000], paused_s = 0;
    uint64_t at[4000];
    int n = 0;
    struct work work;

    (void)state;
    set_rl(30, 5, 0);
    for (; stage_plan_work(&config, NULL, 0, look.iteration, &work) == 0; look.iteration++) {
        look.kind = stage_plan_kind(&config, &work);
        look.iterates = stage_plan_left(&config, NULL, &work, look.after);
        for (int tick = 0; tick * TICK_MS / 1e3 < pass_s(look.kind, &look, tick); tick++) {
            look.now_ms += TICK_MS;
            speed_look(&speed, &look);
            assert_in_range(n, 0, 3999);
            said[n] = speed_left_s(&speed);
            at[n++] = look.now_ms;
        }
        if (look.iteration != 20)
            continue;
        look.stopped = true;            /* for ten minutes */
        for (; paused_s < 600; paused_s += TICK_MS / 1e3) {
            look.now_ms += TICK_MS;
            speed_look(&speed, &look);
            assert_true(isnan(speed_left_s(&speed)));
        }
        look.stopped = false;
    }
    for (int i = 0; i < n; i++) {
        double truth = (double)(look.now_ms - at[i]) / 1e3;

        if (truth > paused_s)
            truth -= paused_s;          /* nobody could know */
        if (i * TICK_MS / 1e3 < 56)
            assert_true(isnan(said[i]) || fabs(said[i] - truth) < 0.2 * truth);       /* no whole val pass has been seen */
        else
            if (!(fabs(said[i] - truth) < 3))
                fail_msg("%g s left after %g s, where %g is so", said[i], i * TICK_MS / 1e3, truth);
    }
    assert_int_equal(look.iteration, 37);       /* more than 30: val passes count */
}

/* The first passes are not like the others: the workers are cold, the critic warms up alone. What is said is so from the first
 * time on, and that comes before a fifth of the stage is over. */
static void test_time_left_is_said_when_it_is_known(void **state)
{
    struct speed speed = {0};
    struct speed_look look = {.now_ms = 1};
    double said[4000];
    int n = 0, first = 0;
    struct work work;

    (void)state;
    set_rl(30, 10, 10);
    config.stages[0].rl.critic_warmup = 3;
    for (; stage_plan_work(&config, NULL, 0, look.iteration, &work) == 0; look.iteration++) {
        double cold = look.iteration == 1 ? 9 : 0;

        look.kind = stage_plan_kind(&config, &work);
        look.iterates = stage_plan_left(&config, NULL, &work, look.after);
        for (int tick = 0; tick * TICK_MS / 1e3 < cold + pass_s(look.kind, &look, tick); tick++) {
            look.now_ms += TICK_MS;
            speed_look(&speed, &look);
            assert_in_range(n, 0, 3999);
            said[n++] = speed_left_s(&speed);
        }
    }
    for (int i = 0; i < n; i++) {
        double truth = (n - i) * TICK_MS / 1e3;

        if (!isnan(said[i]) && !(fabs(said[i] - truth) < 0.05 * truth + 2))
            fail_msg("%g s left after %g s, where %g is so", said[i], i * TICK_MS / 1e3, truth);
        if (isnan(said[i]))
            first = i + 1;
    }
    assert_true(first * 5 < n);
}

static void test_time_left_of_one_update(void **state)
{
    struct speed speed = {0};
    struct speed_look look = {.now_ms = 1, .training = true, .updates_planned = 300};

    (void)state;
    for (int tick = 0; tick < 150 * 5; tick++) {        /* 20 s until the first, then two a second, told by heartbeats */
        double at = tick * TICK_MS / 1e3;

        look.now_ms += TICK_MS;
        if (tick % 5 == 0)
            look.updates = fmax(0, fmin(300, floor((at - 20) * 2)));
        speed_look(&speed, &look);
        if (at < 20)
            assert_true(isnan(speed_updates(&speed)) && isnan(speed_left_s(&speed)));
        if (at >= 26)
            assert_about(speed_updates(&speed), 2, 0.05);
        if (at >= 26)
            assert_true(fabs(speed_left_s(&speed) - (170 - at)) < 5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_episodes_after_a_slow_start), cmocka_unit_test(test_long_episodes_before_the_first_has_ended),
        cmocka_unit_test(test_a_pause_is_no_work), cmocka_unit_test(test_nobody_there), cmocka_unit_test(test_after_a_restart),
        cmocka_unit_test(test_nothing_is_heard_at_first), cmocka_unit_test(test_the_rate_is_that_of_now),
        cmocka_unit_test(test_episodes_that_are_given_up), cmocka_unit_test(test_passes_left_are_those_that_come),
        cmocka_unit_test(test_passes_left_of_a_stage_that_stops), cmocka_unit_test(test_time_left_of_iterations),
        cmocka_unit_test(test_time_left_is_said_when_it_is_known), cmocka_unit_test(test_time_left_of_one_update),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
