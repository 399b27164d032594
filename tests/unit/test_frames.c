/* What a slot records of an episode: every camera's picture and the robot's state, what was done, and what was said of it, in the
 * layout that messages say. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "env_worker/episode.h"
#include "proto/policy.pb-c.h"
#include "sim/sim.h"

enum { SIDE = 4, PICTURE = SIDE * SIDE * 3, CAMERAS = 2, STATE = 3, STEPS = 2 };

static const struct frames_shape shape = {.height = SIDE, .width = SIDE, .cameras = CAMERAS, .state = STATE};

static void begin(struct episode *episode)
{
    Gantry__Lease lease = GANTRY__LEASE__INIT;
    const float action[SIM_ACTION_DIMS] = {0};

    lease.task = lease.style = lease.search_score = (char *)"";
    assert_int_equal(episode_begin(episode, &lease, 5, &shape, SIM_ACTION_DIMS), 0);
    for (uint32_t t = 0; t <= STEPS; t++) {
        for (uint32_t c = 0; c < CAMERAS; c++)
            memset(frames_at(episode->frames, t) + c * PICTURE, (int)(10 * t + c), PICTURE);
        for (uint32_t k = 0; k < STATE; k++)
            frames_state(episode->frames, t)[k] = (float)(100 * t + k);
    }
    for (int t = 0; t < STEPS; t++)
        assert_int_equal(episode_record(episode, &(struct episode_step){.tokens = (const uint32_t[]){1},
                                                                        .logp = (const float[]){0},
                                                                        .n_tokens = 1,
                                                                        .action = action,
                                                                        .begins_turn = true}),
                         0);
}

static void a_trajectory_holds_all_of_it(void **state)
{
    struct episode episode = {0};
    Gantry__Trajectory t;
    struct wire_part all;

    (void)state;
    begin(&episode);
    episode_trajectory(&episode, true, false, &t);
    assert_int_equal(t.images, CAMERAS);
    assert_int_equal(t.n_state, (STEPS + 1) * STATE);
    assert_true(t.state[2 * STATE + 1] == 201);
    all = frames_part(episode.frames, 0, t.steps + 1);
    assert_int_equal(all.size, (STEPS + 1) * CAMERAS * PICTURE);
    for (uint32_t i = 0; i <= STEPS; i++)
        for (uint32_t c = 0; c < CAMERAS; c++)
            assert_int_equal(((const uint8_t *)all.bytes)[(i * CAMERAS + c) * PICTURE + 5], 10 * i + c);
    all.release(all.arg);
    episode_release(&episode);
}

/* What the lease asked for, what was played, and how long it took: the learner and its journal know nothing else of an episode.
 * And nothing of it is left in the next one of the slot. */
