/* test_stage_plan.c - what comes after what, and what is remembered of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "coordinator/stage_plan.h"
#include "tests/harness/stage_lab.h"

static void expect_work(const struct run_config *config, uint32_t stage, uint32_t iteration, const char *name)
{
    struct work work;

    assert_int_equal(stage_plan_work(config, NULL, stage, iteration, &work), 0);
    assert_string_equal(work.name, name);
}

static void expect_title(const struct run_config *config, uint32_t stage, uint32_t iteration, const char *title)
{
    struct work work;
    char text[80];

    assert_int_equal(stage_plan_work(config, NULL, stage, iteration, &work), 0);
    stage_plan_title(config, &work, text, sizeof(text));
    assert_string_equal(text, title);
}

/* Counted as people count. */
static void test_titles(void **state)
{
    struct run_config *config = *state;

    stage_lab_add(config, STAGE_RL, "rl")->rl = (struct rl_config){.iterations = 3, .eval_every = 2, .prm_refresh = 2};
    stage_lab_add(config, STAGE_SFT, "sft")->sft = (struct sft_config){.steps = 30, .commit_every = 10};
    stage_lab_add(config, STAGE_SFT, "sft2")->sft = (struct sft_config){.steps = 10, .commit_every = 10};
    stage_lab_add(config, STAGE_DEMOS, "demos");
    expect_title(config, 0, 0, "rl val after 0 of 3");
    expect_title(config, 0, 1, "rl 1 of 3");
    expect_title(config, 0, 3, "rl 2 of 3, reward model");
    expect_title(config, 0, 5, "rl 3 of 3");
    expect_title(config, 0, 6, "rl val after 3 of 3");
    expect_title(config, 1, 2, "sft 3 of 3");
    expect_title(config, 2, 0, "sft2");
    expect_title(config, 3, 0, "demos");
}

static void test_order_of_work(void **state)
{
    struct run_config *config = *state;
    struct eval_config *eval;
    struct work work;

    stage_lab_add(config, STAGE_RL, "rl")->rl =
        (struct rl_config){.iterations = 3, .episodes = 4, .eval_every = 2, .eval_episodes = 2, .prm_refresh = 2};
    eval = &stage_lab_add(config, STAGE_EVAL, "eval")->eval;
    *eval = (struct eval_config){.episodes = 4,
                                 .n_policies = 3,
                                 .n_temperatures = 2,
                                 .temperatures = {0.3, 1},
                                 .val_episodes = 2,
                                 .n = {1, 4},
                                 .n_n = 2,
                                 .search_episodes = 2};
    snprintf(eval->policies[0], sizeof(eval->policies[0]), "demonstrator");
    snprintf(eval->policies[1], sizeof(eval->policies[1]), "best");
    snprintf(eval->policies[2], sizeof(eval->policies[2]), "last");
    expect_work(config, 0, 0, "rl/0 val");
    expect_work(config, 0, 1, "rl/1");
    expect_work(config, 0, 2, "rl/2");
    expect_work(config, 0, 3, "rl/2 prm");
    expect_work(config, 0, 4, "rl/2 val");
    expect_work(config, 0, 5, "rl/3");
    expect_work(config, 0, 6, "rl/3 val");
    assert_int_equal(stage_plan_keep_from(config, NULL, 0, 5, 2), 2);         /* rl/2, rl/3, and the val pass between */
    assert_int_equal(stage_plan_keep_from(config, NULL, 0, 3, 2), 1);         /* a refresh after rl/2 finds rl/1 and rl/2 */
    assert_int_equal(stage_plan_keep_from(config, NULL, 0, 2, 9), 0);
    assert_true(stage_plan_work(config, NULL, 0, 7, &work) < 0);
    expect_work(config, 1, 0, "eval val best");
    expect_work(config, 1, 1, "eval val last");
    expect_work(config, 1, 2, "eval test demonstrator");
    expect_work(config, 1, 4, "eval test last");
    expect_work(config, 1, 5, "eval search last");
    assert_true(stage_plan_work(config, NULL, 1, 6, &work) < 0);
}

/* The reward model is refreshed between train iterations, not behind the last; the next does not begin before that, or before a
 * look at val. A refresh that the memory asks for is of the stage that the memory is at. */
