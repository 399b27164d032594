/* simulation.h - the worker's simulator: the thread that steps the slots and draws their pictures.
 *
 *   simulation_new -> simulation_submit(job) -> ... job->done(job) on the loop's thread ... -> simulation_free
 *
 * Slots are not renderers and one thread serves them all: it owns the OpenGL context, and a step with its picture
 * takes about .4 ms, so 8 slots are never more than 3 ms behind; more cores are used by more worker processes
 * (measured: docs/performance.md). A suite that is played in processes of its own (`remote`) has a thread for each slot, which
 * waits for them. A slot's jobs run in the order submitted. A job always comes back, also after its slot gave up on it; the owner
 * frees it in done.
 *
 * Thread rule: new, submit, free on the loop's thread. Failure rule: job->result < 0 with job->text. */
#pragma once

#include "base/episode.h"
#include "daemon/loop.h"
#include "env_worker/frames.h"
#include "sim/sim.h"

enum sim_job_kind {
    SIM_JOB_RESET,              /* task, split, seed -> instruction, frame */
    SIM_JOB_STEP,               /* action -> success, frame */
    SIM_JOB_DEMONSTRATE,        /* style, seed, step -> action, label, success, frame */
    SIM_JOB_SAVE,               /* -> state (allocated here, the owner's to free), state_size */
    SIM_JOB_CANDIDATE,          /* state, action -> state (the one after), frame. The slot itself is not touched. */
};

struct sim_job {
    enum sim_job_kind kind;
    unsigned slot;
    uint64_t ticket;            /* the owner's */
    void (*done)(struct sim_job *job);
    void *owner;

    char task[EPISODE_TASK_MAX];
    char style[16];
    enum sim_split split;
    uint64_t seed;
    int step;
    struct frames *frames;      /* a reference of its own, dropped by sim_job_free */
    uint32_t frame, row;        /* where the observation goes: its pictures, its state */
    bool between_turns;         /* STEP: nobody will be asked about what comes of it: unless it ends the episode (success) there is
                                 * no picture */
    bool drawn;                 /* there is one */
    void *state;                /* SAVE, CANDIDATE; belongs to the owner */
    size_t state_size;
    unsigned candidate;

    char perturb[16];           /* STEP, DEMONSTRATE: what the world may do before the step; "": nothing */
    uint64_t perturb_seed;
    int limit;                  /* the episode's, in steps */
    bool perturbed;             /* it did */

    float action[SIM_ACTION_MAX], label[SIM_ACTION_MAX];       /* simulation_action_dims of them */
    bool success;
    float reward;               /* STEP, DEMONSTRATE: the environment's own; NaN: it says none */
    int result;                 /* 0, or -errno: -EIO the simulator broke */
    char text[160];
    char instruction[128];
    uint64_t us, wall_us;       /* CPU time and time it took */

    struct simulation *simulation;
};

struct simulation_options {
    const char *suite;
    int image;                  /* pixels, square */
    const char *chain;          /* how pictures are made: "render", "plain", or TF_EVALUATION_CHAIN (image/tf_image.h) from ... */
    int render;                 /* ... a picture of so many pixels, square */
    const char *robosuite;      /* libero suites: "1.4.0" or "1.4.1" */
    enum sim_substeps substeps;
    const char *remote;         /* suite remote: what sim_options.remote says */
    int device;                 /* as in sim_renderer_open */
    int cameras;                /* pictures of one observation; 0: 1 */
    bool state;                 /* observations carry the robot's own numbers */
    unsigned slots;
};

/* Opens the suite, and the renderer in its thread, so that the context lives there.
 * *error: what is missing (suite, EGL). */
int simulation_new(struct loop *loop, const struct simulation_options *options, struct simulation **ret, struct error *error);
/* Waits for the jobs in hand and brings all of them back before it returns. */
struct simulation *simulation_free(struct simulation *simulation);
DEFINE_FREEP(struct simulation, simulation_free)

const char *simulation_renderer(const struct simulation *simulation);
bool simulation_renders_in_software(const struct simulation *simulation);       /* on this CPU, whatever was asked for */
const struct frames_shape *simulation_shape(const struct simulation *simulation);       /* of one observation */
int simulation_action_dims(const struct simulation *simulation);       /* numbers of an action, the same for all tasks */
/* The suite's step limit for a task; -ENOENT: no such task. */
int simulation_max_steps(const struct simulation *simulation, const char *task);

struct sim_job *sim_job_new(enum sim_job_kind kind, unsigned slot, uint64_t ticket, void (*done)(struct sim_job *), void *owner);
struct sim_job *sim_job_free(struct sim_job *job);
/* Takes the job. It comes back through done in every case. */
void simulation_submit(struct simulation *simulation, struct sim_job *job);