static void a_trajectory_says_how_it_was_played(void **state)
{
    static const struct frames_shape wide = {.height = SIDE, .width = SIDE + 1, .cameras = 1};
    const float action[SIM_ACTION_DIMS] = {0};
    char task[16] = "reach", judge[16] = "prm", score[16] = "mean", perturb[16] = "push";
    Gantry__Lease lease = GANTRY__LEASE__INIT;
    struct episode e = {0};
    Gantry__Trajectory t;

    (void)state;
    lease.episode = 11, lease.fence = 12, lease.purpose = GANTRY__PURPOSE__PURPOSE_EVAL, lease.split = GANTRY__SPLIT__SPLIT_TEST;
    lease.state_seed = 13, lease.policy_version = 14, lease.prm_version = 15, lease.temperature = .5f, lease.search_n = 4;
    lease.task = task, lease.search_judge = judge, lease.search_score = score, lease.perturb = perturb, lease.draw_turns = true;
    assert_int_equal(episode_begin(&e, &lease, 5, &wide, SIM_ACTION_DIMS), 0);
    memset(task, 'x', 15), memset(judge, 'x', 15), memset(score, 'x', 15), memset(perturb, 'x', 15);     /* the message may go */
    assert_string_equal(e.lease.search_judge, "prm");
    assert_string_equal(e.lease.search_score, "mean");
    assert_false(e.lease.draw_turns);           /* look-ahead looks at every step */
    snprintf(e.instruction, sizeof e.instruction, "reach for it");
    for (int i = 0; i < STEPS; i++)
        assert_int_equal(episode_record(&e, &(struct episode_step) {
            .tokens = (const uint32_t[]) {7, 8}, .logp = (const float[]) {-1, -2}, .n_tokens = 2, .action = action,
            .reward = (float)i, .value = .25f, .version = 14, .begins_turn = true}), 0);
    e.sim_us = 21, e.act_us = 22, e.score_us = 23, e.state_digest = 24, e.policy_steps = 25, e.perturbed_at = 2;
    e.searches = 2, e.search_chosen = 3, e.search_all = 1;
    for (uint32_t i = 0; i <= STEPS; i++)
        episode_observed(&e, i);
    episode_set_progress(&e, (const uint32_t[]) {0, STEPS}, (const float[]) {.25f, .75f}, 2);
    episode_trajectory(&e, false, true, &t);
    assert_true(t.episode == 11 && t.fence == 12 && t.purpose == GANTRY__PURPOSE__PURPOSE_EVAL);
    assert_true(t.split == GANTRY__SPLIT__SPLIT_TEST && t.state_seed == 13 && t.policy_version == 14 && t.prm_version == 15);
    assert_true(t.temperature == .5f && t.search_n == 4 && t.max_steps == 5 && t.steps == STEPS && !t.success && t.timeout);
    assert_true(t.height == SIDE && t.width == SIDE + 1 && t.images == 1 && t.n_state == 0 && t.action_dims == SIM_ACTION_DIMS);
    assert_string_equal(t.task, "reach");
    assert_string_equal(t.instruction, "reach for it");
    assert_string_equal(t.perturb, "push");
    assert_true(t.perturbed_at == 2 && t.sim_us == 21 && t.act_us == 22 && t.score_us == 23 && t.state_digest == 24);
    assert_true(t.policy_steps == 25 && t.search_chosen == 1.5f && t.search_all == .5f);
    assert_true(t.n_tokens == 2 * STEPS && t.tokens[3] == 8 && t.n_logp == 2 * STEPS && t.logp[2] == -1);
    assert_true(t.n_value == STEPS && t.value[1] == .25f && t.n_step_version == STEPS && t.step_version[1] == 14);
    assert_true(t.n_env_reward == STEPS && t.env_reward[1] == 1 && t.n_label == 0 && t.n_turns == 0);
    assert_true(t.n_progress == STEPS + 1 && t.progress[0] == .25f && t.progress[1] == .5f && t.progress[2] == .75f);

    lease = (Gantry__Lease) GANTRY__LEASE__INIT;
    assert_int_equal(episode_begin(&e, &lease, 3, &wide, SIM_ACTION_DIMS), 0);
    episode_trajectory(&e, true, false, &t);
    assert_true(t.steps == 0 && t.n_tokens == 0 && t.n_env_reward == 0 && t.n_progress == 0);
    assert_int_equal(t.sim_us + t.act_us + t.score_us, 0);
    assert_true(t.perturbed_at == 0 && t.policy_steps == 0 && t.state_digest == 0 && t.search_chosen == 0 && t.search_all == 0);
    assert_string_equal(t.instruction, "");
    assert_string_equal(t.task, "");
    episode_release(&e);
}

static void one_picture_is_borrowed_and_counted(void **state)
{
    struct episode episode = {0};
    struct frames *before;
    struct wire_part part;

    (void)state;
    begin(&episode);
    part = frames_picture(episode.frames, 2, 1);
    assert_int_equal(part.size, PICTURE);
    assert_int_equal(*(const uint8_t *)part.bytes, 21);
    before = episode.frames;
    assert_int_equal(frames_renew(&episode.frames, 3, &shape), 0);
    assert_ptr_not_equal(episode.frames, before); /* somebody still sends it */
    assert_int_equal(*(const uint8_t *)part.bytes, 21);
    part.release(part.arg);
    before = episode.frames;
    assert_int_equal(frames_renew(&episode.frames, 3, &shape), 0);
    assert_ptr_equal(episode.frames, before);
    assert_int_equal(frames_renew(&episode.frames, 3, &(struct frames_shape){.height = SIDE, .width = SIDE, .cameras = 1}), 0);
    assert_int_equal(episode.frames->shape.cameras, 1);
    assert_null(frames_state(episode.frames, 0));
    episode_release(&episode);
}

static void copies_take_pictures_and_state(void **state)
{
    struct episode episode = {0};
    struct frames *copy = NULL;

    (void)state;
    begin(&episode);
    assert_int_equal(frames_renew(&copy, 2, &shape), 0);
    frames_copy(copy, 1, episode.frames, 2);
    assert_memory_equal(frames_at(copy, 1), frames_at(episode.frames, 2), CAMERAS * PICTURE);
    assert_true(frames_state(copy, 1)[2] == 202);
    frames_unref(copy);
    episode_release(&episode);
}

enum { LONG = 5, TOKENS = 2, WIDTH = 3 };

