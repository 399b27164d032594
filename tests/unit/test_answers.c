/* test_answers.c - what an env worker believes of a server's answer: nothing of another version, of another size, or that is no
 * number. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "env_worker/requests.h"
#include "proto/policy.pb-c.h"
#include "proto/prm.pb-c.h"

enum { C = 2, TOKENS = 5, DIMS = 7, ROOM = 4, SCORES = 3 };

/* An answer of two actions as it should be, and what becomes of it. */
static struct {
    struct episode episode;
    Gantry__ActReply act;
    Gantry__ScoreReply score;
    uint32_t tokens[(ROOM + 1) * TOKENS];
    float logp[(ROOM + 1) * TOKENS], action[(ROOM + 1) * DIMS], hidden[3], progress[SCORES];
    struct message message;
    struct move moves[ROOM];
    float value, scores[SCORES];
    char text[200];
} desk;

static int set_up(void **state)
{
    (void)state;
    memset(&desk, 0, sizeof desk);
    desk.act = (Gantry__ActReply) GANTRY__ACT_REPLY__INIT;
    desk.score = (Gantry__ScoreReply) GANTRY__SCORE_REPLY__INIT;
    desk.episode.action_dims = DIMS;
    desk.episode.lease.policy_version = desk.act.policy_version = 7;
    desk.episode.lease.prm_version = desk.score.prm_version = 8;
    for (uint32_t i = 0; i < ARRAY_SIZE(desk.tokens); i++) {
        desk.tokens[i] = 100 + i;
        desk.logp[i] = -(float)i;
    }
    for (size_t i = 0; i < ARRAY_SIZE(desk.action); i++)
        desk.action[i] = (float)i;
    desk.act.chunk = C;
    desk.act.tokens = desk.tokens;
    desk.act.logp = desk.logp;
    desk.act.n_tokens = desk.act.n_logp = C * TOKENS;
    desk.act.action = desk.action;
    desk.act.n_action = C * DIMS;
    desk.act.hidden = desk.hidden;
    desk.act.n_hidden = ARRAY_SIZE(desk.hidden);
    desk.act.value = .5f;
    desk.act.confidence = .25f;
    desk.score.progress = desk.progress;
    desk.score.n_progress = SCORES;
    desk.progress[1] = .5f;
    desk.progress[2] = 1;
    return 0;
}

static enum player_answer act(void)
{
    desk.message.body = &desk.act.base;
    return act_answer(0, &desk.message, &desk.episode, desk.moves, ROOM, desk.text, sizeof desk.text);
}

static void expect_bad_act(const char *why)
{
    assert_int_equal(act(), PLAYER_BAD_ANSWER);
    if (!strstr(desk.text, why))
        fail_msg("\"%s\" instead of \"%s\"", desk.text, why);
    (void)set_up(NULL);
}

static void test_moves(void **state)
{
    (void)state;
    assert_int_equal(act(), PLAYER_OK);
    for (uint32_t i = 0; i < C; i++) {
        const struct move *move = &desk.moves[i];

        assert_int_equal(move->n_tokens, TOKENS);
        assert_memory_equal(move->tokens, desk.tokens + i * TOKENS, TOKENS * sizeof *move->tokens);
        assert_memory_equal(move->logp, desk.logp + i * TOKENS, TOKENS * sizeof *move->logp);
        assert_memory_equal(move->action, desk.action + i * DIMS, DIMS * sizeof *move->action);
        assert_true(move->value == .5f && move->confidence == .25f && move->version == 7);
        assert_int_equal(move->begins_turn, i == 0);
    }
    desk.act.chunk = 0;                                 /* 1 */
    desk.act.n_tokens = desk.act.n_logp = TOKENS;
    desk.act.n_action = DIMS;
    assert_int_equal(act(), PLAYER_OK);
    desk.act.chunk = ROOM;
    desk.act.n_tokens = desk.act.n_logp = ROOM * TOKENS;
    desk.act.n_action = ROOM * DIMS;
    assert_int_equal(act(), PLAYER_OK);
}

