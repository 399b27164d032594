/* test_plan_learn.c - what later passes remember of ended ones, and that it is read back as it was written. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "coordinator/stage_plan.h"
#include "tests/harness/stage_lab.h"

static void test_memory_round_trip(void **state)
{
    struct plan_memory a, b;
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT, again = STRBUF_INIT;

    (void)state;
    plan_memory_init(&a);
    a.next_episode = 77;
    a.best_success = 1.0 / 3;
    a.have_best = a.curriculum_ready = true;
    a.sft_earlier = 9;
    a.temperature[2] = 0.3;
    a.prm_before = 4;
    a.stop = PLAN_COLLAPSE;
    a.stage_best = 1.0 / 7;
    a.since_best = 3;
    a.alarms = 2;
    a.watched = 2;
    a.paid[1] = 0.1;
    a.won[0] = 0.7;
    a.n_extra = 2;
    a.extra[1] = 5;
    assert_int_equal(curriculum_init(&a.curriculum, CURRICULUM_LEVELS, NULL, 2), 0);
    (void)curriculum_record(&a.curriculum, (int[]) { 3, 4 }, (int[]) { 1, 2 });
    assert_int_equal(plan_memory_write(&a, &text), 0);
    assert_int_equal(plan_memory_parse(text.text, text.length, &b, NULL), 0);
    assert_int_equal(plan_memory_write(&b, &again), 0);
    assert_string_equal(text.text, again.text);
    assert_true(b.watched == 2 && b.paid[1] == a.paid[1] && b.won[0] == a.won[0] && b.n_extra == 2 && b.extra[1] == 5);
    assert_true(b.stop == PLAN_COLLAPSE && b.stage_best == a.stage_best && b.since_best == 3 && b.alarms == 2);
    assert_true(a.best_success == b.best_success);
    assert_true(b.prm_before == 4 && b.temperature[2] == 0.3 && b.temperature[7] == -1 && b.curriculum_ready);
    assert_int_equal(b.curriculum.level, a.curriculum.level);
    assert_int_equal(plan_memory_parse("prm_next 3\nprm_next_iteration 5\n", 32, &b, NULL), 0);     /* of earlier builds */
    assert_int_equal(b.prm_next_round, 5);
    assert_true(plan_memory_parse("finished", 8, &b, NULL) < 0);
    assert_true(plan_memory_parse("next_episode 7x", 15, &b, NULL) < 0);
    assert_true(plan_memory_parse("temperature8 1", 14, &b, NULL) < 0);
    strbuf_reset(&text);
    for (int i = 0; i < PLAN_WATCH; i++)
        strbuf_adds(&text, "paid 1\nwon 1\n");
    for (int i = 0; i < PLAN_EXTRA; i++)
        strbuf_adds(&text, "extra 1\n");
    assert_int_equal(plan_memory_parse(text.text, text.length, &b, NULL), 0);
    strbuf_adds(&text, "extra 1\n");
    assert_true(plan_memory_parse(text.text, text.length, &b, NULL) < 0);
    strbuf_reset(&text);
    for (int i = 0; i < PLAN_WATCH; i++)
        strbuf_adds(&text, "won 1\n");
    strbuf_adds(&text, "paid 1\n");
    assert_true(plan_memory_parse(text.text, text.length, &b, NULL) < 0);
    assert_true(plan_memory_parse("next_episode x", 14, &b, NULL) < 0);
    assert_true(plan_memory_parse("surprise 1", 10, &b, NULL) < 0);
}

/* Rows of one pass: so many of n succeed, each is paid `reward`. */
static void end_rows(struct ledger_episode *rows, size_t n, size_t successes, float reward)
{
    for (size_t i = 0; i < n; i++) {
        rows[i] = (struct ledger_episode) { .episode = i + 1, .state = EPISODE_TRAINED, .success = i < successes,
                                            .policy_version = 1 };
        rows[i].reward = reward + (i < successes);
        snprintf(rows[i].task, sizeof(rows[i].task), "reach");
    }
}

