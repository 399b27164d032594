#include "sim/suite.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

static const struct sim_suite_driver *const suites[] = {
    &suite_tabletop, &suite_libero_spatial, &suite_libero_object, &suite_libero_goal, &suite_libero_10, &suite_libero_90,
    &suite_remote,
};

static int copy_string(const char *from, const char **to)
{
    *to = from ? strdup(from) : NULL;
    return from && !*to ? -ENOMEM : 0;
}

static int copy_options(const struct sim_options *from, struct sim_options *to)
{
    if (!from)
        return 0;
    to->substeps = from->substeps;
    if (copy_string(from->libero_root, &to->libero_root) < 0 || copy_string(from->robosuite_root, &to->robosuite_root) < 0 ||
        copy_string(from->cache, &to->cache) < 0 || copy_string(from->robosuite, &to->robosuite) < 0 ||
        copy_string(from->remote, &to->remote) < 0)
        return -ENOMEM;
    return 0;
}

static void free_suite(struct sim_suite *suite)
{
    free((void *)(uintptr_t)suite->options.libero_root);
    free((void *)(uintptr_t)suite->options.robosuite_root);
    free((void *)(uintptr_t)suite->options.cache);
    free((void *)(uintptr_t)suite->options.robosuite);
    free((void *)(uintptr_t)suite->options.remote);
    free(suite);
}

static const struct sim_suite_driver *find_driver(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(suites); i++)
        if (strcmp(suites[i]->name, name) == 0)
            return suites[i];
    return NULL;
}

int sim_suite_open(const char *name, const struct sim_options *options, struct sim_suite **ret, struct error *error)
{
    const struct sim_suite_driver *driver = find_driver(name);
    struct sim_suite *suite;
    int r;

    if (!driver)
        return error_set(error, ENOENT,
                         "suite.name: no suite is called '%s'; there are: tabletop, libero_spatial, libero_object, libero_goal, "
                         "libero_10, libero_90, remote",
                         name);

    suite = calloc(1, sizeof(*suite));
    if (!suite)
        return error_set(error, ENOMEM, "suite %s: out of memory", name);
    suite->driver = driver;
    r = copy_options(options, &suite->options);
    if (r < 0)
        r = error_set(error, ENOMEM, "suite %s: out of memory", name);
    else if (suite->driver->open)
        r = suite->driver->open(suite, error);
    if (r < 0) {
        free_suite(suite);
        return r;
    }
    *ret = suite;
    return 0;
}

struct sim_suite *sim_suite_close(struct sim_suite *suite)
{
    if (!suite)
        return NULL;
    if (suite->driver->close)
        suite->driver->close(suite);
    free_suite(suite);
    return NULL;
}

int sim_suite_device(const struct sim_suite *suite, int device)
{
    return suite->driver->view ? device : SIM_DEVICE_NONE;
}

int sim_suite_tasks(const struct sim_suite *suite, const struct sim_task_info **ret_infos)
{
    return suite->driver->tasks(suite, ret_infos);
}

int sim_suite_known_tasks(const char *name, const struct sim_task_info **ret_infos)
{
    const struct sim_suite closed = {.driver = find_driver(name)};

    return closed.driver && closed.driver != &suite_remote ? closed.driver->tasks(&closed, ret_infos) : 0;
}

int sim_task_open(struct sim_suite *suite, const char *task, struct sim_task **ret, struct error *error)
{
    static atomic_uint_fast64_t serials;
    const struct sim_task_info *infos;
    int n = suite->driver->tasks(suite, &infos), i, r;
    struct sim_task *opened;

    for (i = 0; i < n; i++)
        if (strcmp(infos[i].name, task) == 0)
            break;
    if (i == n)
        return error_set(error, ENOENT, "suite.tasks: suite %s has no task '%s'; `gantry sim list --suite %s` lists them",
                         suite->driver->name, task, suite->driver->name);

    r = suite->driver->task_open(suite, i, &opened, error);
    if (r < 0)
        return r;
    opened->driver = suite->driver;
    opened->info = &infos[i];
    opened->serial = atomic_fetch_add(&serials, 1) + 1;
    *ret = opened;
    return 0;
}

struct sim_task *sim_task_close(struct sim_task *task)
{
    return task ? task->driver->task_close(task) : NULL;
}

const struct sim_task_info *sim_task_info(const struct sim_task *task)
{
    return task->info;
}

int sim_slot_new(struct sim_task *task, struct sim_slot **ret)
{
    return task->driver->slot_new(task, ret);
}

struct sim_slot *sim_slot_free(struct sim_slot *slot)
{
    return slot ? slot->task->driver->slot_free(slot) : NULL;
}

void sim_slot_rest(struct sim_slot *slot)
{
    if (slot->task->driver->slot_rest)
        slot->task->driver->slot_rest(slot);
}

int sim_reset(struct sim_slot *slot, enum sim_split split, uint64_t seed, const char **ret_instruction)
{
    if ((unsigned)split > SIM_TEST)
        return -EINVAL;
    return slot->task->driver->reset(slot, split, seed, ret_instruction);
}

int sim_step(struct sim_slot *slot, const float *action, bool *ret_success)
{
    float clipped[SIM_ACTION_MAX];
    int i;

    for (i = 0; i < slot->task->info->action_dims; i++) {
        if (isnan(action[i]))
            return -EINVAL;
        clipped[i] = CLAMP(action[i], -1.0f, 1.0f);
    }
    return slot->task->driver->step(slot, clipped, ret_success);
}

float sim_reward(const struct sim_slot *slot)
{
    return slot->task->driver->reward ? slot->task->driver->reward(slot) : NAN;
}

bool sim_success(const struct sim_slot *slot)
{
    return slot->task->driver->success(slot);
}

const char *sim_reason(const struct sim_slot *slot)
{
    return slot->task->driver->reason ? slot->task->driver->reason(slot) : "";
}

int sim_proprio(const struct sim_slot *slot, float *ret)
{
    return slot->task->driver->proprio ? slot->task->driver->proprio(slot, ret) : -ENOTSUP;
}

int sim_expert(struct sim_slot *slot, float *ret_action)
{
    return slot->task->driver->expert ? slot->task->driver->expert(slot, ret_action) : -ENOTSUP;
}

int sim_demonstrate(struct sim_slot *slot, const char *style, uint64_t seed, int step,
                    float *ret_action, float *ret_label)
{
    if (!slot->task->driver->demonstrate)
        return -ENOTSUP;
    return slot->task->driver->demonstrate(slot, style, seed, step, ret_action, ret_label);
}

int sim_perturb(struct sim_slot *slot, const char *kind, uint64_t seed, int step, int limit)
{
    if (strcmp(kind, "push") != 0 && strcmp(kind, "drop") != 0 && strcmp(kind, "offset") != 0)
        return -EINVAL;
    return slot->task->driver->perturb ? slot->task->driver->perturb(slot, kind, seed, step, limit) : -ENOTSUP;
}

size_t sim_state_size(const struct sim_task *task)
{
    return task->driver->state_size(task);
}

int sim_save(struct sim_slot *slot, void *ret_state)
{
    return slot->task->driver->save(slot, ret_state);
}

int sim_restore(struct sim_slot *slot, const void *state)
{
    return slot->task->driver->restore(slot, state);
}
