/* sim.h - the simulator interface: one task, many episodes, no MuJoCo types outside lib/sim.
 *
 *   sim_suite_open("tabletop", NULL, ..) -> sim_task_open -> per slot: sim_slot_new
 *   sim_reset -> { sim_render, sim_step }* ; sim_save / sim_restore for look-ahead; sim_expert for demonstrations
 *
 * A task's model is constant and shared; a slot holds one mutable state. Rendering needs the GL context: all
 * sim_render calls of a process come from one render thread, which called sim_renderer_open. A state is numbered by
 * (split, seed): the same numbers give the same state on every machine. Observations never hold what the camera
 * does not see. Failure: -errno; -EIO from sim_step or sim_reset means the simulator broke (unstable state): drop the
 * slot's episode, the slot can be reset again. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum {
    SIM_ACTION_DIMS = 7,        /* dx dy dz droll dpitch dyaw gripper, each in [-1,1]: of every suite but `remote`, ... */
    SIM_ACTION_MAX = 16,        /* ... which may have others: sim_task_info.action_dims, at most so many */
};
enum { SIM_DEVICE_NONE = -3 };          /* sim_suite_device */
enum sim_split { SIM_TRAIN, SIM_VAL, SIM_TEST };

struct sim_suite;
struct sim_task;
struct sim_slot;
struct sim_renderer;

struct sim_task_info {
    const char *name;
    int level;                  /* curriculum level */
    int max_steps;              /* the suite's episode limit for this task */
    double control_hz;
    int cameras;                /* sim_render_camera's 0 .. cameras-1; camera 0 is sim_render's */
    int action_dims;            /* numbers of an action, 1 .. SIM_ACTION_MAX; the same for all tasks of a suite */
    int proprio;                /* numbers of sim_proprio; 0: the suite has none */
    const char *instruction;    /* what sim_reset says; NULL: one of several wordings, drawn with the state */
    int wait_steps;             /* no-op steps that every reset plays, in which objects settle; not part of max_steps */
    bool no_expert, no_save;    /* a simulator of one's own: it has no expert; its states cannot be saved */
    int test_states;            /* so many test states there are: seed k is state k modulo this; 0: any number */
};

/* What a suite may be told beside its name; strings are copied. NULL or zero: the default. */
enum sim_substeps {             /* libero: how a substep is computed */
    SIM_SUBSTEPS_BY_SPLIT,      /* onepass for train states, reference for val and test */
    SIM_SUBSTEPS_REFERENCE,     /* as the original Python, bit for bit on one machine */
    SIM_SUBSTEPS_ONEPASS,       /* faster by 1.5 to 1.8, differs by the solver's warm start */
};
struct sim_options {
    const char *libero_root;    /* a LIBERO checkout; default $LIBERO_ROOT */
    const char *robosuite_root; /* robosuite 1.4.x as installed or as `make libero-assets` puts it; default $ROBOSUITE_ROOT */
    const char *cache;          /* folder for compiled models; default $XDG_CACHE_HOME/gantry/libero; "": none */
    const char *robosuite; /* "1.4.0" (default: what LIBERO pins) or "1.4.1" (what OpenVLA's evaluations pin: link7 collides) */
    enum sim_substeps substeps;
    const char *remote;         /* remote: the command that is the simulator, or unix:PATH where one listens */
};

/* -ENOENT: no suite of this name, or its files are not here (the line says how to get them). options may be NULL. */
int sim_suite_open(const char *name, const struct sim_options *options, struct sim_suite **ret, struct error *error);
struct sim_suite *sim_suite_close(struct sim_suite *suite);
int sim_suite_tasks(const struct sim_suite *suite, const struct sim_task_info **ret_infos);     /* count */
/* The same of a suite that is not open, nor need its files be here. 0: its tasks are known when it is open (remote), or there is no
 * such suite. */
int sim_suite_known_tasks(const char *name, const struct sim_task_info **ret_infos);
/* What sim_renderer_open is to be told for this suite: `device`, or SIM_DEVICE_NONE for one that brings its own pictures. */
int sim_suite_device(const struct sim_suite *suite, int device);

/* Compiles its model, or takes it from the cache. -ENOENT: the suite has no such task. */
int sim_task_open(struct sim_suite *suite, const char *task, struct sim_task **ret, struct error *error);
struct sim_task *sim_task_close(struct sim_task *task);
const struct sim_task_info *sim_task_info(const struct sim_task *task);

/* One episode's state, to be reset first. -ENOMEM. */
int sim_slot_new(struct sim_task *task, struct sim_slot **ret);
struct sim_slot *sim_slot_free(struct sim_slot *slot);
/* It is not played for now: what another slot of the suite may use meanwhile is given up. sim_reset or sim_restore comes next. */
void sim_slot_rest(struct sim_slot *slot);

