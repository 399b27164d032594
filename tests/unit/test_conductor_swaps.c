/* The conductor and its reward models: passed by the gate, swapped at once or at an iteration, tried beside the one in use, given
 * up. */
#include "tests/harness/conductor_desk.h"

/* The stages are added: everybody but a worker is there, and the journal is empty. */
static void start(struct desk *d)
{
    desk_start(d, NULL, EPOCH);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_hello(d, PRM, MEMBER_PRM, 50);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
}

static void test_gate_and_swap(void **state)
{
    struct desk *d = *state;
    struct conductor_plan plan;

    desk_add_stage(d, STAGE_PRM, "prm");
    desk_add_stage(d, STAGE_PRM, "prm2");
    desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) { .iterations = 2, .episodes = 1 };
    start(d);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.kind, KIND_PRM);
    assert_int_equal(plan.version, 1);
    assert_string_equal(plan.parent_dir, "policies/v000000");   /* its trunk */
    desk_committed(d, &plan, NULL, 0, true);
    assert_int_equal(conductor_memory(d->c)->prm_current, 1);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    assert_int_equal(plan.version, 2);
    assert_int_equal(plan.parent, 1);
    desk_committed(d, &plan, NULL, 0, false);
    assert_int_equal(conductor_memory(d->c)->prm_current, 1);   /* did not pass: the old one goes on */
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));
    desk_ready(d, PRM, KIND_PRM, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 1);
    desk_confirm(d);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 9 } });
    assert_non_null(desk_find(d, CONDUCTOR_REFUSE));
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 2 } });
    assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.n_keep, 2);     /* running episodes finish on the old one */
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    assert_int_equal(desk_request(d, WORKER, 1)->grant.leases[0].prm_version, 1);
}

/* A run that is to be paid by a reward model, whose only one did not pass its gate. */
static void none_passed(struct desk *d)
{
    struct conductor_plan plan;

    desk_add_stage(d, STAGE_PRM, "prm");
    desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) { .iterations = 2, .episodes = 1, .w_progress = 1 };
    start(d);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    desk_committed(d, &plan, NULL, 0, false);
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    desk_ready(d, PRM, KIND_PRM, 1);
}

static void test_no_gate_passed(void **state)
{
    struct conductor_status status;
    struct desk *d = *state;

    none_passed(d);
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));           /* unscored episodes are of no use here */
    conductor_status(d->c, &status);
    assert_string_equal(status.waiting_for,
                        "a reward model: version 1 did not pass its gate (`gantry prm swap RUN 1` takes it all the same)");
    d->now_ms += 59000;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    assert_null(desk_find(d, CONDUCTOR_STOPPED));
    d->now_ms += 1000;
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_TICK });
    assert_non_null(strstr(desk_find(d, CONDUCTOR_STOPPED)->text.text, "`gantry prm swap RUN 1`"));
    assert_null(desk_find(d, CONDUCTOR_ADD_EPISODE));
}

static void test_no_gate_passed_but_an_operator_says_so(void **state)
{
    struct desk *d = *state;

    none_passed(d);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 1 } });
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 1);
}

/* What the first of two rl stages, of one pass each, says of a reward model with this verdict, which pays it. */
static const char *verdict(struct desk *d, const char *gate_text)
{
    struct conductor_plan plan;

    desk_add_stage(d, STAGE_PRM, "prm");
    desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) { .iterations = 2, .episodes = 1, .w_progress = 1 };
    desk_add_stage(d, STAGE_RL, "rl2")->rl = (struct rl_config) { .iterations = 1, .episodes = 1, .reward = REWARD_SPARSE };
    start(d);
    plan = desk_find(d, CONDUCTOR_PLAN)->plan;
    d->gate_text = gate_text;
    desk_committed(d, &plan, NULL, 0, true);
    d->gate_text = NULL;
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    desk_ready(d, PRM, KIND_PRM, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 1);
    return desk_find(d, CONDUCTOR_ADD_EVENT) ? desk_find(d, CONDUCTOR_ADD_EVENT)->text.text : "";
}

/* The open pass is trained on, into `version`. */
static void pass_over(struct desk *d, uint64_t version)
{
    desk_confirm(d);
    desk_journaled(d, d->opened[0], true);
    desk_committed(d, &desk_find(d, CONDUCTOR_PLAN)->plan, d->opened, 1, true);
    assert_null(desk_find(d, CONDUCTOR_ADD_EVENT));
    desk_ready(d, ACTOR, KIND_POLICY, version);
}

