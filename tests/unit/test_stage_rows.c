/* test_stage_rows.c - the rows of a pass: who plays which state how, and what stands in for what failed or taught nothing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "coordinator/stage_plan.h"
#include "tests/harness/stage_lab.h"

/* A policy may act cooler than it explores: rl's evaluations tell how it does then. */
static void test_val_temperature(void **state)
{
    struct run_config *config = *state;
    struct rl_config *rl = &stage_lab_add(config, STAGE_RL, "rl")->rl;
    struct ledger_episode rows[2];
    struct plan_memory memory;
    struct work val, train;

    *rl = (struct rl_config){.iterations = 1, .episodes = 2, .eval_every = 1, .eval_episodes = 2, .temperature = 1};
    plan_memory_init(&memory);
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    assert_int_equal(stage_plan_work(config, NULL, 0, 0, &val), 0);
    assert_int_equal(stage_plan_work(config, NULL, 0, 1, &train), 0);
    for (int i = 0; i < 2; i++) {
        rl->eval_temperature = i ? 0.3 : 0;
        assert_int_equal(stage_plan_fill(config, &val, 5, 0, &memory, rows, 2), 0);
        assert_true(rows[1].temperature == (i ? 0.3f : 1));
        assert_int_equal(stage_plan_fill(config, &train, 5, 0, &memory, rows, 2), 0);
        assert_true(rows[1].temperature == 1);
    }
}

/* Test plays the temperature that was best on val, greedy and 1; all on the same states with the same keys. */
static void test_evaluation_rows(void **state)
{
    struct run_config *config = *state;
    struct eval_config *eval = &stage_lab_add(config, STAGE_EVAL, "eval")->eval;
    struct ledger_episode rows[16];
    struct plan_memory memory;
    struct work work;

    *eval = (struct eval_config){
        .episodes = 4, .n_policies = 1, .n_temperatures = 3, .temperatures = {0.3, 0.6, 1}, .val_episodes = 2, .beside = true};
    snprintf(eval->policies[0], sizeof(eval->policies[0]), "last");
    config->max_steps = 90;
    plan_memory_init(&memory);
    assert_int_equal(stage_plan_work(config, NULL, 0, 0, &work), 0);
    assert_int_equal(stage_plan_rows(config, &work, &memory), 6);
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    for (size_t i = 0; i < 6; i++) {
        rows[i].state = EPISODE_EVALUATED;
        rows[i].success = i == 2 || i == 3;
        assert_int_equal(rows[i].split, SPLIT_VAL);
    }
    stage_plan_learn(config, &work, rows, 6, &memory);
    assert_true(memory.temperature[0] == 0.6);
    assert_int_equal(stage_plan_work(config, NULL, 0, 1, &work), 0);
    assert_int_equal(stage_plan_rows(config, &work, &memory), 12);
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    assert_string_equal(rows[0].tag, "test last t=0.6");
    assert_int_equal(rows[0].max_steps, 90);
    eval->max_steps = 120;
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    assert_int_equal(rows[0].max_steps, 120);
    eval->first_state = 30;
    work.tries = true;      /* its temperatures on val were tried from the first state on, in the run's own time */
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    assert_true(rows[0].max_steps == 90 && rows[0].state_seed == 0);
    eval->first_state = 0;
    work.tries = false;
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    assert_string_equal(rows[4].tag, "test last t=0");
    assert_string_equal(rows[8].tag, "test last t=1");
    eval->on_val = true; /* no test state is touched */
    eval->first_state = 30;
    assert_int_equal(stage_plan_work(config, NULL, 0, 1, &work), 0);
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    for (size_t i = 0; i < 12; i++)
        assert_true(rows[i].split == SPLIT_VAL && rows[i].state_seed >= 30 && !strncmp(rows[i].tag, "test last", 9));
    eval->on_val = false;
    eval->first_state = 0;
    assert_int_equal(stage_plan_work(config, NULL, 0, 1, &work), 0);
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    eval->beside = false; /* the best alone */
    assert_int_equal(stage_plan_rows(config, &work, &memory), 4);
    memory.temperature[0] = 0;
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    assert_string_equal(rows[0].tag, "test last t=0");
    memory.temperature[0] = 0.6;
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), 0);
    eval->beside = true;
    assert_int_equal(rows[0].split, SPLIT_TEST);
    assert_int_equal(rows[3].state_seed, 1);
    assert_int_equal(rows[3].state_seed, rows[7].state_seed);
    assert_true(rows[3].sample_key == rows[7].sample_key && rows[3].sample_key != rows[2].sample_key);
    work.purpose = EPISODE_TRAIN;       /* test states are for evaluations alone */
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, 16), -EPERM);
}