/* Set the initial state numbered (split, seed). ret_instruction: one of the task's wordings, chosen by the seed; borrowed
 * until the next reset. */
int sim_reset(struct sim_slot *slot, enum sim_split split, uint64_t seed, const char **ret_instruction);
/* One control step (action_dims numbers, clipped to [-1,1]; NaN: -EINVAL, nothing moved). *ret_success: the task's predicate has
 * held at some step of this episode (once is enough; sim_reset clears it). May be NULL. */
int sim_step(struct sim_slot *slot, const float *action, bool *ret_success);
/* What the environment itself paid for the last step. NaN: it says none. */
float sim_reward(const struct sim_slot *slot);
bool sim_success(const struct sim_slot *slot);
/* Why the last call failed, where the simulator said more than its number; else "". Valid until the next call. */
const char *sim_reason(const struct sim_slot *slot);
/* The robot's own state as policies that want it read it (sim_task_info.proprio numbers; libero: eef position, its axis-angle,
 * gripper qpos; tabletop: the hand's place, its yaw, the fingers). -ENOTSUP: the suite has none. */
int sim_proprio(const struct sim_slot *slot, float *ret);

/* The scripted expert's action for the present state; -ENOTSUP: there is none. It keeps its phase inside the slot (saved with the
 * state): ask it, or the demonstrator, once per step. */
int sim_expert(struct sim_slot *slot, float *ret_action);
/* A demonstrator: the expert made human. style "clean": executed = expert + noise, label = expert. style "slow": executed =
 * label = slowed expert + small noise. Numbers in the suite's table; drawn by (seed). */
int sim_demonstrate(struct sim_slot *slot, const char *style, uint64_t seed, int step,
                    float *ret_action, float *ret_label);

/* The world interferes, once in an episode, before control step `step` of at most `limit`: "push" shoves the thing that the task
 * is about by 4 cm (a drawer: back in), "drop" takes out of the hand what it holds, "offset" shifts the hand by 5 cm. When and in
 * which direction is drawn by (seed), so that policies are compared under the same blows. Ask before every step until it returns
 * 1 (done); 0: not now. -ENOTSUP: the suite cannot. -EINVAL: no such kind. */
int sim_perturb(struct sim_slot *slot, const char *kind, uint64_t seed, int step, int limit);

/* Full state (integrator state, controller targets, clock, success latch) as bytes: equal bytes = equal future. A suite whose
 * size is 0 cannot: -ENOTSUP. */
size_t sim_state_size(const struct sim_task *task);
int sim_save(struct sim_slot *slot, void *ret_state);
int sim_restore(struct sim_slot *slot, const void *state);

/* Rendering, from one thread. device: -1 software (llvmpipe), k: the k-th EGL device; -2: the first GPU that works,
 * software without one (sim_renderer_is_software tells); SIM_DEVICE_NONE: it only passes on what a suite brings, and needs no
 * OpenGL. The error names the missing library. */
int sim_renderer_open(int device, int height, int width, struct sim_renderer **ret, struct error *error);
struct sim_renderer *sim_renderer_close(struct sim_renderer *renderer);
bool sim_renderer_is_software(const struct sim_renderer *renderer);
const char *sim_renderer_name(const struct sim_renderer *renderer);     /* GL_RENDERER */
/* Tasks whose meshes and textures stay with OpenGL, at least 1; a LIBERO task's are some 350 MB. One that is drawn again after
 * others have had its place takes a moment longer: no fewer than are drawn in turns. */
enum { SIM_RENDERER_TASKS = 12 };       /* at first */
void sim_renderer_keep(struct sim_renderer *renderer, int most);
/* Leave out what a picture cannot show (default), or send everything to OpenGL: the same pictures, for comparisons. */
void sim_renderer_set_cull(struct sim_renderer *renderer, bool cull);
/* Before the first picture: no mirror images, and edges as they fall. Other pixels, for half the CPU time or less where a scene
 * has a mirror (LIBERO's stove shows the whole scene once more in a few pixels). */
void sim_renderer_set_plain(struct sim_renderer *renderer, bool plain);
/* CPU time its thread has spent inside MuJoCo's renderer so far, ns. */
uint64_t sim_renderer_busy_ns(const struct sim_renderer *renderer);
/* The slot's camera picture, u8 [height][width][3], top row first. The slot must not be stepped meanwhile. libero: as its
 * observations, the state before substep 24 of the last control step. */
int sim_render(struct sim_renderer *renderer, struct sim_slot *slot, uint8_t *ret_rgb);
int sim_render_camera(struct sim_renderer *renderer, struct sim_slot *slot, int camera, uint8_t *ret_rgb);