/* Said when a stage begins that learns from it, once; shown as long as it does. */
static void test_forced_through_its_gate(void **state)
{
    struct conductor_status status;
    struct desk *d = *state;

    assert_string_equal(verdict(d, "promoted by force: AUC .5"),
                        "rl: scored by reward model version 1, which did not pass its gate: promoted by force: AUC .5");
    conductor_status(d->c, &status);
    assert_string_equal(status.prm_doubt, "promoted by force: AUC .5");
    pass_over(d, 1);
    assert_null(desk_find(d, CONDUCTOR_ADD_EVENT));
    conductor_status(d->c, &status);
    assert_string_equal(status.prm_doubt, "promoted by force: AUC .5");
    pass_over(d, 2);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.stage, 2);
    assert_null(desk_find(d, CONDUCTOR_ADD_EVENT));     /* it pays nothing there */
    conductor_status(d->c, &status);
    assert_string_equal(status.prm_doubt, "");
}

static void test_passed_its_gate(void **state)
{
    struct conductor_status status;
    struct desk *d = *state;

    assert_string_equal(verdict(d, "passed: AUC .9"), "");
    conductor_status(d->c, &status);
    assert_string_equal(status.prm_doubt, "");
}

/* A run whose reward models 1 and 2 are committed and whose first rl iteration is open, scored by 2. */
static void two_reward_models(struct desk *d)
{
    struct conductor_plan plan;

    desk_add_stage(d, STAGE_PRM, "prm");
    desk_add_stage(d, STAGE_PRM, "prm2");
    desk_add_stage(d, STAGE_RL, "rl")->rl = (struct rl_config) { .iterations = 3, .episodes = 1 };
    start(d);
    for (int i = 0; i < 2; i++) {
        plan = desk_find(d, CONDUCTOR_PLAN)->plan;
        desk_committed(d, &plan, NULL, 0, true);
    }
    desk_ready(d, ACTOR, KIND_POLICY, 0);
}

/* A swap that waits is listed at once, so that it is loaded, and used from its iteration on; rollback goes back. It outlives
 * us. */
static void test_swap_at_an_iteration(void **state)
{
    struct desk *d = *state;
    struct plan_memory back;
    struct strbuf text = STRBUF_INIT;
    struct error error = { 0 };

    two_reward_models(d);
    assert_int_equal(conductor_memory(d->c)->prm_current, 2);
    assert_int_equal(conductor_memory(d->c)->prm_before, 1);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 1, true, 1 } });
    assert_int_equal(conductor_memory(d->c)->prm_current, 2);
    assert_non_null(desk_find(d, CONDUCTOR_PUT_BLOB));
    assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.n_keep, 2);
    assert_int_equal(plan_memory_write(conductor_memory(d->c), &text), 0);
    assert_int_equal(plan_memory_parse(text.text, text.length, &back, &error), 0);
    assert_int_equal(back.prm_next, 1);
    assert_int_equal(back.prm_next_round, 1);
    strbuf_release(&text);
    desk_ready(d, PRM, KIND_PRM, 2);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 2);      /* iteration 0 */
    desk_confirm(d);
    assert_int_equal(conductor_memory(d->c)->prm_current, 2);
    desk_ready(d, PRM, KIND_PRM, 1);
    desk_journaled(d, d->opened[0], true);
    desk_committed(d, &desk_find(d, CONDUCTOR_PLAN)->plan, d->opened, 1, true);
    assert_int_equal(conductor_memory(d->c)->prm_current, 1);
    assert_int_equal(conductor_memory(d->c)->prm_next, 0);
    assert_int_equal(conductor_memory(d->c)->prm_before, 2);
}

/* A swap that waits ends when the reward model is named anew meanwhile, and that is said. */
static void test_a_swap_that_waits_is_overtaken(void **state)
{
    struct desk *d = *state;

    two_reward_models(d);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 1, true, 2 } });
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 2 } });
    assert_int_equal(conductor_memory(d->c)->prm_next, 0);
    assert_string_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text,
                        "PRM version 1 is not waited for any more: the reward model in use was named anew");
}

/* One swap waits at a time: of two that are asked for the second, and what became of the first is said. */
static void test_a_swap_that_waits_is_replaced(void **state)
{
    struct desk *d = *state;

    two_reward_models(d);
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 1, true, 1 } });
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_PRM_SWAP, .prm_swap = { 2, true, 2 } });
    assert_int_equal(conductor_memory(d->c)->prm_next, 2);
    assert_int_equal(conductor_memory(d->c)->prm_next_round, 2);
    assert_string_equal(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text,
                        "PRM version 1 is not waited for any more: another is to take over");
}

static void desk_shadow(struct desk *d, uint64_t episode, float last, float shadow_last)
{
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_SHADOW_SCORED, .member = d->member[PRM], .epoch = EPOCH, .from = 1,
                                           .request = 1, .shadow_scored = {episode, 2, 1, 10, .1f, .5f, last, shadow_last}});
}

/* A reward model on trial scores nothing that is paid, is listed for the servers by name, and takes over when it passes; the
 * trial outlives us, and an episode counts whichever half of it comes first. */