/* Look-ahead: every n, greedy once, the other controls with every n that chooses; on the same states, with the same keys. */
static void test_search_rows(void **state)
{
    static const struct { const char *tag; uint32_t n; float temperature; enum search_judge judge; } variants[] = {
        {"search last n=1", 1, .75f, JUDGE_VALUE}, {"search last n=2", 2, .75f, JUDGE_VALUE},
        {"search last n=4", 4, .75f, JUDGE_VALUE}, {"search last greedy", 1, 0, JUDGE_VALUE},
        {"search last n=2 random", 2, .75f, JUDGE_RANDOM}, {"search last n=4 random", 4, .75f, JUDGE_RANDOM},
    };
    struct run_config *config = *state;
    struct eval_config *eval = &stage_lab_add(config, STAGE_EVAL, "eval")->eval;
    struct ledger_episode rows[4 * ARRAY_SIZE(variants)];
    struct plan_memory memory;
    struct work work;

    *eval = (struct eval_config) {.episodes = 4, .n_policies = 1, .n_at = 1, .n = {1, 2, 4}, .n_n = 3, .search_episodes = 4,
                                  .search_temperature = .75, .search_judge = JUDGE_VALUE, .n_search_controls = 2,
                                  .search_controls = {"greedy", "random"}, .first_state = 8};
    snprintf(eval->policies[0], sizeof(eval->policies[0]), "last");
    plan_memory_init(&memory);
    memory.prm_current = 3;
    assert_int_equal(stage_plan_work(config, NULL, 0, 1, &work), 0);
    assert_true(work.look_ahead);
    assert_int_equal(stage_plan_rows(config, &work, &memory), ARRAY_SIZE(rows));
    assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, ARRAY_SIZE(rows)), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_string_equal(rows[i].tag, variants[i / 4].tag);
        assert_int_equal(rows[i].search_n, variants[i / 4].n);
        assert_true(rows[i].temperature == variants[i / 4].temperature);
        assert_int_equal(stage_plan_judge(eval, &rows[i]), variants[i / 4].judge);
        assert_int_equal(rows[i].prm_version, 3);
        assert_int_equal(rows[i].state_seed, 8 + i % 4 / 2);
        assert_true(rows[i].sample_key == rows[i % 4].sample_key);
    }
}

/* A benchmark's test states are counted: what stands in for a failed episode is a row that the pass has not played, or, where it
 * plays them all, the same once more under the same key. Never a number beyond, which would be some other row twice. */
