/* The env worker's simulator on a LIBERO task: observations of two cameras and the robot's state, names of LIBERO's length, and
 * look-ahead that leaves the real state as it was. Skips without LIBERO's files. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "env_worker/simulation.h"

enum { SIDE = 32, STEPS = 4, CANDIDATES = 3 };
static const char *const task = "pick_up_the_black_bowl_between_the_plate_and_the_ramekin_and_place_it_on_the_plate";

static struct loop *loop;
static struct simulation *simulation;
static struct frames *frames;
static char missing[300];

static int start(void **state)
{
    struct error error = {0};

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    if (simulation_new(loop,
                       &(struct simulation_options){.suite = "libero_spatial",
                                                    .image = SIDE,
                                                    .chain = "render",
                                                    .device = -1,
                                                    .slots = 1,
                                                    .cameras = 2,
                                                    .state = true},
                       &simulation, &error) < 0)
        snprintf(missing, sizeof(missing), "%s", error.text);
    else
        assert_int_equal(frames_renew(&frames, STEPS + CANDIDATES + 1, simulation_shape(simulation)), 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    simulation_free(simulation);
    frames_unref(frames);
    loop_free(loop);
    return 0;
}

static void need_files(void)
{
    if (missing[0]) {
        printf("skipped: %s\n", missing);
        skip();
    }
}

static bool came_back;

static void done(struct sim_job *job)
{
    (void)job;
    came_back = true;
}

static struct sim_job *new_job(enum sim_job_kind kind, uint32_t frame)
{
    struct sim_job *job = sim_job_new(kind, 0, 0, done, NULL);

    assert_non_null(job);
    snprintf(job->task, sizeof(job->task), "%s", task);
    snprintf(job->style, sizeof(job->style), "clean");
    job->split = SIM_TEST;
    job->frames = frames_ref(frames);
    job->frame = job->row = frame;
    return job;
}

static void run(struct sim_job *job)
{
    came_back = false;
    simulation_submit(simulation, job);
    while (!came_back)
        loop_turn(loop, true);
    if (job->result < 0)
        fail_msg("%s", job->text);
}

/* An episode that cannot be played is refused; the worker lives. */
static void test_refusals(void **state)
{
    struct sim_job *job;

    (void)state;
    need_files();
    job = new_job(SIM_JOB_RESET, 0);
    snprintf(job->task, sizeof(job->task), "dance");
    came_back = false;
    simulation_submit(simulation, job);
    while (!came_back)
        loop_turn(loop, true);
    assert_int_equal(job->result, -ENOENT);
    sim_job_free(job);
    job = new_job(SIM_JOB_RESET, 0);
    run(job);
    sim_job_free(job);
    job = new_job(SIM_JOB_STEP, 1);
    job->action[2] = NAN;
    came_back = false;
    simulation_submit(simulation, job);
    while (!came_back)
        loop_turn(loop, true);
    assert_int_equal(job->result, -EINVAL);
    sim_job_free(job);
    job = new_job(SIM_JOB_STEP, 1);
    run(job);
    sim_job_free(job);
}

static void test_observations(void **state)
{
    const struct frames_shape *shape;
    struct sim_job *job;
    const uint8_t *wrist;

    (void)state;
    need_files();
    shape = simulation_shape(simulation);
    assert_int_equal(shape->cameras, 2);
    assert_int_equal(shape->state, 8);
    job = new_job(SIM_JOB_RESET, 0);
    run(job);
    assert_string_equal(job->instruction, "pick up the black bowl between the plate and the ramekin and place it on the plate");
    sim_job_free(job);
    for (uint32_t t = 1; t <= STEPS; t++) {
        job = new_job(SIM_JOB_DEMONSTRATE, t);
        job->step = (int)t - 1;
        run(job);
        assert_false(job->success);
        sim_job_free(job);
    }
    wrist = frames_at(frames, 0) + frames_picture_size(shape);
    assert_memory_not_equal(frames_at(frames, 0), wrist, frames_picture_size(shape)); /* two cameras */
    assert_memory_not_equal(frames_at(frames, 0), frames_at(frames, STEPS), frames_picture_size(shape));
    assert_true(frames_state(frames, 0)[2] > 1 && frames_state(frames, 0)[2] < 1.3f); /* the hand's height, m */
    assert_memory_not_equal(frames_state(frames, 0), frames_state(frames, STEPS), 8 * sizeof(float));
}

/* Candidates are played from the saved state in a slot of their own, each from where it stands; the real one does not move. */
static void test_lookahead_leaves_the_state(void **state)
{
    struct sim_job *job;
    void *before, *after;
    size_t n;

    (void)state;
    need_files();
    job = new_job(SIM_JOB_SAVE, 0);
    run(job);
    before = job->state;
    n = job->state_size;
    sim_job_free(job);
    for (int c = 0; c < CANDIDATES; c++) {
        void *candidate = malloc(n);

        memcpy(candidate, before, n);
        for (int t = 0; t < 2; t++) {
            job = new_job(SIM_JOB_CANDIDATE, (uint32_t)(STEPS + 1 + c));
            job->state = candidate;
            job->state_size = n;
            job->action[c] = 1;
            run(job);
            sim_job_free(job);
        }
        assert_memory_not_equal(candidate, before, n);
        free(candidate);
    }
    for (int c = 1; c < CANDIDATES; c++)
        assert_memory_not_equal(frames_state(frames, STEPS + 1), frames_state(frames, (uint32_t)(STEPS + 1 + c)),
                                8 * sizeof(float));
    job = new_job(SIM_JOB_SAVE, 0);
    run(job);
    after = job->state;
    sim_job_free(job);
    assert_memory_equal(before, after, n);
    free(before);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_observations),
        cmocka_unit_test(test_lookahead_leaves_the_state),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