static void test_acts_that_are_not_believed(void **state)
{
    (void)state;
    desk.act.policy_version = 6;
    expect_bad_act("used version 6, the lease says 7");
    desk.act.chunk = ROOM + 1;
    desk.act.n_tokens = desk.act.n_logp = (ROOM + 1) * TOKENS;
    desk.act.n_action = (ROOM + 1) * DIMS;
    expect_bad_act("5 actions in one answer, 4 can be played");
    desk.act.chunk = UINT32_MAX;
    expect_bad_act("actions in one answer");
    desk.act.n_action--;
    expect_bad_act("13 dimensions");
    desk.act.n_logp--;
    expect_bad_act("not equally many");
    desk.act.n_tokens = desk.act.n_logp = C * TOKENS - 1;
    expect_bad_act("not equally many");
    desk.act.n_tokens = desk.act.n_logp = 0;
    expect_bad_act("not equally many");
    desk.action[C * DIMS - 1] = NAN;
    expect_bad_act("the action is not finite");
    desk.logp[0] = -INFINITY;
    expect_bad_act("is not finite");
    desk.hidden[2] = NAN;
    expect_bad_act("is not finite");
    desk.act.value = INFINITY;
    expect_bad_act("is not finite");
    desk.act.confidence = NAN;
    expect_bad_act("is not finite");
}

static enum player_answer value(void)
{
    desk.message.body = &desk.act.base;
    return value_answer(0, &desk.message, &desk.episode, &desk.value, desk.text, sizeof desk.text);
}

static void test_values(void **state)
{
    (void)state;
    assert_int_equal(value(), PLAYER_OK);
    assert_true(desk.value == .5f);
    desk.act.value = NAN;
    assert_int_equal(value(), PLAYER_BAD_ANSWER);
    desk.act.value = 1;
    desk.act.policy_version = 8;
    assert_int_equal(value(), PLAYER_BAD_ANSWER);
    assert_true(desk.value == .5f);
}

static enum player_answer score(void)
{
    desk.message.body = &desk.score.base;
    return score_answer(0, &desk.message, &desk.episode, desk.scores, SCORES, desk.text, sizeof desk.text);
}

static void test_scores(void **state)
{
    static const float wrong[] = {-.001f, 1.001f, NAN, INFINITY};

    (void)state;
    assert_int_equal(score(), PLAYER_OK);
    assert_memory_equal(desk.scores, desk.progress, sizeof desk.scores);
    desk.score.prm_version = 7;
    assert_int_equal(score(), PLAYER_BAD_ANSWER);
    desk.score.prm_version = 8;
    desk.score.n_progress--;
    assert_int_equal(score(), PLAYER_BAD_ANSWER);
    desk.score.n_progress++;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        desk.progress[2] = wrong[i];
        assert_int_equal(score(), PLAYER_BAD_ANSWER);
        assert_true(desk.scores[2] == 1);               /* untouched */
    }
}

/* What no answer means. */
static void test_no_answer(void **state)
{
    (void)state;
    assert_int_equal(act_answer(-ETIMEDOUT, NULL, &desk.episode, desk.moves, ROOM, desk.text, sizeof desk.text),
                     PLAYER_NO_ANSWER);
    assert_int_equal(value_answer(-ETIMEDOUT, NULL, &desk.episode, &desk.value, desk.text, sizeof desk.text), PLAYER_NO_ANSWER);
    assert_int_equal(score_answer(-ECONNRESET, NULL, &desk.episode, desk.scores, SCORES, desk.text, sizeof desk.text),
                     PLAYER_NO_ANSWER);
    assert_int_equal(act_chunk(-ETIMEDOUT, NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_moves, set_up),  cmocka_unit_test_setup(test_acts_that_are_not_believed, set_up),
        cmocka_unit_test_setup(test_values, set_up), cmocka_unit_test_setup(test_scores, set_up),
        cmocka_unit_test_setup(test_no_answer, set_up),
    };

    return cmocka_run_group_tests_name("answers", tests, NULL, NULL);
}
