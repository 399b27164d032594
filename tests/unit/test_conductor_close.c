/* test_conductor_close.c - a pass is over: its figures, the versions whose weights stay, and what stops a stage or a run. */
#include "tests/harness/conductor_desk.h"

/* The iteration that was closed. */
static const struct ledger_iteration *closed(const struct desk *d)
{
    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == CONDUCTOR_PUT_ITERATION && d->out.items[i].iteration.state == PROGRESS_DONE)
            return &d->out.items[i].iteration;
    fail_msg("no iteration was closed");
    return NULL;
}

/* A figure of the iteration that was closed; -1: there is none. */
static double scalar(const struct desk *d, const char *name)
{
    const struct ledger_iteration *iteration = closed(d);

    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == CONDUCTOR_ADD_SCALAR && !strcmp(d->out.items[i].scalar.name, name)) {
            assert_int_equal(d->out.items[i].scalar.stage, iteration->stage);
            assert_int_equal(d->out.items[i].scalar.iteration, iteration->iteration);
            return d->out.items[i].scalar.value;
        }
    return -1;
}

static const char *note(const struct desk *d, const char *kind)
{
    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == CONDUCTOR_ADD_EVENT && !strcmp(d->out.items[i].text.kind, kind))
            return d->out.items[i].text.text;
    return NULL;
}

static bool stays(const struct desk *d, enum version_kind kind, uint64_t version)
{
    const struct conductor_effect *effect = desk_find(d, CONDUCTOR_RETAIN);
    bool listed = false;

    assert_non_null(effect);
    assert_int_equal(effect->retain.kind, kind);
    for (size_t i = 0; i < effect->retain.n_keep; i++)
        listed |= effect->retain.keep[i] == version;
    return listed;
}

static void arrives(struct desk *d, uint64_t episode, bool success, float reward, uint32_t steps)
{
    struct journaled_episode e = desk_played(episode, success);

    e.reward = reward;
    e.steps = steps;
    desk_step(d, (struct conductor_event){
                .kind = CONDUCTOR_JOURNALED, .member = d->member[LEARNER], .journaled = {d->stage, d->iteration, &e, 1}});
}

/* The open pass is played, the first `n` of its rows successes; what is trained on it is committed. */
static void play(struct desk *d, size_t n, float reward)
{
    uint64_t rows[ARRAY_SIZE(d->opened)];
    size_t n_rows = d->n_opened;

    desk_confirm(d);
    memcpy(rows, d->opened, sizeof rows);
    for (size_t i = 0; i < n_rows; i++)
        arrives(d, rows[i], i < n, reward, 5);
    if (desk_find(d, CONDUCTOR_PLAN)) {
        struct conductor_plan plan = desk_find(d, CONDUCTOR_PLAN)->plan;

        desk_committed(d, &plan, rows, n_rows, true);
    }
    (void)closed(d);
    assert_non_null(desk_find(d, CONDUCTOR_PUT_BLOB));      /* what was learnt from it is kept in the same transaction */
}

static void newest_is_ready(struct desk *d)
{
    desk_ready(d, ACTOR, KIND_POLICY, versions_newest(conductor_versions(d->c), KIND_POLICY)->number);
}

/* Everybody is there; nothing is asked of the learner for policy 0 but that it has it. */
static void start(struct desk *d)
{
    desk_start(d, NULL, EPOCH);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_hello(d, PRM, MEMBER_PRM, 50);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
}

/* Means over the rows that ended well, of all and by task: what failed for good counts in none, what stands in for it does. */
static void test_figures(void **state)
{
    struct desk *d = *state;

    desk_demos(d, 3);
    for (int i = 0; i < 3; i++) {
        uint64_t fence = desk_request(d, WORKER, 1)->grant.leases[0].fence;

        desk_step(d, (struct conductor_event){
                    .kind = CONDUCTOR_LEASE_RETURN, .member = d->member[WORKER],
                    .lease_return = {1, fence, LEASE_SIMULATOR_ERROR, "mj_step"}});
    }
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.replaces, 1);
    arrives(d, 2, true, 1.5f, 10);      /* "open" */
    arrives(d, 3, false, 0, 20);        /* "reach", as 1 and its replacement */
    arrives(d, 4, true, 3, 30);
    assert_int_equal(desk_count(d, CONDUCTOR_EPISODE_ENDED), 3);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_ENDED)->episode.state, EPISODE_KEPT);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_SCALAR), 5);
    assert_true(scalar(d, "success") == 2. / 3 && scalar(d, "return") == 1.5 && scalar(d, "steps") == 20);
    assert_true(scalar(d, "success/reach") == .5 && scalar(d, "success/open") == 1);
    assert_null(desk_find(d, CONDUCTOR_RETAIN));        /* nothing was trained */
}

