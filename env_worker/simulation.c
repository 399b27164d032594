#include "env_worker/simulation.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/search.h"
#include "daemon/worker.h"
#include "image/tf_image.h"

enum { TASKS_MAX = 96 };          /* libero_90 */

struct simulation {
    struct loop *loop;
    struct worker *threads;
    unsigned n_threads;
    struct simulation_options options;
    struct frames_shape shape;          /* of an observation; constant after simulation_new */
    unsigned in_hand;                   /* loop thread: submitted, not come back */

    const struct sim_task_info *infos;  /* constant after simulation_new: the loop's thread reads it too */
    int n_infos;

    /* the sim threads'; under `lock` but for what is each slot's or each thread's own */
    pthread_mutex_t lock;
    atomic_uint threads_begun;
    struct sim_suite *suite;
    struct sim_renderer *renderer;
    struct sim_task *tasks[TASKS_MAX];  /* opened when first played */
    struct sim_slot **slots;            /* (slots + n_threads, n_infos): behind the slots', each thread's, for candidates */
    uint8_t *drawn, *row;               /* (render, render, 3), (render, 3): what a chain begins with; NULL: pictures as drawn */
    int *playing;                       /* (slots + n_threads): index of the task that the row was last used for, -1 none */
};

/* ---- in the sim threads ------------------------------------------------------------------------------- */

static int find_task(const struct simulation *s, const char *name)
{
    int i;

    for (i = 0; i < s->n_infos; i++)
        if (strcmp(s->infos[i].name, name) == 0)
            return i;
    return -ENOENT;
}

static int fail(struct sim_job *job, int result, const char *what)
{
    snprintf(job->text, sizeof(job->text), "%s: %s", what, strerror(-result));
    return result;
}

/* The same of a slot whose simulator may have said why. */
static int slot_fail(struct sim_job *job, const struct sim_slot *slot, int result, const char *what)
{
    if (!sim_reason(slot)[0])
        return fail(job, result, what);
    snprintf(job->text, sizeof(job->text), "%.*s", (int)sizeof(job->text) - 1, sim_reason(slot));
    return result;
}

/* The slot's state object for a task: one each, made on first use. row >= slots: a thread's for candidates. */
static int slot_of(struct simulation *s, unsigned row, int task, struct sim_slot **ret, struct sim_job *job)
{
    struct sim_slot **place = &s->slots[row * (unsigned)s->n_infos + (unsigned)task];
    struct error error;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    if (!s->tasks[task])
        r = sim_task_open(s->suite, s->infos[task].name, &s->tasks[task], &error);
    pthread_mutex_unlock(&s->lock);
    if (r < 0) {
        snprintf(job->text, sizeof(job->text), "%.150s", error.text);
        return r;
    }
    if (!*place) {
        r = sim_slot_new(s->tasks[task], place);
        if (r < 0)
            return fail(job, r, "new slot");
    }
    if (s->playing[row] >= 0 && s->playing[row] != task)
        sim_slot_rest(s->slots[row * (unsigned)s->n_infos + (unsigned)s->playing[row]]);
    s->playing[row] = task;
    *ret = *place;
    return 0;
}

static bool is_plain(const struct simulation *s)
{
    return s->options.chain && !strcmp(s->options.chain, "plain");
}

/* Four pixels become one: edges are smooth without the renderer's own sampling, which costs as much as the scene. */
static int draw_plain(struct simulation *s, struct sim_slot *slot, int camera, uint8_t *ret_rgb)
{
    size_t image = (size_t)s->options.image, row = image * 2 * 3;
    int r = sim_render_camera(s->renderer, slot, camera, s->drawn);

    for (size_t y = 0; y < image && r == 0; y++)
        for (size_t x = 0; x < image * 3; x++) {
            const uint8_t *at = s->drawn + 2 * y * row + x / 3 * 6 + x % 3;

            ret_rgb[y * image * 3 + x] = (uint8_t)((at[0] + at[3] + at[row] + at[row + 3] + 2) / 4);
        }
    return r;
}