static void test_refreshes(void **state)
{
    static const struct { const char *name; bool overlaps; } passes[] = {
        {"rl/0 val", false}, {"rl/1", true}, {"rl/2", false}, {"rl/2 prm", false}, {"rl/3", false}, {"rl/3 val", false},
        {"rl/4", false}, {"rl/4 val", false},
    };
    struct run_config *config = *state;
    struct plan_memory memory;
    struct work work;

    stage_lab_add(config, STAGE_RL, "rl")->rl = (struct rl_config) {
        .iterations = 4, .episodes = 4, .eval_every = 3, .eval_episodes = 2, .prm_refresh = 2, .max_staleness = 1};
    stage_lab_add(config, STAGE_RL, "again")->rl = (struct rl_config) {.iterations = 3, .episodes = 4};
    for (uint32_t i = 0; i < ARRAY_SIZE(passes); i++) {
        expect_work(config, 0, i, passes[i].name);
        assert_int_equal(stage_plan_work(config, NULL, 0, i, &work), 0);
        assert_int_equal(work.overlaps, passes[i].overlaps);
    }
    assert_int_equal(stage_plan_work(config, NULL, 0, ARRAY_SIZE(passes), &work), -ENOENT);
    plan_memory_init(&memory);
    memory.n_extra = 1;                                     /* after rl/1 */
    for (memory.stage = 0; memory.stage < 2; memory.stage++) {
        assert_int_equal(stage_plan_work(config, &memory, 1, 1, &work), 0);
        assert_string_equal(work.name, memory.stage == 1 ? "again/1 prm" : "again/2");
    }
}

static uint64_t version_for(const struct run_config *config, const char *policy, const struct plan_memory *memory)
{
    struct work work = {.stage = 0};

    snprintf(((struct run_config *)config)->stages[0].eval.policies[0], sizeof config->stages[0].eval.policies[0], "%s", policy);
    return stage_plan_policy(config, &work, memory, 99);
}

static void test_which_version_is_evaluated(void **state)
{
    struct run_config *config = *state;
    struct plan_memory memory;

    stage_lab_add(config, STAGE_EVAL, "eval");
    plan_memory_init(&memory);
    memory.sft_version = 3;
    memory.sft_earlier = 2;
    assert_int_equal(version_for(config, "best", &memory), 99);     /* nothing was looked at on val: the newest */
    memory.have_best = true;
    memory.best_version = 7;
    assert_int_equal(version_for(config, "best", &memory), 7);
    assert_int_equal(version_for(config, "sft", &memory), 3);
    assert_int_equal(version_for(config, "sft-earlier", &memory), 2);
    assert_int_equal(version_for(config, "last", &memory), 99);
    assert_int_equal(version_for(config, "12", &memory), 12);
}

/* Imitation comes in pieces; that of the stage before is played on val beside the last, and nowhere else. */
static void test_imitation_in_pieces(void **state)
{
    struct run_config *config = *state;
    struct eval_config *eval;
    struct plan_memory memory;
    struct work work;

    stage_lab_add(config, STAGE_SFT, "sft")->sft = (struct sft_config) {.steps = 350, .commit_every = 100};
    eval = &stage_lab_add(config, STAGE_EVAL, "eval")->eval;
    *eval = (struct eval_config) {.episodes = 4, .n_policies = 2, .n_temperatures = 1, .temperatures = {1}, .val_episodes = 2,
                                  .n = {1, 4}, .n_n = 2};
    snprintf(eval->policies[0], sizeof(eval->policies[0]), "sft");
    snprintf(eval->policies[1], sizeof(eval->policies[1]), "sft-earlier");
    plan_memory_init(&memory);
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(stage_plan_work(config, NULL, 0, i, &work), 0);
        assert_int_equal(work.objective, WORK_SFT);
        assert_int_equal(work.round, i);
    }
    assert_true(stage_plan_work(config, NULL, 0, 4, &work) < 0);
    memory.sft_earlier = 12;
    expect_work(config, 1, 0, "eval val sft");
    expect_work(config, 1, 1, "eval val sft-earlier");
    assert_int_equal(stage_plan_work(config, NULL, 1, 1, &work), 0);
    assert_int_equal(stage_plan_policy(config, &work, &memory, 99), 12);
    expect_work(config, 1, 2, "eval test sft");
    expect_work(config, 1, 3, "eval search sft");
    assert_true(stage_plan_work(config, NULL, 1, 4, &work) < 0);
}