static void test_counted_test_states(void **state)
{
    enum { TRIALS = 50 };
    struct run_config *config = *state;
    struct eval_config *eval = &stage_lab_add(config, STAGE_EVAL, "eval")->eval;
    struct ledger_episode rows[2 * TRIALS], instead;
    struct plan_memory memory;
    struct work work;

    *eval = (struct eval_config){.n_policies = 1, .n_at = 1, .at = {0}};
    snprintf(eval->policies[0], sizeof(eval->policies[0]), "last");
    assert_int_equal(stage_plan_work(config, NULL, 0, 0, &work), 0);
    assert_int_equal(work.split, SPLIT_TEST);
    for (int trials = TRIALS; trials >= TRIALS - 3; trials -= 3) {
        const size_t n = 2 * (size_t)trials;

        eval->episodes = (int)n;
        plan_memory_init(&memory);
        assert_int_equal(stage_plan_fill(config, &work, 5, 0, &memory, rows, n), 0);
        rows[8].failures = 3;
        rows[8].suspect = true;
        snprintf(config->suite, sizeof(config->suite), "libero_goal");
        stage_plan_replace(config, &memory, rows, n, &rows[8], &instead);
        assert_int_equal(instead.episode, rows[n - 1].episode + 1);
        assert_int_equal(instead.replaces, rows[8].episode);
        assert_string_equal(instead.task, "reach");
        assert_true(!instead.failures && !instead.suspect);             /* that is not its history */
        if (trials == TRIALS) {
            assert_int_equal(instead.state_seed, rows[8].state_seed);
            assert_int_equal(instead.sample_key, rows[8].sample_key);
        } else {
            assert_int_equal(instead.state_seed, trials);               /* the first of the three left over */
            assert_int_not_equal(instead.sample_key, rows[8].sample_key);
        }
        snprintf(config->suite, sizeof(config->suite), "tabletop");     /* any number of them */
        stage_plan_replace(config, &memory, rows, n, &rows[8], &instead);
        assert_true(instead.state_seed >= 1000000);
    }
}

static void fill(const struct run_config *config, uint32_t stage, struct plan_memory *memory, struct ledger_episode *rows, size_t n)
{
    struct work work;

    assert_int_equal(stage_plan_work(config, NULL, stage, 0, &work), 0);
    assert_int_equal(stage_plan_rows(config, &work, memory), n);
    assert_int_equal(stage_plan_fill(config, &work, 5, 2, memory, rows, n), 0);
}

/* What is learnt from is played from states that were never used before, with a key of its own each; a group's rows differ in
 * nothing but that key. Which task is played is the curriculum's draw. */
static void test_training_rows(void **state)
{
    struct run_config *config = *state;
    struct ledger_episode rows[4][6];
    struct plan_memory memory;

    for (int group = 0; group < 2; group++)
        stage_lab_add(config, STAGE_RL, "rl")->rl = (struct rl_config) {
            .iterations = 1, .episodes = 6, .temperature = .5, .group = 3,
            .advantage = group ? ADVANTAGE_RLOO : ADVANTAGE_GAE};
    stage_lab_add(config, STAGE_ROLLOUTS, "rollouts")->rollouts = (struct rollouts_config) {.episodes = 6, .temperature = .25};
    stage_lab_add(config, STAGE_DEMOS, "demos")->demos = (struct demos_config) {.episodes = 6, .max_steps = 40};
    config->max_steps = 90;
    plan_memory_init(&memory);
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    for (uint32_t stage = 0; stage < 4; stage++)
        fill(config, stage, &memory, rows[stage], 6);
    for (uint64_t i = 0, seed = 0; i < 24; i++) {
        const struct ledger_episode *row = &rows[i / 6][i % 6];
        bool rl = row->stage < 2;
        uint32_t group = row->stage == 1 ? 3 : 1;

        seed += i && i % 6 % group == 0;
        assert_int_equal(row->episode, i + 1);
        assert_int_equal(row->sample_key, i + 1);
        assert_int_equal(row->state_seed - rows[0][0].state_seed, seed);
        assert_int_equal(row->split, SPLIT_TRAIN);
        assert_string_equal(row->task, config->tasks[rl ? curriculum_draw(&memory.curriculum, 7, (uint64_t)row->stage << 32,
                                                                          (uint32_t)(i % 6 / group)) : (int)(i % 2)]);
        assert_true(row->temperature == (rl ? .5f : row->stage == 2 ? .25f : 0));
        assert_int_equal(row->policy_version, row->stage == 3 ? 0 : 5);         /* nobody's policy: the demonstrator */
        assert_int_equal(row->prm_version, rl ? 2 : 0);
        assert_int_equal(row->max_steps, row->stage == 3 ? 40 : 90);         /* the demonstrator's are another matter */
    }
}

