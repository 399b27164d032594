/* What a slot records of an observation: every camera's picture and the robot's state, in the layout that messages say. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "env_worker/episode.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trajectory_holds_all_of_it),
        cmocka_unit_test(one_picture_is_borrowed_and_counted),
        cmocka_unit_test(copies_take_pictures_and_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