static void test_stop_rules(void **state)
{
    static const struct { double success, collapse; int patience; double val[6]; int stops_at; enum plan_stop how; int best;
                          const char *said; } cases[] = {
        {.success = .8, .val = {.1, .5, .8}, .stops_at = 2, .how = PLAN_SUCCESS, .best = 2,
         .said = "success on val states reached 0.8 (stop_success)"},
        {.collapse = .3, .val = {.1, .6, .4, .3}, .stops_at = 3, .how = PLAN_COLLAPSE, .best = 1,
         .said = "success on val states fell by 0.3 below its best, 0.6 (stop_collapse)"},
        {.patience = 2, .val = {.1, .6, .4, .7, .7, .6}, .stops_at = 5, .how = PLAN_PATIENCE, .best = 3,
         .said = "2 evaluations on val states brought no more than 0.7 (stop_patience)"},
        {.val = {.9, 0, 0, 0, 0, 0}, .stops_at = 6},
        {.val = {0, 0, 0, 0, 0, 0}, .stops_at = 6},
    };
    struct run_config *config = *state;
    struct rl_config *rl = &stage_lab_add(config, STAGE_RL, "rl")->rl;
    struct work val = { .purpose = EPISODE_EVAL, .split = SPLIT_VAL, .policy = -1 };
    struct ledger_episode rows[10];
    struct plan_memory memory;
    char said[128];

    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        int at = 0;

        *rl = (struct rl_config) { .iterations = 9, .episodes = 10, .eval_every = 1, .eval_episodes = 10,
                                   .stop_success = cases[k].success,
                                   .stop_collapse = cases[k].collapse, .stop_patience = cases[k].patience };
        plan_memory_init(&memory);
        assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
        for (; at < 6 && memory.stop == PLAN_GOES_ON; at++) {
            end_rows(rows, 10, (size_t)(10 * cases[k].val[at] + .5), 0);
            rows[0].policy_version = 20 + (uint64_t)at;
            stage_plan_learn(config, &val, rows, 10, &memory);
        }
        assert_int_equal(at, MIN(cases[k].stops_at + 1, 6));
        assert_int_equal(memory.stop, cases[k].how);
        assert_true(memory.have_best && memory.best_success == cases[k].val[cases[k].best]);
        assert_int_equal(memory.best_version, 20 + cases[k].best);      /* of equals the first */
        plan_stop_text(rl, &memory, said, sizeof said);
        if (cases[k].said)
            assert_string_equal(said, cases[k].said);
    }
}

/* The reward model pays more and success falls: one alarm, and with on_hack: refresh a refresh after the iteration at hand. */
static void test_hacking_guard(void **state)
{
    struct run_config *config = *state;
    struct rl_config *rl = &stage_lab_add(config, STAGE_RL, "rl")->rl;
    struct ledger_episode rows[10];
    struct plan_memory memory;
    struct work work;

    *rl = (struct rl_config) { .iterations = 40, .episodes = 10, .w_success = 1, .on_hack = HACK_REFRESH };
    plan_memory_init(&memory);
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    for (uint32_t i = 0; i < 25; i++) {
        bool hacked = i >= 5 && i < 10;

        assert_int_equal(stage_plan_work(config, &memory, 0, memory.iteration++, &work), 0);
        if (work.objective == WORK_PRM)
            assert_int_equal(stage_plan_work(config, &memory, 0, memory.iteration++, &work), 0);
        assert_int_equal(work.objective, WORK_PPO);
        assert_int_equal(work.round, i);
        end_rows(rows, 10, hacked ? 4 : 6, hacked ? .56f : .5f);
        stage_plan_learn(config, &work, rows, 10, &memory);
        assert_int_equal(memory.alarms, i >= 9);
    }
    assert_int_equal(memory.n_extra, 1);
    assert_int_equal(memory.extra[0], 9);
    assert_int_equal(stage_plan_work(config, &memory, 0, 10, &work), 0);
    assert_string_equal(work.name, "rl/10 prm");
    assert_int_equal(stage_plan_work(config, NULL, 0, 10, &work), 0);
    assert_string_equal(work.name, "rl/11");
    rl->reward = REWARD_SPARSE;         /* nothing is paid by the model: nothing to watch */
    memory.watched = 0;
    stage_plan_learn(config, &work, rows, 10, &memory);
    assert_int_equal(memory.watched, 0);
}