/* The evaluations begin with the camera's memory, bottom row first. */
static int draw_chain(struct simulation *s, struct sim_slot *slot, int camera, uint8_t *ret_rgb)
{
    int side = s->options.render, image = s->options.image, r;
    size_t row = (size_t)side * 3;

    r = sim_render_camera(s->renderer, slot, camera, s->drawn);
    if (r < 0)
        return r;
    for (int y = 0; y < side / 2; y++) {
        uint8_t *upper = s->drawn + (size_t)y * row, *lower = s->drawn + (size_t)(side - 1 - y) * row;

        memcpy(s->row, upper, row);
        memcpy(upper, lower, row);
        memcpy(lower, s->row, row);
    }
    return tf_evaluation_picture(s->drawn, side, side, image, image, ret_rgb);
}

static int draw(struct simulation *s, struct sim_slot *slot, struct sim_job *job)
{
    uint8_t *rgb = frames_at(job->frames, job->frame);
    int r = 0;

    for (int camera = 0; camera < (int)s->shape.cameras && r == 0; camera++, rgb += frames_picture_size(&s->shape)) {
        if (!s->drawn) {
            r = sim_render_camera(s->renderer, slot, camera, rgb);
            continue;
        }
        pthread_mutex_lock(&s->lock);
        r = is_plain(s) ? draw_plain(s, slot, camera, rgb) : draw_chain(s, slot, camera, rgb);
        pthread_mutex_unlock(&s->lock);
    }
    if (r < 0)
        return fail(job, r, "render");
    job->drawn = true;
    return 0;
}

/* What the policy is shown: a picture of each camera, and the robot's own numbers. */
static int observe(struct simulation *s, struct sim_slot *slot, struct sim_job *job)
{
    int r = s->shape.state ? sim_proprio(slot, frames_state(job->frames, job->row)) : 0;

    if (r < 0)
        return fail(job, r, "the robot's state");
    return job->between_turns && !job->success ? 0 : draw(s, slot, job);
}

static int run_reset(struct simulation *s, struct sim_job *job)
{
    int task = find_task(s, job->task), r;
    struct sim_slot *slot;
    const char *text;
    char place[48];

    if (task < 0)
        return fail(job, task, job->task);
    snprintf(place, sizeof(place), "sim.reset.%llu", (unsigned long long)job->seed);
    (void)fault_point(place);
    r = slot_of(s, job->slot, task, &slot, job);
    if (r < 0)
        return r;
    r = sim_reset(slot, job->split, job->seed, &text);
    if (r < 0)
        return slot_fail(job, slot, r, "reset");
    snprintf(job->instruction, sizeof(job->instruction), "%s", text);
    return observe(s, slot, job);
}

static int run_step(struct simulation *s, struct sim_job *job, struct sim_slot *slot)
{
    int r;

    if (job->perturb[0]) {
        r = sim_perturb(slot, job->perturb, job->perturb_seed, job->step, job->limit);
        if (r < 0)
            return fail(job, r, job->perturb);
        job->perturbed = r > 0;
    }
    if (job->kind == SIM_JOB_DEMONSTRATE) {
        r = sim_demonstrate(slot, job->style, job->seed, job->step, job->action, job->label);
        if (r < 0)
            return slot_fail(job, slot, r, "demonstrate");
    }
    r = sim_step(slot, job->action, &job->success);
    if (r < 0)
        return slot_fail(job, slot, r, "step");
    job->reward = sim_reward(slot);
    return observe(s, slot, job);
}

static int run_save(struct sim_job *job, struct sim_slot *slot, struct sim_task *task)
{
    int r;

    job->state_size = sim_state_size(task);
    job->state = malloc(MAX(job->state_size, 1));
    if (!job->state)
        return fail(job, -ENOMEM, "save");
    r = sim_save(slot, job->state);
    return r < 0 ? slot_fail(job, slot, r, "save") : 0;
}

/* 0 to n_threads - 1: which of the sim threads this is. */
static unsigned this_thread(struct simulation *s)
{
    static _Thread_local unsigned number;       /* 0: not asked yet */

    if (number == 0)
        number = atomic_fetch_add(&s->threads_begun, 1) + 1;
    return number - 1;
}

static int run_candidate(struct simulation *s, struct sim_job *job, int task)
{
    struct sim_slot *scratch;
    int r = slot_of(s, s->options.slots + this_thread(s), task, &scratch, job);

    if (r < 0)
        return r;
    r = sim_restore(scratch, job->state);
    if (r < 0)
        return slot_fail(job, scratch, r, "restore");
    r = run_step(s, job, scratch);
    if (r < 0)
        return r;
    r = sim_save(scratch, job->state);
    return r < 0 ? slot_fail(job, scratch, r, "save") : 0;
}

