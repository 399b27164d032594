/* test_player.c - one slot's life, and everything that can come between. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "env_worker/player.h"

static const struct player_limits limits = { .retries = 2, .pause_ms = 100, .pause_max_ms = 300, .version_wait_ms = 1000 };

struct play { struct player player; struct player_effects out; uint64_t now_ms; };

static void event(struct play *p, struct player_event e)
{
    player_step(&p->player, &e, p->now_ms, &p->out);
}

static uint64_t asked(const struct play *p, enum player_effect_kind kind)
{
    assert_int_equal(p->out.n, 1);
    assert_int_equal(p->out.items[0].kind, kind);
    return p->out.items[0].ticket;
}

static void lease_again(struct play *p, uint64_t prm_version, bool expert, uint32_t max_steps)
{
    event(p, (struct player_event){
                 .kind = PLAYER_LEASE,
                 .terms = {.episode = 7,
                           .fence = 9,
                           .policy_version = 3,
                           .prm_version = prm_version,
                           .max_steps = max_steps,
                           .expert = expert},
             });
}

static void lease(struct play *p, uint64_t prm_version, bool expert, uint32_t max_steps)
{
    player_init(&p->player, &limits, 100);
    p->now_ms = 5000;
    lease_again(p, prm_version, expert, max_steps);
}

static void sim_done(struct play *p, enum player_event_kind kind, enum player_effect_kind after, bool success)
{
    event(p, (struct player_event) { .kind = kind, .ticket = asked(p, after), .sim = { .success = success } });
}

static void acted(struct play *p, uint32_t actions)
{
    uint64_t ticket = asked(p, PLAYER_DO_ACT);

    assert_int_equal(p->out.items[0].version, 3);
    event(p, (struct player_event){.kind = PLAYER_ACTED, .ticket = ticket, .acted = {.answer = PLAYER_OK, .actions = actions}});
}

static void delivered(struct play *p, enum player_answer answer, enum deliver_verdict verdict)
{
    event(p, (struct player_event) {
        .kind = PLAYER_DELIVERED, .ticket = asked(p, PLAYER_DO_DELIVER), .delivered = { .answer = answer, .verdict = verdict },
    });
}

static void test_policy_plays(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 2, false, 5);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    acted(&p, 1);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, false);
    assert_int_equal(p.out.items[0].step, 1);
    acted(&p, 1);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, true);
    assert_int_equal(p.out.items[0].version, 2);
    event(&p, (struct player_event) { .kind = PLAYER_SCORED, .ticket = asked(&p, PLAYER_DO_SCORE) });
    assert_true(p.out.items[0].success);
    assert_false(p.out.items[0].timeout);
    assert_int_equal(p.out.items[0].step, 2);
    delivered(&p, PLAYER_OK, DELIVER_ACCEPTED);
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_FREE);
    assert_true(p.out.items[0].played);
    assert_int_equal(player_progress(&p.player), 6);     /* reset, 2 acts, 2 steps, score: each renews the lease */
    assert_false(player_busy(&p.player));
}

static void test_demonstrator_plays_and_times_out(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 0, true, 2);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, false);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, false);
    assert_true(p.out.items[0].timeout);                 /* not scored: straight to the learner */
    delivered(&p, PLAYER_OK, DELIVER_SUPERSEDED);
    assert_false(p.out.items[0].played);
}

/* One look-ahead answer brings several actions; success ends them early. */
static void test_look_ahead(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 0, false, 9);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    acted(&p, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(p.out.items[0].action, i);
        sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, false);
    }
    acted(&p, 3);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, true);
    (void)asked(&p, PLAYER_DO_DELIVER);
}

static void fail_act(struct play *p, enum player_answer answer)
{
    event(p, (struct player_event) { .kind = PLAYER_ACTED, .ticket = asked(p, PLAYER_DO_ACT), .acted = { .answer = answer } });
}

static void tick_after(struct play *p, uint64_t ms)
{
    p->now_ms += ms;
    event(p, (struct player_event) { .kind = PLAYER_TICK });
}

static void test_retries_run_out(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 0, false, 5);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    fail_act(&p, PLAYER_NO_ANSWER);
    assert_int_equal(p.out.n, 0);
    tick_after(&p, 99);
    assert_int_equal(p.out.n, 0);
    tick_after(&p, 1);
    fail_act(&p, PLAYER_NO_ANSWER);
    tick_after(&p, 199);
    assert_int_equal(p.out.n, 0);                        /* pauses double */
    tick_after(&p, 1);
    fail_act(&p, PLAYER_NO_ANSWER);
    assert_int_equal(p.out.n, 2);
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
    assert_int_equal(p.out.items[0].reason, LEASE_GIVEN_BACK);        /* a cut is nobody's fault */
    assert_int_equal(p.out.items[1].kind, PLAYER_DO_FREE);
    assert_false(p.out.items[1].played);
}

