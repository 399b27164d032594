#include "sim/suites/libero/libero.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "sim/suites/libero/predicates.h"

/* ---- a slot's own model ---------------------------------------------------------------------------------- */

static void *copy_of(const void *bytes, size_t n)
{
    void *copy = malloc(n ? n : 1);

    return copy ? memcpy(copy, bytes, n) : NULL;
}

int libero_slot_init(struct libero_slot *slot, const struct libero_task *task, enum libero_order order)
{
    const mjModel *shared = task->model;
    int r = -ENOMEM;

    *slot = (struct libero_slot) { .task = task, .memory.order = order, .model = *shared };
    slot->model.body_pos = copy_of(shared->body_pos, sizeof(double) * 3 * (size_t)shared->nbody);
    slot->model.body_quat = copy_of(shared->body_quat, sizeof(double) * 4 * (size_t)shared->nbody);
    slot->model.site_rgba = copy_of(shared->site_rgba, sizeof(float) * 4 * (size_t)shared->nsite);
    slot->model.opt.disableflags |= mjDSBL_SENSOR;      /* force and torque at the wrist: nobody reads them, an RNE pass each */
    slot->drawn_qpos = calloc((size_t)shared->nq, sizeof(double));
    if (slot->model.body_pos && slot->model.body_quat && slot->model.site_rgba && slot->drawn_qpos)
        r = mujoco_slot_init(&slot->mujoco, &slot->model);
    if (r < 0)
        libero_slot_release(slot);
    for (int i = 0; r == 0 && i < shared->nsite; i++)   /* sites are never seen, but for a burning burner */
        slot->model.site_rgba[4 * i + 3] = 0;
    return r;
}

void libero_slot_release(struct libero_slot *slot)
{
    mujoco_slot_release(&slot->mujoco);
    if (slot->drawn)
        mj_deleteData(slot->drawn);
    free(slot->model.body_pos);
    free(slot->model.body_quat);
    free(slot->model.site_rgba);
    free(slot->drawn_qpos);
    *slot = (struct libero_slot) {0};
}

/* ---- observation ------------------------------------------------------------------------------------------- */

static void observe(struct libero_slot *slot)
{
    struct libero_observation *o = &slot->memory.observation;
    const mjData *data = slot->mujoco.data;
    const double *wxyz = data->xquat + 4 * slot->task->hand_body;

    memcpy(o->eef_pos, data->site_xpos + 3 * slot->task->grip_site, sizeof(o->eef_pos));
    for (int i = 0; i < 4; i++)
        o->eef_quat[i] = wxyz[(i + 1) % 4];
    memcpy(o->joint_pos, data->qpos, sizeof(o->joint_pos));
    memcpy(o->joint_vel, data->qvel, sizeof(o->joint_vel));
    memcpy(o->gripper_qpos, data->qpos + ARM, sizeof(o->gripper_qpos));
    memcpy(o->gripper_qvel, data->qvel + ARM, sizeof(o->gripper_qvel));
    slot->memory.burner_drawn = slot->memory.burner;
}

void libero_proprio(const struct libero_slot *slot, double ret[LIBERO_PROPRIO])
{
    const struct libero_observation *o = &slot->memory.observation;
    const double w = fmin(fmax(o->eef_quat[3], -1.0), 1.0), den = sqrt(1.0 - w * w);

    for (int i = 0; i < 3; i++) {
        ret[i] = o->eef_pos[i];
        ret[3 + i] = den == 0 ? 0 : o->eef_quat[i] * 2.0 * acos(w) / den; /* angle up to 2 pi, as the policies were taught */
    }
    ret[6] = o->gripper_qpos[0];
    ret[7] = o->gripper_qpos[1];
}

/* ---- reset ---------------------------------------------------------------------------------------------------- */

static void place_fixtures(struct libero_slot *slot)
{
    const struct libero_task *task = slot->task;

    for (int i = task->n_objects; i < task->n_things; i++) {
        const double *pose = slot->memory.fixture_pose[i - task->n_objects];

        memcpy(slot->model.body_pos + 3 * task->things[i].body, pose, sizeof(double) * 3);
        memcpy(slot->model.body_quat + 4 * task->things[i].body, pose + 3, sizeof(double) * 4);
    }
}

static void run_forward(void *user)
{
    struct libero_slot *slot = user;

    mj_forward(&slot->model, slot->mujoco.data);
}

int libero_set_state(struct libero_slot *slot, const double *row, const double (*fixture_pose)[7])
{
    const struct libero_task *task = slot->task;
    const int nq = (int)slot->model.nq, nv = (int)slot->model.nv;
    mjData *data;
    int r;

    slot->memory = (struct libero_memory) { .order = slot->memory.order, .controller = task->rest };
    memcpy(slot->memory.fixture_pose, fixture_pose, sizeof(double) * 7 * (size_t)(task->n_things - task->n_objects));
    place_fixtures(slot);
    mujoco_slot_clear(&slot->mujoco);
    data = slot->mujoco.data;
    data->time = row[0];
    memcpy(data->qpos, row + 1, sizeof(double) * (size_t)nq);
    memcpy(data->qvel, row + 1 + nq, sizeof(double) * (size_t)nv);
    r = mujoco_slot_run(&slot->mujoco, run_forward, slot);
    if (r < 0)
        return r;
    slot->fresh = true;
    slot->memory.burner = predicate_burner(task, data);
    memcpy(slot->drawn_qpos, data->qpos, sizeof(double) * (size_t)nq);
    observe(slot);
    return 0;
}