static int run_job(struct simulation *s, struct sim_job *job)
{
    int task;
    struct sim_slot *slot;

    if (job->kind == SIM_JOB_RESET)
        return run_reset(s, job);
    task = s->playing[job->slot];
    if (task < 0)
        return fail(job, -EINVAL, "the slot was never reset");
    slot = s->slots[job->slot * (unsigned)s->n_infos + (unsigned)task];
    switch (job->kind) {
    case SIM_JOB_SAVE:
        return run_save(job, slot, s->tasks[task]);
    case SIM_JOB_CANDIDATE:
        return run_candidate(s, job, task);
    default:
        return run_step(s, job, slot);
    }
}

static void came_back(void *arg)
{
    struct sim_job *job = arg;

    job->simulation->in_hand--;
    job->done(job);
}

static void work(void *arg)
{
    struct sim_job *job = arg;
    uint64_t cpu = clock_cpu_ns(), wall = clock_mono_ns();

    job->result = run_job(job->simulation, job);
    job->us = (clock_cpu_ns() - cpu) / 1000;
    job->wall_us = (clock_mono_ns() - wall) / 1000;
    if (loop_post(job->simulation->loop, came_back, job) < 0)
        abort();        /* out of memory for one queue node: nothing can be told to anyone any more */
}

/* What the loop's thread has done in a sim thread, and waits for. */
struct errand {
    struct simulation *simulation;
    struct error *error;
    int result;
    sem_t finished;
};

/* All tasks of a suite have the same cameras and the same robot. */
static int open_shape(struct simulation *s, struct error *error)
{
    const struct sim_task_info *info = &s->infos[0];
    const int cameras = MAX(s->options.cameras, 1);

    if (cameras > info->cameras)
        return error_set(error, EINVAL, "suite.cameras: %d were asked for, suite %s has %d", cameras, s->options.suite,
                         info->cameras);
    if (s->options.state && !info->proprio)
        return error_set(error, EINVAL, "suite.state: suite %s says nothing of the robot's state", s->options.suite);
    s->shape = (struct frames_shape) { .height = (uint32_t)s->options.image, .width = (uint32_t)s->options.image,
                                       .cameras = (uint32_t)cameras, .state = s->options.state ? (uint32_t)info->proprio : 0 };
    return 0;
}

static int open_chain(struct simulation *s, struct error *error)
{
    size_t side;

    if (!s->options.chain || !strcmp(s->options.chain, "render"))
        return 0;
    if (is_plain(s))
        s->options.render = 2 * s->options.image;
    side = (size_t)MAX(s->options.render, 0);
    if ((!is_plain(s) && strcmp(s->options.chain, TF_EVALUATION_CHAIN) != 0) || side < 1)
        return error_set(error, EINVAL, "suite.chain %s from %d pixels: there is no such chain of pictures", s->options.chain,
                         s->options.render);
    s->drawn = malloc(side * side * 3);
    s->row = malloc(side * 3);
    return s->drawn && s->row ? 0 : error_set(error, ENOMEM, "simulation: out of memory");
}

static void open_here(void *arg)
{
    struct errand *errand = arg;
    struct simulation *s = errand->simulation;
    int r;

    r = open_chain(s, errand->error);
    if (r == 0) {
        int side = s->drawn ? s->options.render : s->options.image;

        r = sim_renderer_open(sim_suite_device(s->suite, s->options.device), side, side, &s->renderer, errand->error);
    }
    if (r == 0)
        sim_renderer_set_plain(s->renderer, is_plain(s));
    if (r == 0)         /* each slot may be at another task */
        sim_renderer_keep(s->renderer, MAX(SIM_RENDERER_TASKS, (int)s->options.slots + 4));
    if (r == 0)
        r = open_shape(s, errand->error);
    if (r == 0) {
        s->slots = calloc((s->options.slots + s->n_threads) * (size_t)s->n_infos, sizeof(*s->slots));
        s->playing = malloc((s->options.slots + s->n_threads) * sizeof(*s->playing));
        if (!s->slots || !s->playing)
            r = error_set(errand->error, ENOMEM, "simulation: out of memory");
        else
            memset(s->playing, 0xff, (s->options.slots + s->n_threads) * sizeof(*s->playing));
    }
    errand->result = r;
    sem_post(&errand->finished);
}

