/* suite_libero.c - the five LIBERO suites behind sim.h.
 *
 * Test states are the rows of the .pruned_init files, each with the fixtures of its reset (seed 0, row k after k + 1 resets), as
 * in published evaluations. Train and val states are drawn by the suite's own samplers from seeds that no two splits share. Every
 * reset plays the protocol's ten no-op steps, in which objects settle; success does not count there. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/philox.h"
#include "sim/suites/libero/assets.h"
#include "sim/suites/libero/libero.h"
#include "sim/suites/libero/placement.h"

static const double reset_noise = 0.02;         /* rad, of the arm's joints: what the .pruned_init rows carry */
static const double no_op[7] = { 0, 0, 0, 0, 0, 0, -1 };
static const double control_hz = 20;

static struct libero_task *task_of(struct sim_task *task) { return (struct libero_task *)task; }
static struct libero_slot *slot_of(struct sim_slot *slot) { return (struct libero_slot *)slot; }
static const struct libero_slot *const_slot_of(const struct sim_slot *slot) { return (const struct libero_slot *)slot; }

/* ---- tasks ------------------------------------------------------------------------------------------------- */

enum { MAX_TASKS = 90 };
static struct sim_task_info infos[LIBERO_SUITES][MAX_TASKS];
static char prompts[LIBERO_SUITES][MAX_TASKS][LIBERO_PROMPT_MAX];

static void fill_infos(void)
{
    for (int s = 0; s < LIBERO_SUITES; s++)
        for (int i = 0; i < libero_suites[s].n_tasks; i++) {
            libero_prompt(libero_suites[s].tasks[i], prompts[s][i], sizeof(prompts[s][i]));
            infos[s][i] = (struct sim_task_info){.name = libero_suites[s].tasks[i],
                                                 .level = s,
                                                 .max_steps = libero_suites[s].max_steps,
                                                 .control_hz = control_hz,
                                                 .cameras = LIBERO_CAMERAS,
                                                 .action_dims = SIM_ACTION_DIMS,
                                                 .proprio = LIBERO_PROPRIO,
                                                 .instruction = prompts[s][i],
                                                 .wait_steps = LIBERO_WAIT_STEPS,
                                                 .test_states = LIBERO_TEST_STATES};
        }
}

static int suite_index(const struct sim_suite_driver *driver)
{
    int s = 0;

    while (strcmp(libero_suites[s].name, driver->name) != 0)
        s++;
    return s;
}

static int list_tasks(const struct sim_suite *suite, const struct sim_task_info **ret_infos)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;     /* asked from the loop and from simulation threads */

    pthread_once(&once, fill_infos);
    *ret_infos = infos[suite_index(suite->driver)];
    return libero_suites[suite_index(suite->driver)].n_tasks;
}

static int find_files(struct sim_suite *suite, struct error *error)
{
    _cleanup_(libero_assets_release) struct libero_assets assets = {0};

    return libero_assets_find(&suite->options, &assets, error);
}

static int task_open(struct sim_suite *suite, int index, struct sim_task **ret, struct error *error)
{
    _cleanup_(libero_assets_release) struct libero_assets assets = {0};
    struct libero_task *task;
    char cache[4096];
    int r = libero_assets_find(&suite->options, &assets, error);

    if (r < 0)
        return r;
    libero_cache_folder(&suite->options, cache, sizeof(cache));
    r = libero_task_open(&assets, cache, &libero_suites[suite_index(suite->driver)], index, &task, error);
    if (r < 0)
        return r;
    task->substeps = suite->options.substeps;
    *ret = &task->base;
    return 0;
}

static struct sim_task *task_close(struct sim_task *task)
{
    libero_task_close(task_of(task));
    return NULL;
}

/* ---- slots --------------------------------------------------------------------------------------------------- */

static int slot_new(struct sim_task *task, struct sim_slot **ret)
{
    struct libero_slot *slot = malloc(sizeof(*slot));
    int r;

    if (!slot)
        return -ENOMEM;
    r = libero_slot_init(slot, task_of(task), LIBERO_REFERENCE);
    if (r < 0) {
        free(slot);
        return r;
    }
    slot->base.task = task;
    *ret = &slot->base;
    return 0;
}

static struct sim_slot *slot_free(struct sim_slot *base)
{
    libero_slot_release(slot_of(base));
    free(base);
    return NULL;
}