/* The last ten iterations count, later in a stage as well; pay that rises alone, or success that falls alone, is no alarm. */
static void test_what_is_no_alarm(void **state)
{
    static const struct { float paid; size_t won; uint32_t alarms; } cases[] = {{.8f, 4, 1}, {.8f, 6, 0}, {.5f, 4, 0}};
    struct run_config *config = *state;
    struct rl_config *rl = &stage_lab_add(config, STAGE_RL, "rl")->rl;
    struct ledger_episode rows[10];
    struct plan_memory memory;
    struct work work;

    *rl = (struct rl_config) { .iterations = 40, .episodes = 10, .w_success = 1, .on_hack = HACK_WARN };
    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        plan_memory_init(&memory);
        assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
        for (uint32_t i = 0; i < 40; i++) {
            bool changed = i >= 20;

            assert_int_equal(stage_plan_work(config, &memory, 0, memory.iteration++, &work), 0);
            end_rows(rows, 10, changed ? cases[k].won : 6, changed ? cases[k].paid : .5f);
            rows[9].state = EPISODE_FAILED;         /* was not played to its end */
            rows[9].reward = 1000;
            stage_plan_learn(config, &work, rows, 10, &memory);
            assert_int_equal(memory.alarms, i >= 22 ? cases[k].alarms : 0);      /* 3 of the newer 5 */
        }
        assert_int_equal(memory.n_extra, 0);
    }
}

/* An evaluation chooses its temperatures anew, of equals the first; those that were settled before stand. */
static void test_temperatures(void **state)
{
    struct run_config *config = *state;
    struct eval_config *eval = &stage_lab_add(config, STAGE_EVAL, "eval")->eval;
    struct work tries = { .purpose = EPISODE_EVAL, .split = SPLIT_VAL, .policy = 1, .tries = true };
    struct ledger_episode rows[9] = {0};
    struct plan_memory memory;

    *eval = (struct eval_config) { .n_policies = 2, .n_temperatures = 3, .temperatures = {.3, .6, 1} };
    plan_memory_init(&memory);
    for (int i = 0; i < RUN_MAX_POLICIES; i++) {
        assert_true(memory.temperature[i] == -1);
        memory.temperature[i] = .5;                 /* of the evaluation before */
    }
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    for (int i = 0; i < RUN_MAX_POLICIES; i++)
        assert_true(memory.temperature[i] == -1);
    for (size_t i = 0; i < 9; i++)
        rows[i] = (struct ledger_episode) { .state = EPISODE_EVALUATED, .temperature = (float)eval->temperatures[i / 3],
                                            .success = i / 3 ? i % 3 : i == 0 };        /* 1, 2 and 2 of 3 */
    stage_plan_learn(config, &tries, rows, 9, &memory);
    assert_true(memory.temperature[1] == .6 && memory.temperature[0] == -1);
    eval->n_at = 2;
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    assert_true(memory.temperature[1] == .6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_stop_rules, stage_lab_set_up),
        cmocka_unit_test_setup(test_hacking_guard, stage_lab_set_up),
        cmocka_unit_test_setup(test_what_is_no_alarm, stage_lab_set_up),
        cmocka_unit_test_setup(test_temperatures, stage_lab_set_up),
        cmocka_unit_test(test_memory_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