static void close_here(void *arg)
{
    struct errand *errand = arg;
    struct simulation *s = errand->simulation;
    size_t i, n = s->slots ? (s->options.slots + s->n_threads) * (size_t)s->n_infos : 0;

    for (i = 0; i < n; i++)
        sim_slot_free(s->slots[i]);
    for (i = 0; i < ARRAY_SIZE(s->tasks); i++)
        sim_task_close(s->tasks[i]);
    sim_renderer_close(s->renderer);
    free(s->slots);
    free(s->playing);
    free(s->drawn);
    free(s->row);
    sem_post(&errand->finished);
}

/* ---- on the loop's thread ------------------------------------------------------------------------------- */

static int open_suite(struct simulation *s, struct error *error)
{
    const struct sim_options options = { .robosuite = s->options.robosuite, .substeps = s->options.substeps,
                                         .remote = s->options.remote };
    int r = sim_suite_open(s->options.suite, &options, &s->suite, error);

    if (r < 0)
        return r;
    s->n_infos = sim_suite_tasks(s->suite, &s->infos);
    if (s->n_infos < 1 || s->n_infos > TASKS_MAX)
        return error_set(error, EINVAL, "suite %s: %d tasks, of 1 to %d", s->options.suite, s->n_infos, TASKS_MAX);
    return 0;
}

static int run_errand(worker_fn *fn, struct simulation *s, struct error *error)
{
    struct errand errand = { .simulation = s, .error = error };
    int r;

    sem_init(&errand.finished, 0, 0);
    r = worker_submit(s->threads, fn, &errand);
    while (r == 0 && sem_wait(&errand.finished) < 0)
        ;
    sem_destroy(&errand.finished);
    return r < 0 ? r : errand.result;
}

int simulation_new(struct loop *loop, const struct simulation_options *options, struct simulation **ret, struct error *error)
{
    _cleanup_(simulation_freep) struct simulation *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set(error, ENOMEM, "simulation: out of memory");
    pthread_mutex_init(&s->lock, NULL);
    s->loop = loop;
    s->options = *options;
    r = open_suite(s, error);
    if (r < 0)
        return r;
    s->n_threads = sim_suite_device(s->suite, -1) == SIM_DEVICE_NONE ? s->options.slots : 1;
    /* each look-ahead candidate of each slot has one job at a time, and the slot a step and a picture */
    r = worker_new("sim", s->n_threads, s->options.slots * (SEARCH_N_MAX + 2), &s->threads);
    if (r < 0)
        return error_set(error, -r, "simulation: cannot start its threads");
    r = run_errand(open_here, s, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

struct simulation *simulation_free(struct simulation *s)
{
    if (!s)
        return NULL;
    while (s->in_hand > 0)
        loop_turn(s->loop, true);
    if (s->threads)
        (void)run_errand(close_here, s, NULL);
    sim_suite_close(s->suite);
    s->threads = worker_free(s->threads);   /* last: a process that a thread has started is killed when the thread ends */
    pthread_mutex_destroy(&s->lock);
    free(s);
    return NULL;
}

bool simulation_renders_in_software(const struct simulation *s)
{
    return sim_renderer_is_software(s->renderer);
}

const char *simulation_renderer(const struct simulation *s)
{
    return sim_renderer_name(s->renderer);
}

const struct frames_shape *simulation_shape(const struct simulation *s)
{
    return &s->shape;
}

int simulation_action_dims(const struct simulation *s)
{
    return s->infos[0].action_dims;
}

int simulation_max_steps(const struct simulation *s, const char *task)
{
    int i = find_task(s, task);

    return i < 0 ? i : s->infos[i].max_steps;
}

struct sim_job *sim_job_new(enum sim_job_kind kind, unsigned slot, uint64_t ticket, void (*done)(struct sim_job *), void *owner)
{
    struct sim_job *job = calloc(1, sizeof(*job));

    if (job)
        *job = (struct sim_job) { .kind = kind, .slot = slot, .ticket = ticket, .done = done, .owner = owner };
    return job;
}

struct sim_job *sim_job_free(struct sim_job *job)
{
    if (job)
        frames_unref(job->frames);
    free(job);
    return NULL;
}

void simulation_submit(struct simulation *s, struct sim_job *job)
{
    int r;

    job->simulation = s;
    s->in_hand++;
    r = worker_submit(s->threads, work, job);
    if (r == 0)
        return;
    job->result = fail(job, r, "the sim thread's queue");
    if (loop_post(s->loop, came_back, job) < 0)
        abort();
}