/* Step t of an episode whose every number says which it is; `hidden` numbers of a hidden state. */
static int note(struct episode *e, uint32_t t, uint32_t n_tokens, size_t hidden)
{
    const uint32_t tokens[] = {100 * t, 100 * t + 1, 100 * t + 2};
    const float logp[] = {-(float)t, -(float)t - .5f, 0};
    float action[SIM_ACTION_DIMS], label[SIM_ACTION_DIMS], state[WIDTH + 1];
    Gantry__ActReply act = GANTRY__ACT_REPLY__INIT;

    for (int k = 0; k < SIM_ACTION_DIMS; k++) {
        action[k] = (float)(10 * t) + (float)k;
        label[k] = -action[k] - 1;
    }
    for (int k = 0; k <= WIDTH; k++)
        state[k] = (float)(1000 * t) + (float)k;
    act.hidden = state;
    act.n_hidden = hidden;
    if (t % 2 == 0)                 /* each answer plays two steps */
        assert_int_equal(episode_note_hidden(e, &act), 0);
    return episode_record(e, &(struct episode_step) {.tokens = tokens, .logp = logp, .n_tokens = n_tokens, .action = action,
                                                     .label = label, .value = (float)t + .25f, .version = 7,
                                                     .begins_turn = t % 2 == 0});
}

static void start(struct episode *e, const char *style)
{
    Gantry__Lease lease = GANTRY__LEASE__INIT;
    char task[] = "reach", how[16];

    snprintf(how, sizeof how, "%s", style);
    lease.task = task;
    lease.style = how;
    lease.search_score = (char *)"";
    lease.score_every = 2;
    lease.episode = 10;
    lease.fence = 11;
    lease.state_seed = 12;
    lease.policy_version = 13;
    lease.prm_version = 14;
    lease.search_n = 15;
    lease.temperature = .75f;
    lease.purpose = GANTRY__PURPOSE__PURPOSE_TRAIN;
    lease.split = GANTRY__SPLIT__SPLIT_VAL;
    assert_int_equal(episode_begin(e, &lease, LONG, &shape, SIM_ACTION_DIMS), 0);
    memset(task, 'x', sizeof task - 1);             /* the message that the lease came in goes */
    memset(how, 'x', sizeof how - 1);
    assert_string_equal(e->lease.task, "reach");
    assert_string_equal(e->lease.style, style);
    episode_observed(e, 0);
}

/* note() of a step whose observation is drawn. */
static int note_drawn(struct episode *e, uint32_t t, uint32_t n_tokens, size_t hidden)
{
    int r = note(e, t, n_tokens, hidden);

    if (r == 0)
        episode_observed(e, t + 1);
    return r;
}

static void every_step_as_it_was(void **state)
{
    struct episode e = {0};
    Gantry__Trajectory t;
    const float scores[] = {0, .5f, 1, .25f};
    uint32_t at[LONG + 1];

    (void)state;
    for (int life = 0; life < 2; life++) {          /* a slot's next episode begins anew */
        start(&e, "");
        for (uint32_t i = 0; i < LONG; i++)
            assert_int_equal(note_drawn(&e, i, TOKENS, WIDTH), 0);
        assert_int_equal(note(&e, LONG, TOKENS, 0), -EBADMSG);          /* no more than was leased */
        assert_int_equal(episode_score_at(&e, at), 4);
        assert_memory_equal(at, ((uint32_t[]) {0, 2, 4, 5}), 4 * sizeof *at);
        episode_trajectory(&e, false, true, &t);
        assert_true(!t.success && t.timeout && t.n_progress == 0);
        episode_set_progress(&e, at, scores, 4);
        episode_trajectory(&e, true, false, &t);
        assert_true(t.success && !t.timeout && t.steps == LONG && t.max_steps == LONG);
        assert_true(t.episode == 10 && t.fence == 11 && t.state_seed == 12 && t.policy_version == 13 && t.prm_version == 14);
        assert_true(t.search_n == 15 && t.temperature == .75f && t.action_dims == SIM_ACTION_DIMS);
        assert_true(t.purpose == GANTRY__PURPOSE__PURPOSE_TRAIN && t.split == GANTRY__SPLIT__SPLIT_VAL);
        assert_string_equal(t.task, "reach");
        assert_true(t.n_action == LONG * SIM_ACTION_DIMS && t.n_tokens == LONG * TOKENS && t.n_logp == LONG * TOKENS);
        assert_true(t.n_value == LONG && t.n_hidden == 0 && t.n_turn_hidden == 3 * WIDTH);
        assert_true(t.n_turns == 3 && t.n_label == 0 && t.n_observed == 0);
        for (uint32_t i = 0; i < LONG; i++) {
            assert_true(t.action[i * SIM_ACTION_DIMS + 3] == (float)(10 * i + 3));
            assert_int_equal(t.tokens[i * TOKENS + 1], 100 * i + 1);
            assert_true(t.logp[i * TOKENS + 1] == -(float)i - .5f && t.value[i] == (float)i + .25f);
            assert_true(t.turn_hidden[i / 2 * WIDTH + 2] == (float)(1000 * (i - i % 2) + 2) && t.step_version[i] == 7);
        }
        assert_memory_equal(t.turns, ((uint32_t[]) {0, 2, 4}), 3 * sizeof *t.turns);
        assert_memory_equal(t.progress, ((float[]) {0, .25f, .5f, .75f, 1, .25f}), (LONG + 1) * sizeof *t.progress);
    }
    episode_release(&e);
}