/* Groups whose returns are all alike are refilled from new states, round by round, until enough have spread. */
static void test_refill(void **state)
{
    struct run_config *config = *state;
    struct ledger_episode rows[16], more[8];
    struct plan_memory memory;
    struct work work;

    stage_lab_add(config, STAGE_RL, "rl")->rl = (struct rl_config) {.iterations = 1, .episodes = 8, .temperature = 1, .group = 4,
                                                                .advantage = ADVANTAGE_RLOO, .dynamic_sampling = 2};
    config->max_steps = 90;
    config->seed = 8;       /* the fourth draw and the fifth are of different tasks */
    plan_memory_init(&memory);
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    assert_int_equal(stage_plan_work(config, NULL, 0, 0, &work), 0);
    assert_int_equal(stage_plan_fill(config, &work, 5, 2, &memory, rows, 16), 0);
    for (size_t i = 0; i < 8; i++)
        rows[i].state = EPISODE_JOURNALED;
    rows[5].reward = 1;                                     /* the second group has spread, the first has not */
    assert_int_equal(stage_plan_refill(config, &work, rows, 8, &memory, more, 8), 4);
    assert_int_equal(more[0].episode, rows[7].episode + 1);
    assert_int_equal(more[0].state_seed, rows[7].state_seed + 1);
    assert_int_equal(more[3].state_seed, more[0].state_seed);
    assert_int_equal(more[0].policy_version, 5);
    assert_int_equal(more[0].prm_version, 2);
    assert_string_equal(more[0].tag, "refill 1");
    assert_int_equal(more[0].max_steps, 90);
    memcpy(rows + 8, more, 4 * sizeof(*rows));
    assert_int_equal(stage_plan_refill(config, &work, rows, 12, &memory, more, 8), 4);
    assert_string_equal(more[0].tag, "refill 2");
    memcpy(rows + 12, more, 4 * sizeof(*rows));
    assert_int_equal(stage_plan_refill(config, &work, rows, 16, &memory, more, 8), 0);      /* two rounds are enough */
    rows[9].reward = 1;
    assert_int_equal(stage_plan_refill(config, &work, rows, 12, &memory, more, 8), 0);      /* two groups with spread: as asked */
    rows[9].reward = 0;
    rows[10].reward = 1;
    rows[10].state = EPISODE_FAILED;                        /* was not played: no spread by that */
    stage_plan_replace(config, &memory, rows, 12, &rows[10], &rows[12]);
    assert_true(rows[12].state_seed > more[3].state_seed && rows[12].state_seed == memory.next_state - 1);
    assert_int_equal(stage_plan_refill(config, &work, rows, 13, &memory, more, 8), 4);
    for (uint32_t i = 0; i < 4; i++)        /* a row in another's place is no draw of its own */
        assert_string_equal(more[i].task, config->tasks[curriculum_draw(&memory.curriculum, config->seed, 0, 3)]);
    memcpy(rows + 13, rows + 12, sizeof(*rows));
    memcpy(rows + 12, more, sizeof(*rows));
    assert_int_equal(stage_plan_refill(config, &work, rows, 14, &memory, more, 8), 0);      /* the first round's, behind it */
    config->stages[0].rl.dynamic_sampling = 0;
    assert_int_equal(stage_plan_refill(config, &work, rows, 8, &memory, more, 8), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_val_temperature, stage_lab_set_up),
        cmocka_unit_test_setup(test_evaluation_rows, stage_lab_set_up),
        cmocka_unit_test_setup(test_search_rows, stage_lab_set_up),
        cmocka_unit_test_setup(test_counted_test_states, stage_lab_set_up),
        cmocka_unit_test_setup(test_training_rows, stage_lab_set_up),
        cmocka_unit_test_setup(test_refill, stage_lab_set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