/* ---- a control step -------------------------------------------------------------------------------------------- */

/* The original runs the whole forward pass three times a substep at one and the same state. Positions and velocities come out
 * alike each time; only the solver goes on, from where it warm-started last. So the second and third pass begin behind them: bit
 * for bit the same, in two thirds of the time. */
static void forward(struct libero_slot *slot)
{
    const bool reference = slot->memory.order == LIBERO_REFERENCE;

    if (slot->fresh && reference)
        mj_forward(&slot->model, slot->mujoco.data);
    else if (slot->fresh)
        mj_step1(&slot->model, slot->mujoco.data);
    else if (reference)
        mj_forwardSkip(&slot->model, slot->mujoco.data, mjSTAGE_VEL, 1);
    slot->fresh = false;
}

/* The controller looks again, unless it has just looked or has not moved since the reset. */
static void renew(struct libero_slot *slot)
{
    if (!slot->memory.controller.stale)
        return;
    forward(slot);
    controller_cache(&slot->memory.controller, &slot->model, slot->mujoco.data, slot->task->grip_site);
}

static void integrate(struct libero_slot *slot)
{
    mjData *data = slot->mujoco.data;

    if (slot->memory.order == LIBERO_REFERENCE) {       /* mj_step, its forward pass shortened */
        mj_checkPos(&slot->model, data);
        mj_checkVel(&slot->model, data);
        forward(slot);
        mj_checkAcc(&slot->model, data);
        mj_Euler(&slot->model, data);
    } else {
        mj_step2(&slot->model, data);
    }
    slot->fresh = true;
}

struct step_job {
    struct libero_slot *slot;
    const double *action;
};

static void run_step(void *user)
{
    const struct step_job *job = user;
    struct libero_slot *slot = job->slot;
    struct controller *controller = &slot->memory.controller;
    mjData *data = slot->mujoco.data;

    for (int i = 1; i <= LIBERO_SUBSTEPS; i++) {
        forward(slot);
        renew(slot);
        if (i == 1)
            controller_goal(controller, job->action);
        controller_run(controller, &slot->model, data->qfrc_bias, job->action[6], data->ctrl);
        if (i == LIBERO_OBSERVED_SUBSTEP)
            memcpy(slot->drawn_qpos, data->qpos, sizeof(double) * (size_t)slot->model.nq);
        integrate(slot);
        if (i == LIBERO_OBSERVED_SUBSTEP)
            observe(slot);
    }
}

int libero_step(struct libero_slot *slot, const double action[7])
{
    struct step_job job = { slot, action };
    int r = mujoco_slot_run(&slot->mujoco, run_step, &job);

    if (r < 0)
        return r;
    slot->memory.burner = predicate_burner(slot->task, slot->mujoco.data);
    if (libero_success(slot))
        slot->memory.latched = 1;
    return 0;
}

bool libero_success(const struct libero_slot *slot)
{
    return predicate_goal(slot->task, slot->mujoco.data);
}

/* ---- state bytes ------------------------------------------------------------------------------------------------- */

size_t libero_state_size(const struct libero_task *task)
{
    return sizeof(struct libero_memory) + sizeof(double) * ((size_t)task->model->nq + (size_t)mujoco_state_doubles(task->model));
}

void libero_save(const struct libero_slot *slot, void *ret_state)
{
    const size_t drawn = sizeof(double) * (size_t)slot->model.nq;
    unsigned char *bytes = ret_state;

    memcpy(bytes, &slot->memory, sizeof(slot->memory));
    memcpy(bytes + sizeof(slot->memory), slot->drawn_qpos, drawn);
    mujoco_slot_save(&slot->mujoco, (double *)(void *)(bytes + sizeof(slot->memory) + drawn));
}

int libero_restore(struct libero_slot *slot, const void *state)
{
    const size_t drawn = sizeof(double) * (size_t)slot->model.nq;
    const unsigned char *bytes = state;
    struct libero_memory memory;

    memcpy(&memory, bytes, sizeof(memory));
    if (memory.order > LIBERO_ONEPASS)
        return -EINVAL;
    slot->memory = memory;
    memcpy(slot->drawn_qpos, bytes + sizeof(memory), drawn);
    place_fixtures(slot);
    mujoco_slot_restore(&slot->mujoco, (const double *)(const void *)(bytes + sizeof(memory) + drawn));
    slot->fresh = true;         /* the next substep makes its own forward pass */
    return 0;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

void libero_view(struct libero_slot *slot, int camera, struct mujoco_view *ret)
{
    const struct libero_task *task = slot->task;

    if (!slot->drawn) {
        mjModel small = slot->model;

        small.narena = 1 << 20; /* kinematics need none of it */
        slot->drawn = mj_makeData(&small);
    }
    *ret = (struct mujoco_view) { .model = &slot->model, .data = slot->drawn ? slot->drawn : slot->mujoco.data,
                                  .camera = task->cameras[camera], .benchmark = true };
    if (slot->drawn) {
        memcpy(slot->drawn->qpos, slot->drawn_qpos, sizeof(double) * (size_t)slot->model.nq);
        mj_kinematics(&slot->model, slot->drawn);
        mj_camlight(&slot->model, slot->drawn);
    }
    if (task->burner_site >= 0)
        slot->model.site_rgba[4 * task->burner_site + 3] = slot->memory.burner_drawn ? 1 : 0;
}