/* What imitation learns from is the label, not what was executed; a demonstrator has no tokens. */
static void a_demonstration_has_labels(void **state)
{
    struct episode e = {0};
    Gantry__Trajectory t;

    (void)state;
    start(&e, "clean");
    for (uint32_t i = 0; i < LONG; i++)
        assert_int_equal(note_drawn(&e, i, TOKENS, WIDTH), 0);
    episode_trajectory(&e, true, false, &t);
    assert_true(t.n_label == t.n_action && t.n_tokens == 0 && t.n_logp == 0 && t.n_value == 0 && t.n_hidden == 0 &&
                t.n_turn_hidden == 0);
    for (size_t i = 0; i < t.n_label; i++)
        assert_true(t.label[i] == -t.action[i] - 1);
    episode_release(&e);
}

/* Where the policy is asked at every second step and nobody looks in between: its pictures are the block's first four. */
static void what_nobody_looks_at_has_no_picture(void **state)
{
    struct episode e = {0};
    Gantry__Trajectory t;
    const float scores[] = {0, .5f, 1};
    uint32_t at[LONG + 1];
    float *actions;

    (void)state;
    for (uint32_t every = 1; every <= 3; every++) {
        start(&e, "");
        e.lease.score_every = every;
        for (uint32_t i = 0; i < LONG; i++)
            assert_int_equal((i % 2 == 1 || i + 1 == LONG ? note_drawn : note)(&e, i, TOKENS, WIDTH), 0);
        episode_trajectory(&e, true, false, &t);
        assert_int_equal(t.n_observed, 4);
        assert_memory_equal(t.observed, ((uint32_t[]) {0, 2, 4, 5}), 4 * sizeof *t.observed);
        if (every < 3) {
            assert_int_equal(episode_score_at(&e, at), 4);
            assert_memory_equal(at, ((uint32_t[]) {0, 1, 2, 3}), 4 * sizeof *at);
        } else {
            assert_int_equal(episode_score_at(&e, at), 3);
            assert_memory_equal(at, ((uint32_t[]) {0, 2, 3}), 3 * sizeof *at);
        }
    }
    episode_set_progress(&e, at, scores, 3);
    episode_trajectory(&e, true, false, &t);
    assert_memory_equal(t.progress, ((float[]) {0, .125f, .25f, .375f, .5f, 1}), (LONG + 1) * sizeof *t.progress);
    actions = episode_observed_actions(&e);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(actions[i * SIM_ACTION_DIMS + 3] == (float)(10 * t.observed[i] + 3));
    free(actions);
    episode_release(&e);
}

/* A step without a hidden state, or with another width: the trajectory goes without. Another number of tokens is refused. */
static void what_does_not_fit_together(void **state)
{
    struct episode e = {0};
    Gantry__Trajectory t;

    (void)state;
    for (size_t other = 0; other <= WIDTH + 1; other += WIDTH + 1) {
        start(&e, "");
        for (uint32_t i = 0; i < LONG; i++)
            assert_int_equal(note_drawn(&e, i, TOKENS, i == 2 ? other : WIDTH), 0);
        episode_trajectory(&e, true, false, &t);
        assert_int_equal(t.n_hidden + t.n_turn_hidden, 0);
    }
    start(&e, "");
    assert_int_equal(note(&e, 0, TOKENS, WIDTH), 0);
    assert_int_equal(note(&e, 1, TOKENS + 1, WIDTH), -EBADMSG);
    episode_release(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trajectory_says_how_it_was_played), cmocka_unit_test(a_trajectory_holds_all_of_it),
        cmocka_unit_test(one_picture_is_borrowed_and_counted),
        cmocka_unit_test(copies_take_pictures_and_state),
        cmocka_unit_test(every_step_as_it_was),
        cmocka_unit_test(a_demonstration_has_labels),
        cmocka_unit_test(what_nobody_looks_at_has_no_picture),
        cmocka_unit_test(what_does_not_fit_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