/* The curriculum learns from what was played, by task; what failed was not played. A later stage begins anew. */
static void test_what_a_curriculum_learns(void **state)
{
    struct run_config *config = *state;
    struct ledger_episode rows[4];
    struct plan_memory memory;
    struct work work;

    stage_lab_add(config, STAGE_RL, "rl")->rl = (struct rl_config) {.iterations = 2, .episodes = 4, .temperature = 1};
    plan_memory_init(&memory);
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    assert_int_equal(stage_plan_work(config, NULL, 0, 0, &work), 0);
    for (size_t i = 0; i < 4; i++) {
        rows[i] = (struct ledger_episode) {.state = i == 3 ? EPISODE_FAILED : EPISODE_TRAINED, .success = i != 1, .reward = 1};
        snprintf(rows[i].task, sizeof rows[i].task, "%s", config->tasks[i < 2 ? 0 : 1]);
    }
    stage_plan_learn(config, &work, rows, 4, &memory);
    assert_true(memory.curriculum.tries[0] == 2 && memory.curriculum.wins[0] == 1);
    assert_true(memory.curriculum.tries[1] == 1 && memory.curriculum.wins[1] == 1);
    assert_int_equal(memory.watched, 1);
    assert_true(memory.paid[0] == 1 && memory.won[0] == 2. / 3);
    memory.alarms = memory.since_best = memory.n_extra = 3;
    memory.stop = PLAN_SUCCESS;
    assert_int_equal(stage_plan_begin(config, 0, NULL, &memory), 0);
    assert_true(!memory.watched && !memory.alarms && !memory.since_best && !memory.n_extra && memory.stop == PLAN_GOES_ON);
    assert_true(memory.curriculum.tries[0] == 0);
}

/* Demonstrations that are a data set's are not played: the stage is over at once. */
static void test_recorded_demonstrations(void **state)
{
    struct run_config *config = *state;
    struct work work;

    stage_lab_add(config, STAGE_DEMOS, "demos")->demos = (struct demos_config) { .episodes = 5 };
    expect_work(config, 0, 0, "demos");
    snprintf(config->stages[0].demos.from, sizeof(config->stages[0].demos.from), "data/spatial");
    assert_true(stage_plan_work(config, NULL, 0, 0, &work) < 0);
}

static void test_levels_of_the_file(void **state)
{
    struct run_config *config = *state;
    struct rl_config *rl = &stage_lab_add(config, STAGE_RL, "rl")->rl;
    struct plan_memory memory;

    plan_memory_init(&memory);
    *rl = (struct rl_config) { .iterations = 1, .episodes = 1, .curriculum = CURRICULUM_LEVELS };
    assert_int_equal(stage_plan_begin(config, 0, (int[]) { 0, 3 }, &memory), 0);
    assert_int_equal(memory.curriculum.level_of[1], 3);
    rl->n_levels = 2;
    rl->levels[0] = 2;
    rl->levels[1] = 1;
    assert_int_equal(stage_plan_begin(config, 0, (int[]) { 0, 3 }, &memory), 0);
    assert_true(memory.curriculum.level_of[0] == 2 && memory.curriculum.level == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_order_of_work, stage_lab_set_up),
        cmocka_unit_test_setup(test_refreshes, stage_lab_set_up),
        cmocka_unit_test_setup(test_which_version_is_evaluated, stage_lab_set_up),
        cmocka_unit_test_setup(test_titles, stage_lab_set_up),
        cmocka_unit_test_setup(test_imitation_in_pieces, stage_lab_set_up),
        cmocka_unit_test_setup(test_what_a_curriculum_learns, stage_lab_set_up),
        cmocka_unit_test_setup(test_levels_of_the_file, stage_lab_set_up),
        cmocka_unit_test_setup(test_recorded_demonstrations, stage_lab_set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