/* LOADING and WRONG_VERSION cost no retry, but are not waited for without end. */
static void test_version_not_there(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 0, false, 5);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    for (int i = 0; i < 10; i++) {
        fail_act(&p, PLAYER_NOT_YET);
        tick_after(&p, 99);
        assert_int_equal(p.out.n, 0);
        tick_after(&p, 1);
    }
    fail_act(&p, PLAYER_NOT_YET);
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
    assert_int_equal(p.out.items[0].reason, LEASE_GIVEN_BACK);

    lease(&p, 0, false, 5);                              /* what was waited for and came is not counted later */
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    for (int i = 0; i < 2; i++) {
        fail_act(&p, PLAYER_NOT_YET);
        assert_int_equal(p.out.n, 0);
        tick_after(&p, 900);
        acted(&p, 1);
        sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, false);
        p.now_ms += 900;
    }
}

static void test_deliveries_are_repeated(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 0, true, 1);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, true);
    for (int i = 0; i < 50; i++) {
        delivered(&p, i % 2 ? PLAYER_NO_ANSWER : PLAYER_NOT_YET, 0);
        tick_after(&p, 99);
        assert_int_equal(p.out.n, 0);
        tick_after(&p, 201);
    }
    event(&p, (struct player_event) { .kind = PLAYER_REVOKED, .episode = 7 });
    assert_int_equal(p.out.n, 0);                        /* the lease has ended: it is delivered all the same */
    assert_true(player_busy(&p.player));
}

static void test_revoked(void **state)
{
    struct play p;
    uint64_t ticket;

    (void)state;
    lease(&p, 0, false, 5);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    ticket = asked(&p, PLAYER_DO_ACT);
    event(&p, (struct player_event) { .kind = PLAYER_REVOKED, .episode = 8 });
    assert_int_equal(p.out.n, 0);
    event(&p, (struct player_event) { .kind = PLAYER_REVOKED, .episode = 7 });
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_CANCEL);
    assert_int_equal(p.out.items[0].ticket, ticket);
    assert_int_equal(p.out.items[1].kind, PLAYER_DO_FREE);
    assert_false(p.out.items[1].played);
    event(&p, (struct player_event) { .kind = PLAYER_ACTED, .ticket = ticket, .acted = { .actions = 1 } });
    assert_int_equal(p.out.n, 0);                        /* the answer comes late, and to nobody; */
    lease_again(&p, 0, false, 5);
    assert_int_equal(player_progress(&p.player), 0);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    (void)asked(&p, PLAYER_DO_ACT);
    event(&p, (struct player_event) { .kind = PLAYER_ACTED, .ticket = ticket, .acted = { .actions = 1 } });
    assert_int_equal(p.out.n, 0);                        /* nor is it taken for that to the next lease's question */
}

/* The process has to leave: whatever is under way stops, also a delivery that nobody takes. */
static void test_given_up(void **state)
{
    struct play p;
    uint64_t ticket;

    (void)state;
    lease(&p, 0, true, 1);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, true);
    ticket = asked(&p, PLAYER_DO_DELIVER);
    event(&p, (struct player_event) { .kind = PLAYER_GIVE_UP, .reason = "no learner" });
    assert_int_equal(p.out.n, 3);
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_CANCEL);
    assert_int_equal(p.out.items[0].ticket, ticket);
    assert_int_equal(p.out.items[1].kind, PLAYER_DO_RETURN);
    assert_int_equal(p.out.items[1].episode, 7);
    assert_int_equal(p.out.items[1].reason, LEASE_GIVEN_BACK);
    assert_string_equal(p.out.items[1].text, "no learner");
    assert_int_equal(p.out.items[2].kind, PLAYER_DO_FREE);
    assert_false(p.out.items[2].played);
    event(&p, (struct player_event) { .kind = PLAYER_GIVE_UP, .reason = "again" });
    assert_int_equal(p.out.n, 0);

    lease_again(&p, 0, false, 1);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    fail_act(&p, PLAYER_NO_ANSWER);
    event(&p, (struct player_event) { .kind = PLAYER_GIVE_UP, .reason = "no actor" });     /* between two tries */
    assert_int_equal(p.out.n, 2);
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
}