/* An evaluation's, by tag; and what a train pass's curriculum drew with. */
static void test_figures_by_tag(void **state)
{
    struct desk *d = *state;
    struct rl_config *rl = &desk_add_stage(d, STAGE_RL, "rl")->rl;
    struct eval_config *eval = &desk_add_stage(d, STAGE_EVAL, "eval")->eval;
    double p[CURRICULUM_MAX_TASKS];

    *rl = (struct rl_config) {.iterations = 1, .episodes = 2, .temperature = 1, .curriculum = CURRICULUM_LEVELS, .n_levels = 2,
                              .levels = {0, 1}};
    *eval = (struct eval_config) {
        .episodes = 2, .n_policies = 1, .n_temperatures = 1, .temperatures = {.5}, .val_episodes = 2, .beside = true};
    snprintf(eval->policies[0], sizeof eval->policies[0], "last");
    start(d);
    newest_is_ready(d);
    curriculum_weights(&conductor_memory(d->c)->curriculum, p);
    assert_true(p[0] != p[1]);
    play(d, 1, 0);
    assert_true(scalar(d, "success") == .5 && scalar(d, "curriculum/reach") == p[0] && scalar(d, "curriculum/open") == p[1]);
    assert_true(scalar(d, "estimate/reach") >= 0 && scalar(d, "estimate/open") >= 0 && scalar(d, "curriculum/level") == 0);
    newest_is_ready(d);
    play(d, 1, 0);
    assert_true(scalar(d, "success/val last t=0.5") == .5 && scalar(d, "curriculum/reach") == -1);
    play(d, 3, 0);
    assert_int_equal(desk_find(d, CONDUCTOR_EPISODE_ENDED)->episode.state, EPISODE_EVALUATED);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_SCALAR), 5 + 3);
    assert_true(scalar(d, "success/test last t=0.5") == 1 && scalar(d, "success/test last t=0") == .5 &&
                scalar(d, "success/test last t=1") == 0);
    assert_non_null(desk_find(d, CONDUCTOR_FINISHED));
}

/* Weights of policies stay that a later stage, an open pass or a person will ask for: the first, each stage's last, imitation's,
 * the best on val, and one that an evaluation names. */
static void test_policies_that_stay(void **state)
{
    struct desk *d = *state;
    struct eval_config *eval;
    struct conductor_plan plan;

    desk_add_stage(d, STAGE_SFT, "sft")->sft = (struct sft_config) {.steps = 1};
    desk_add_stage(d, STAGE_RL, "first")->rl = (struct rl_config) {.iterations = 1, .episodes = 2, .temperature = 1};
    desk_add_stage(d, STAGE_RL, "rl")->rl =
        (struct rl_config) {.iterations = 6, .episodes = 2, .eval_every = 2, .eval_episodes = 2, .temperature = 1};
    eval = &desk_add_stage(d, STAGE_EVAL, "eval")->eval;
    *eval = (struct eval_config) {.episodes = 2, .n_policies = 2, .n_at = 2};
    snprintf(eval->policies[0], sizeof eval->policies[0], "last");
    snprintf(eval->policies[1], sizeof eval->policies[1], "5");
    start(d);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    desk_committed(d, &plan, NULL, 0, true);            /* 1: imitation */
    newest_is_ready(d);
    play(d, 1, 0);                                      /* 2: the end of a stage */
    newest_is_ready(d);
    play(d, 1, 0);                                      /* on val */
    for (int i = 0; i < 2; i++) {                       /* 3, 4 */
        play(d, 1, 0);
        newest_is_ready(d);
    }
    play(d, 2, 0);                                      /* 4 is the best */
    for (int i = 0; i < 2; i++) {                       /* 5, 6 */
        play(d, 1, 0);
        newest_is_ready(d);
    }
    play(d, 1, 0);                                      /* 6 is worse */
    play(d, 1, 0);                                      /* 7 */
    assert_true(stays(d, KIND_POLICY, 0) && stays(d, KIND_POLICY, 1) && stays(d, KIND_POLICY, 2));
    assert_true(stays(d, KIND_POLICY, 4) && stays(d, KIND_POLICY, 5));
    assert_false(stays(d, KIND_POLICY, 3) || stays(d, KIND_POLICY, 6));
}

/* While the next pass is still played with it, a version stays. */
static void test_a_policy_in_use_stays(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    desk_rl(d, 1, 1);
    desk_journaled(d, 1, true);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    desk_confirm(d);
    desk_committed(d, &plan, (uint64_t[]) {1}, 1, true);
    desk_ready(d, ACTOR, KIND_POLICY, 1);
    desk_journaled(d, 2, true);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.policy_version, 1);
    desk_confirm(d);
    desk_committed(d, &plan, (uint64_t[]) {2}, 1, true);
    assert_true(stays(d, KIND_POLICY, 1));
}