static void test_shadow_decides(void **state)
{
    struct desk *d = *state;
    static struct plan_memory back;
    struct strbuf text = STRBUF_INIT;
    struct error error = { 0 };

    two_reward_models(d);
    desk_ready(d, PRM, KIND_PRM, 2);
    desk_confirm(d);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_PRM_SWAP,
                                           .prm_swap = {.version = 1, .shadow = true, .episodes = 2, .rank = .4}});
    assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.shadow, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.n_keep, 2);
    desk_shadow(d, d->opened[0], .8f, .9f);
    assert_int_equal(shadow_complete(&conductor_memory(d->c)->shadow), 0);
    desk_journaled(d, d->opened[0], true);
    assert_int_equal(shadow_complete(&conductor_memory(d->c)->shadow), 1);
    desk_committed(d, &desk_find(d, CONDUCTOR_PLAN)->plan, d->opened, 1, true);
    desk_ready(d, ACTOR, KIND_POLICY, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 2);
    desk_confirm(d);
    assert_int_equal(plan_memory_write(conductor_memory(d->c), &text), 0);
    assert_int_equal(plan_memory_parse(text.text, text.length, &back, &error), 0);
    assert_memory_equal(&back.shadow, &conductor_memory(d->c)->shadow, sizeof(back.shadow));
    strbuf_release(&text);
    desk_journaled(d, d->opened[0], false);
    assert_int_equal(conductor_memory(d->c)->prm_current, 2);
    desk_shadow(d, d->opened[0], .2f, .3f);
    assert_int_equal(conductor_memory(d->c)->prm_current, 1);
    assert_int_equal(conductor_memory(d->c)->shadow.version, 0);
    assert_true(conductor_memory(d->c)->shadow.last.passed);
    assert_int_equal(desk_find(d, CONDUCTOR_VERSIONS)->versions.shadow, 0);
    assert_non_null(strstr(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text, "version 1 scores new episodes"));
}

/* Named anew, refused by all, or none in use: the trial is over and the version in use stays. */
static void test_shadow_given_up(void **state)
{
    struct desk *d = *state;

    two_reward_models(d);
    desk_ready(d, PRM, KIND_PRM, 2);
    desk_confirm(d);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_PRM_SWAP,
                                           .prm_swap = {.version = 1, .shadow = true, .episodes = 2}});
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_PRM_SWAP, .prm_swap = {.version = 2}});
    assert_int_equal(conductor_memory(d->c)->shadow.version, 0);
    assert_int_equal(conductor_memory(d->c)->prm_current, 2);
    desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_PRM_SWAP,
                                           .prm_swap = {.version = 1, .shadow = true, .episodes = 2}});
    for (int i = 0; i < 12; i++) {
        d->now_ms += 1000;
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_VERSION_STATE, .member = d->member[PRM], .epoch = EPOCH,
                                               .version_state = {.kind = KIND_PRM, .version = 1, .text = DESK_REFUSAL}});
    }
    assert_non_null(strstr(desk_find(d, CONDUCTOR_ADD_EVENT)->text.text, DESK_REFUSAL));
    assert_int_equal(conductor_memory(d->c)->shadow.version, 0);
    assert_int_equal(conductor_memory(d->c)->prm_current, 2);
}

/* No server loads what was swapped to: the one before goes on, the run does not stop. */
static void test_swap_to_a_bad_model(void **state)
{
    struct desk *d = *state;

    two_reward_models(d);
    for (int i = 0; i < 3; i++) {
        desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_VERSION_STATE, .member = d->member[PRM],
                                               .version_state = {.kind = KIND_PRM, .version = 2, .text = "truncated"}});
        for (int k = 0; k < 8; k++) {
            d->now_ms += 900;
            desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[PRM]});
            desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[ACTOR]});
            desk_step(d, (struct conductor_event) {.kind = CONDUCTOR_HEARTBEAT, .member = d->member[LEARNER]});
        }
    }
    assert_int_equal(conductor_memory(d->c)->prm_current, 1);
    desk_ready(d, PRM, KIND_PRM, 1);
    assert_int_equal(desk_find(d, CONDUCTOR_ADD_EPISODE)->episode.prm_version, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, desk_set_up, desk_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_gate_and_swap),
        TEST(test_no_gate_passed),
        TEST(test_no_gate_passed_but_an_operator_says_so),
        TEST(test_forced_through_its_gate),
        TEST(test_passed_its_gate),
        TEST(test_swap_at_an_iteration),
        TEST(test_a_swap_that_waits_is_overtaken),
        TEST(test_a_swap_that_waits_is_replaced),
        TEST(test_shadow_decides),
        TEST(test_shadow_given_up),
        TEST(test_swap_to_a_bad_model),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
