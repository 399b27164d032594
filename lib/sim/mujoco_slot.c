#include "sim/mujoco_slot.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>

#include "base/fault.h"

static _Thread_local sigjmp_buf *rescue;        /* set only while mj_step runs */

static void on_error(const char *message)
{
    if (rescue)
        siglongjmp(*rescue, 1);
    fprintf(stderr, "mujoco: %s\n", message);   /* no way back into MuJoCo from here */
    abort();
}

/* The counters in mjData tell us; MuJoCo's own handler would write MUJOCO_LOG.TXT into the working directory. */
static void on_warning(const char *message _unused_)
{
}

static void install_handlers(void)
{
    mju_user_error = on_error;
    mju_user_warning = on_warning;
}

void mujoco_handlers(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, install_handlers);
}

int mujoco_compile(const struct mujoco_file *files, size_t n, mjModel **ret, struct error *error)
{
    char text[400] = "";
    mjModel *model = NULL;
    mjVFS vfs;
    size_t i;
    int r = 0;

    mujoco_handlers();
    mj_defaultVFS(&vfs);
    for (i = 0; i < n && r == 0; i++)
        r = mj_addBufferVFS(&vfs, files[i].name, files[i].text, (int)strlen(files[i].text));
    if (r == 0)
        model = mj_loadXML(files[0].name, &vfs, text, sizeof(text));
    mj_deleteVFS(&vfs);
    for (char *c = text; *c; c++)       /* MuJoCo says it in several lines */
        if (*c == '\n')
            *c = c[1] ? ' ' : '\0';
    if (!model)
        return error_set(error, EINVAL, "%s: MuJoCo cannot compile it: %s", files[0].name, text);
    *ret = model;
    return 0;
}

int mujoco_slot_init(struct mujoco_slot *slot, const mjModel *model)
{
    mjData *data = mj_makeData(model);

    if (!data)
        return -ENOMEM;
    *slot = (struct mujoco_slot) { .model = model, .data = data };
    return 0;
}

void mujoco_slot_release(struct mujoco_slot *slot)
{
    if (slot->data)
        mj_deleteData(slot->data);
    slot->data = NULL;
}

void mujoco_slot_clear(struct mujoco_slot *slot)
{
    mj_resetData(slot->model, slot->data);
    slot->broken = false;
}

void mujoco_slot_place(struct mujoco_slot *slot)
{
    mj_kinematics(slot->model, slot->data);
    mj_camlight(slot->model, slot->data);
}

/* The jump's landing place stands alone, so that no local variable of a caller lives across it.
 * False: MuJoCo raised an error. */
static bool run_guarded(void (*work)(void *user), void *user)
{
    sigjmp_buf here;

    if (sigsetjmp(here, 0) != 0) {
        rescue = NULL;
        return false;
    }
    rescue = &here;
    if (fault_errno("sim.step") < 0)
        mju_error("sim.step: fault asked for by the test");
    work(user);
    rescue = NULL;
    return true;
}

int mujoco_slot_run(struct mujoco_slot *slot, void (*work)(void *user), void *user)
{
    mjData *fresh;

    if (slot->broken)
        return -EIO;

    if (!run_guarded(work, user)) {
        slot->broken = true;
        fresh = mj_makeData(slot->model);
        if (fresh) {
            mj_deleteData(slot->data);
            slot->data = fresh;
        }
        return -EIO;
    }
    if (slot->data->warning[mjWARN_BADQPOS].number || slot->data->warning[mjWARN_BADQVEL].number ||
        slot->data->warning[mjWARN_BADQACC].number) {
        slot->broken = true;
        return -EIO;
    }
    return 0;
}

struct substeps {
    const mjModel *model;
    mjData *data;
    int count;
};

static void run_substeps(void *user)
{
    const struct substeps *steps = user;

    for (int i = 0; i < steps->count; i++)
        mj_step(steps->model, steps->data);
}

int mujoco_slot_step(struct mujoco_slot *slot, int substeps)
{
    struct substeps steps = { slot->model, slot->data, substeps };
    int r = mujoco_slot_run(slot, run_substeps, &steps);

    if (r == 0)
        mujoco_slot_place(slot);
    return r;
}

int mujoco_state_doubles(const mjModel *model)
{
    return mj_stateSize(model, mjSTATE_INTEGRATION);
}

void mujoco_slot_save(const struct mujoco_slot *slot, double *ret_state)
{
    mj_getState(slot->model, slot->data, ret_state, mjSTATE_INTEGRATION);
}

void mujoco_slot_restore(struct mujoco_slot *slot, const double *state)
{
    int i;

    for (i = 0; i < mjNWARNING; i++)
        slot->data->warning[i].number = 0;
    slot->broken = false;
    mj_setState(slot->model, slot->data, state, mjSTATE_INTEGRATION);
    mujoco_slot_place(slot);
}