/* A state of the suite's own sampler. Seeds are 3 k + split: whatever the numbers, no two splits share one. */
static int draw_state(struct libero_slot *slot, enum sim_split split, uint64_t seed)
{
    const struct libero_task *task = slot->task;
    const char *name = task->suite->tasks[task->index];
    struct philox seeds = philox_at(seed, PHILOX_STATE, crc32c(0, name, strlen(name)), split, 0);
    _cleanup_free_ struct placement_stream *stream = malloc(sizeof(*stream));
    _cleanup_free_ struct placement *drawn = malloc(sizeof(*drawn));
    _cleanup_free_ double *row = malloc(sizeof(*row) * (size_t)task->init.width);
    int r = -EAGAIN;

    if (!stream || !drawn || !row)
        return -ENOMEM;
    for (int tries = 0; tries < 16 && r == -EAGAIN; tries++) {
        placement_seed(stream, 3 * philox_below(&seeds, UINT32_MAX / 3) + (uint32_t)split);
        r = placement_draw(stream, task, slot->mujoco.data, drawn, NULL);
    }
    if (r < 0)
        return r;
    placement_state(task, drawn, reset_noise, row);
    return libero_set_state(slot, row, (const double (*)[7])drawn->fixture_pose);
}

static int reset(struct sim_slot *base, enum sim_split split, uint64_t seed, const char **ret_instruction)
{
    struct libero_slot *slot = slot_of(base);
    const struct libero_task *task = slot->task;
    const size_t row = (size_t)(seed % (uint64_t)task->init.rows);
    int r;

    slot->memory.order = task->substeps == SIM_SUBSTEPS_ONEPASS || (task->substeps == SIM_SUBSTEPS_BY_SPLIT && split == SIM_TRAIN)
                             ? LIBERO_ONEPASS
                             : LIBERO_REFERENCE;
    if (split == SIM_TEST)
        r = libero_set_state(slot, task->init.values + row * (size_t)task->init.width,
                             (const double(*)[7])task->reset_fixtures[row]);
    else
        r = draw_state(slot, split, seed);
    for (int i = 0; i < LIBERO_WAIT_STEPS && r == 0; i++)
        r = libero_step(slot, no_op);
    if (r < 0)
        return r;
    slot->memory.latched = 0;
    if (ret_instruction)
        *ret_instruction = task->prompt;
    return 0;
}

static int step(struct sim_slot *base, const float action[SIM_ACTION_DIMS], bool *ret_success)
{
    struct libero_slot *slot = slot_of(base);
    double wide[SIM_ACTION_DIMS];
    int r;

    for (int i = 0; i < SIM_ACTION_DIMS; i++)
        wide[i] = (double)action[i];
    r = libero_step(slot, wide);
    if (r < 0)
        return r;
    if (ret_success)
        *ret_success = slot->memory.latched;
    return 0;
}

static bool success(const struct sim_slot *base)
{
    return const_slot_of(base)->memory.latched;
}

static int expert(struct sim_slot *base, float ret_action[SIM_ACTION_DIMS])
{
    return libero_expert(slot_of(base), ret_action);
}

static int demonstrate(struct sim_slot *base, const char *style, uint64_t seed, int at, float ret_action[SIM_ACTION_DIMS],
                       float ret_label[SIM_ACTION_DIMS])
{
    return libero_demonstrate(slot_of(base), style, seed, at, ret_action, ret_label);
}

static int proprio(const struct sim_slot *base, float *ret)
{
    double wide[LIBERO_PROPRIO];

    libero_proprio(const_slot_of(base), wide);
    for (int i = 0; i < LIBERO_PROPRIO; i++)
        ret[i] = (float)wide[i];
    return 0;
}

/* ---- state bytes: memory, the order of substeps, what pictures show, MuJoCo's doubles -------------------------------- */

static size_t state_size(const struct sim_task *base)
{
    return libero_state_size((const struct libero_task *)base);
}

static int save(struct sim_slot *base, void *ret_state)
{
    libero_save(const_slot_of(base), ret_state);
    return 0;
}

static int restore(struct sim_slot *base, const void *state)
{
    return libero_restore(slot_of(base), state);
}

static void view(struct sim_slot *base, int camera, struct mujoco_view *ret)
{
    libero_view(slot_of(base), camera, ret);
}

#define SUITE(suite)                                                                                            \
    const struct sim_suite_driver suite_##suite = {                                                             \
        .name = #suite, .open = find_files,                                                                     \
        .tasks = list_tasks, .task_open = task_open, .task_close = task_close,                                  \
        .slot_new = slot_new, .slot_free = slot_free,                                                           \
        .reset = reset, .step = step, .success = success, .expert = expert, .demonstrate = demonstrate,           \
        .proprio = proprio, .state_size = state_size, .save = save, .restore = restore, .view = view,           \
    }

SUITE(libero_spatial);
SUITE(libero_object);
SUITE(libero_goal);
SUITE(libero_10);
SUITE(libero_90);