static void test_errors_go_back(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 0, false, 5);
    event(&p, (struct player_event){
                  .kind = PLAYER_RESET_DONE, .ticket = asked(&p, PLAYER_DO_RESET), .sim = {.result = -EDOM, .text = "diverged"}});
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
    assert_int_equal(p.out.items[0].reason, LEASE_SIMULATOR_ERROR);
    assert_string_equal(p.out.items[0].text, "diverged");

    lease(&p, 0, true, 1);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, true);
    delivered(&p, PLAYER_OK, DELIVER_REFUSED);           /* NaN in it, say */
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
    assert_int_equal(p.out.items[0].reason, LEASE_SIMULATOR_ERROR);

    lease(&p, 0, true, 1);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, true);
    delivered(&p, PLAYER_BAD_ANSWER, DELIVER_REFUSED);   /* what an actor has said in it */
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
    assert_int_equal(p.out.items[0].reason, LEASE_SERVER_ERROR);
}

/* A server that answers nonsense is asked again, of which another may take care; then it is its fault, not the episode's. */
static void test_useless_answers(void **state)
{
    struct play p;

    (void)state;
    lease(&p, 0, false, 5);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    for (int i = 0; i < PLAYER_BAD_ANSWERS; i++) {
        fail_act(&p, PLAYER_BAD_ANSWER);
        assert_int_equal(p.out.n, 0);
        tick_after(&p, 1000);
    }
    fail_act(&p, PLAYER_BAD_ANSWER);
    assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
    assert_int_equal(p.out.items[0].reason, LEASE_SERVER_ERROR);

    lease(&p, 0, false, 5);
    sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
    fail_act(&p, PLAYER_BAD_REQUEST);
    assert_int_equal(p.out.items[0].reason, LEASE_SERVER_ERROR);
}

/* Scores are asked for as actions are; and who says why it went wrong is quoted. */
static void test_scores_fail(void **state)
{
    static const struct { enum player_answer answer; int tries; enum lease_return reason; } cases[] = {
        { PLAYER_NO_ANSWER, 3, LEASE_GIVEN_BACK }, { PLAYER_BAD_ANSWER, 3, LEASE_SERVER_ERROR },
        { PLAYER_BAD_REQUEST, 1, LEASE_SERVER_ERROR },
    };
    struct play p;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        lease(&p, 2, true, 1);
        sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
        sim_done(&p, PLAYER_STEP_DONE, PLAYER_DO_STEP, true);
        for (int k = 1; k <= cases[i].tries; k++) {
            event(&p, (struct player_event) { .kind = PLAYER_SCORED, .ticket = asked(&p, PLAYER_DO_SCORE),
                                              .answered = { .answer = cases[i].answer, .text = "who knows" } });
            if (k == cases[i].tries)
                break;
            tick_after(&p, 99);
            assert_int_equal(p.out.n, 0);
            tick_after(&p, 500);
        }
        assert_int_equal(p.out.items[0].kind, PLAYER_DO_RETURN);
        assert_int_equal(p.out.items[0].reason, cases[i].reason);
        assert_string_equal(p.out.items[0].text, "who knows");
    }
    for (enum player_answer answer = PLAYER_BAD_REQUEST; answer <= PLAYER_BROKEN; answer += PLAYER_BROKEN - PLAYER_BAD_REQUEST) {
        lease(&p, 0, false, 5);
        sim_done(&p, PLAYER_RESET_DONE, PLAYER_DO_RESET, false);
        event(&p, (struct player_event) { .kind = PLAYER_ACTED, .ticket = asked(&p, PLAYER_DO_ACT),
                                          .acted = { .answer = answer, .text = "because" } });
        assert_int_equal(p.out.items[0].reason, answer == PLAYER_BROKEN ? LEASE_SIMULATOR_ERROR : LEASE_SERVER_ERROR);
        assert_string_equal(p.out.items[0].text, "because");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy_plays),      cmocka_unit_test(test_demonstrator_plays_and_times_out),
        cmocka_unit_test(test_look_ahead),        cmocka_unit_test(test_retries_run_out),
        cmocka_unit_test(test_version_not_there), cmocka_unit_test(test_deliveries_are_repeated),
        cmocka_unit_test(test_revoked),           cmocka_unit_test(test_errors_go_back),
        cmocka_unit_test(test_useless_answers),   cmocka_unit_test(test_scores_fail),
        cmocka_unit_test(test_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