/* Of reward models: the one in use, the one that rollback goes back to, and the newest that passed. */
static void test_reward_models_that_stay(void **state)
{
    struct desk *d = *state;
    const uint64_t in_use[] = {0, 2, 3, 2, 2};
    struct conductor_plan plan = {0};

    for (int i = 0; i < 5; i++)
        desk_add_stage(d, STAGE_PRM, (char[2]) {(char)('a' + i)});
    start(d);
    for (int i = 0; i < 5; i++) {
        if (desk_find(d, CONDUCTOR_PLAN))
            plan = desk_find(d, CONDUCTOR_PLAN)->plan;
        if (i == 3)                     /* back to 2 while 4 is trained */
            desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_PRM_SWAP, .prm_swap = {2}});
        desk_committed(d, &plan, NULL, 0, i == 1 || i == 2);
        assert_int_equal(conductor_memory(d->c)->prm_current, in_use[i]);
        assert_int_equal(stays(d, KIND_PRM, 2) && stays(d, KIND_PRM, 3), i >= 2);
        assert_false(stays(d, KIND_PRM, 1) || stays(d, KIND_PRM, 4));
    }
}

/* A stage's time is what passed between its passes, added up once; what passed since is said beside it. */
static void test_time_of_a_stage(void **state)
{
    struct conductor_status status;
    struct desk *d = *state;

    desk_rl(d, 1, 0);
    for (int i = 1; i <= 3; i++) {
        d->now_ms += 1000;
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_TICK});
        conductor_status(d->c, &status);
        assert_true(status.stage_s == 1);
        play(d, 1, 0);
        assert_true(desk_find(d, CONDUCTOR_PUT_STAGE)->stage.wall_s == i);
        conductor_status(d->c, &status);
        assert_true(status.stage_s == 0);
        newest_is_ready(d);
    }
}

/* Ten passes: the reward model pays more, success goes away. */
static void please_the_model(struct desk *d, enum hack_action on_hack)
{
    desk_add_stage(d, STAGE_RL, "rl")->rl =
        (struct rl_config) {.iterations = 12, .episodes = 2, .temperature = 1, .on_hack = on_hack};
    start(d);
    newest_is_ready(d);
    for (int i = 0; i < 10; i++) {
        assert_null(desk_find(d, CONDUCTOR_STOPPED));
        assert_null(note(d, "hacking"));
        play(d, i < 5 ? 2 : 0, i < 5 ? 1 : 2);
        if (i < 9)
            newest_is_ready(d);
    }
    assert_non_null(strstr(note(d, "hacking"), "rl/10: over 5 iterations the reward model paid 10 % more"));
}

static void test_pleasing_the_model_is_said(void **state)
{
    struct desk *d = *state;

    please_the_model(d, HACK_WARN);
    assert_null(desk_find(d, CONDUCTOR_STOPPED));
    newest_is_ready(d);
    assert_int_equal(desk_count(d, CONDUCTOR_ADD_EPISODE), 2);
}

static void test_pleasing_the_model_pauses(void **state)
{
    struct desk *d = *state;

    please_the_model(d, HACK_PAUSE);
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text, "the run stops"));
    assert_non_null(note(d, "stopped"));
    newest_is_ready(d);
    assert_null(desk_find(d, CONDUCTOR_STOPPED));       /* once */
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));
}

/* A stage that has what it was for says so and is over. */
static void test_a_stage_that_stops(void **state)
{
    struct desk *d = *state;

    desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) {
        .iterations = 6, .episodes = 2, .eval_every = 1, .eval_episodes = 2, .temperature = 1, .stop_success = .9};
    start(d);
    newest_is_ready(d);
    play(d, 1, 0);
    assert_null(note(d, "stage_stop"));
    play(d, 1, 0);
    newest_is_ready(d);
    play(d, 2, 0);
    assert_non_null(strstr(note(d, "stage_stop"), "success on val states reached 0.9"));
    assert_non_null(desk_find(d, CONDUCTOR_FINISHED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_figures, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_figures_by_tag, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_policies_that_stay, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_a_policy_in_use_stays, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_reward_models_that_stay, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_time_of_a_stage, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_pleasing_the_model_is_said, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_pleasing_the_model_pauses, desk_set_up, desk_tear_down),
        cmocka_unit_test_setup_teardown(test_a_stage_that_stops, desk_set_up, desk_tear_down),
    };

    return cmocka_run_group_tests_name("conductor_close", tests, NULL, NULL);
}
