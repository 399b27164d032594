#include "sim/suites/libero/check.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/npy.h"
#include "sim/suites/libero/predicates.h"

/* ---- arrays of a file ------------------------------------------------------------------------------------ */

int check_read_rows(const struct zip_archive *file, const char *name, size_t columns, double **ret, size_t *ret_rows,
                    struct error *error)
{
    struct npy array;
    int r = npy_read(file, name, &array, error);

    if (r < 0)
        return r;
    if (columns && array.count % columns) {
        npy_release(&array);
        return error_set(error, EINVAL, "%s: %s: rows of %zu numbers were expected", file->path, name, columns);
    }
    *ret = npy_doubles(&array);
    if (ret_rows)
        *ret_rows = columns ? array.count / columns : array.count;
    npy_release(&array);
    return *ret ? 0 : error_set(error, EINVAL, "%s: %s: numbers were expected", file->path, name);
}

int check_read_exactly(const struct zip_archive *file, const char *name, size_t columns, size_t rows, double **ret,
                       struct error *error)
{
    size_t found;
    int r = check_read_rows(file, name, columns, ret, &found, error);

    if (r == 0 && found != rows)
        r = error_set(error, EINVAL, "%s: %s: %zu rows, expected %zu", file->path, name, found, rows);
    return r;
}

int check_read_fixtures(const struct libero_task *task, const struct zip_archive *file, double poses[LIBERO_MAX_FIXTURES][7],
                        struct error *error)
{
    _cleanup_(npy_release) struct npy names = {0};
    _cleanup_free_ double *values = NULL;
    size_t rows;
    int found = 0, r = npy_read(file, "fixture_names", &names, error);

    if (r == 0)
        r = check_read_rows(file, "fixture_pose", 7, &values, &rows, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < rows && i < names.count; i++) {
        char name[200];
        int thing;

        if (npy_text(&names, i, name, sizeof(name)) < 0 || (thing = libero_thing(task, name)) < task->n_objects)
            return error_set(error, EINVAL, "%s: fixture %zu is none of this task's", file->path, i);
        memcpy(poses[thing - task->n_objects], values + 7 * i, sizeof(double) * 7);
        found++;
    }
    if (found != task->n_things - task->n_objects)
        return error_set(error, EINVAL, "%s: %d fixture poses, the task has %d fixtures", file->path, found,
                         task->n_things - task->n_objects);
    return 0;
}

/* ---- physics ------------------------------------------------------------------------------------------------ */

struct rollout {
    double *actions, *init, *warmstart, *qpos, *ctrl, *ncon, *done, *bound;
    double *obs[6];
    size_t steps;
};

/* The stored bounds are of positions, m and rad: at least 1e-9. A speed may be off by what moves a position that far within a
 * control step of 1/20 s; a torque, which the controller makes of both, by a thousand times as much (at least 1e-6, as the
 * manifest says). docs/libero.md has what the original's own reruns do. */
enum { PER_SECOND = 20, TORQUE = 1000 };

static const struct { const char *name; int n, per; size_t offset; } observed[6] = {
    { "obs_eef_pos", 3, 1, offsetof(struct libero_observation, eef_pos) },
    { "obs_eef_quat", 4, 1, offsetof(struct libero_observation, eef_quat) },
    { "obs_joint_pos", ARM, 1, offsetof(struct libero_observation, joint_pos) },
    { "obs_joint_vel", ARM, PER_SECOND, offsetof(struct libero_observation, joint_vel) },
    { "obs_gripper_qpos", 2, 1, offsetof(struct libero_observation, gripper_qpos) },
    { "obs_gripper_qvel", 2, PER_SECOND, offsetof(struct libero_observation, gripper_qvel) },
};

static void release(struct rollout *g)
{
    double **all[] = { &g->actions, &g->init, &g->warmstart, &g->qpos, &g->ctrl, &g->ncon, &g->done, &g->bound };

    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        free(*all[i]);
    for (size_t i = 0; i < ARRAY_SIZE(g->obs); i++)
        free(g->obs[i]);
}

static int read_rollout(const struct libero_task *task, const struct zip_archive *file, enum libero_order order,
                        struct rollout *g, struct error *error)
{
    const size_t nq = (size_t)task->model->nq, nv = (size_t)task->model->nv;
    const struct { const char *name; size_t columns; double **to; } arrays[] = {
        { "init_state", 1 + nq + nv, &g->init }, { "qacc_warmstart0", nv, &g->warmstart }, { "qpos", nq, &g->qpos },
        { "ctrl", (size_t)task->model->nu, &g->ctrl }, { "ncon", 1, &g->ncon }, { "done", 1, &g->done },
        { order == LIBERO_REFERENCE ? "sens_noise" : "sens_onepass", 1, &g->bound },
    };
    int r = check_read_rows(file, "actions", 7, &g->actions, &g->steps, error);

    for (size_t i = 0; i < ARRAY_SIZE(arrays) && r == 0; i++)
        r = check_read_exactly(file, arrays[i].name, arrays[i].columns, i < 2 ? 1 : g->steps, arrays[i].to, error);
    for (size_t i = 0; i < ARRAY_SIZE(observed) && r == 0; i++)
        r = check_read_exactly(file, observed[i].name, (size_t)observed[i].n, g->steps, &g->obs[i], error);
    return r;
}

static double largest(const double *a, const double *b, size_t n)
{
    double d = 0;

    for (size_t i = 0; i < n; i++) {
        const double off = fabs(a[i] - b[i]);

        d = fmax(d, isnan(off) ? INFINITY : off);       /* on either side: no number agrees with none */
    }
    return d;
}

static void note(struct check_result *result, int step, const char *what, double found, double bound)
{
    if (result->first_bad < 0 || !result->where[0])
        snprintf(result->where, sizeof(result->where), "step %d: %s differs by %.1e, at most %.1e", step, what, found, bound);
    if (result->first_bad < 0)
        result->first_bad = step;
}

/* Everything the file says about step t. */
static void compare_step(const struct libero_slot *slot, const struct rollout *g, size_t t, struct check_result *result)
{
    const mjData *data = slot->mujoco.data;
    const size_t nq = (size_t)slot->model.nq, nu = (size_t)slot->model.nu;
    const bool reference = slot->memory.order == LIBERO_REFERENCE;
    const double bound = fmax(1e-9, (reference ? 100 : 10) * g->bound[t]);
    const double qpos = largest(data->qpos, g->qpos + t * nq, nq), ctrl = largest(data->ctrl, g->ctrl + t * nu, nu);

    if (qpos > result->qpos)
        result->bound = bound;
    result->qpos = fmax(result->qpos, qpos);
    if (qpos > bound)
        note(result, (int)t, "qpos", qpos, bound);
    if (!reference)
        return;
    result->ctrl = fmax(result->ctrl, ctrl);
    if (ctrl > TORQUE * bound)
        note(result, (int)t, "ctrl", ctrl, TORQUE * bound);
    for (size_t i = 0; i < ARRAY_SIZE(observed); i++) {
        const double *mine = (const double *)(const void *)((const char *)&slot->memory.observation + observed[i].offset);
        const double d = largest(mine, g->obs[i] + t * (size_t)observed[i].n, (size_t)observed[i].n);

        result->observation = fmax(result->observation, d);
        if (d > bound * observed[i].per)
            note(result, (int)t, observed[i].name, d, bound * observed[i].per);
    }
    if (data->ncon != (int)g->ncon[t]) {
        result->contacts_differ++;
        note(result, (int)t, "number of contacts", data->ncon - g->ncon[t], 0);
    }
    if (libero_success(slot) != (g->done[t] != 0)) {
        result->wrong++;
        note(result, (int)t, "success", 1, 0);
    }
}

int check_physics(const struct libero_task *task, const char *path, enum libero_order order, struct check_result *ret,
                  struct error *error)
{
    _cleanup_(zip_closep) struct zip_archive *file = NULL;
    _cleanup_(libero_slot_release) struct libero_slot slot = {0};
    _cleanup_(release) struct rollout g = {0};
    double poses[LIBERO_MAX_FIXTURES][7] = {0};
    int r = zip_open(path, &file, error);

    if (r == 0)
        r = read_rollout(task, file, order, &g, error);
    if (r == 0)
        r = check_read_fixtures(task, file, poses, error);
    if (r < 0)
        return r;
    if (libero_slot_init(&slot, task, order) < 0)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    r = libero_set_state(&slot, g.init, poses);
    if (r < 0)
        return error_set(error, -r, "%s: its init_state breaks the simulation", path);
    memcpy(slot.mujoco.data->qacc_warmstart, g.warmstart, sizeof(double) * (size_t)task->model->nv); /* the only hidden state */

    *ret = (struct check_result) { .first_bad = -1 };
    for (size_t t = 0; t < g.steps && r == 0; t++) {
        r = libero_step(&slot, g.actions + 7 * t);
        if (r == 0)
            compare_step(&slot, &g, t, ret);
        ret->compared++;
    }
    return r < 0 ? error_set(error, -r, "%s: the simulation broke at step %d", path, ret->compared - 1) : 0;
}

/* ---- predicates ------------------------------------------------------------------------------------------------ */

/* "on a b" */
static int read_statement(char *text, struct bddl_statement *ret)
{
    char *save, *word = strtok_r(text, " ", &save);
    int k;

    for (k = 0; word && k < BDDL_PREDICATES; k++)
        if (strcmp(word, bddl_predicate_name[k]) == 0)
            break;
    *ret = (struct bddl_statement) { .predicate = (enum bddl_predicate)k, .first = strtok_r(NULL, " ", &save) };
    ret->second = strtok_r(NULL, " ", &save);
    return word && k < BDDL_PREDICATES && ret->first ? 0 : -EINVAL;
}

struct truths {
    char (*text)[400];
    struct bddl_statement *statements;
    size_t n;
};

static void release_truths(struct truths *t)
{
    free(t->text);
    free(t->statements);
}

static int read_truths(const struct libero_task *task, const struct zip_archive *file, struct truths *ret, struct error *error)
{
    _cleanup_(npy_release) struct npy names = {0};
    int r = npy_read(file, "predicates", &names, error);

    if (r < 0)
        return r;
    if (!names.count)
        return error_set(error, EINVAL, "%s: no predicates in it", file->path);
    ret->n = names.count;
    ret->text = calloc(names.count + 1, sizeof(*ret->text));
    ret->statements = calloc(names.count + 1, sizeof(*ret->statements));
    if (!ret->text || !ret->statements)
        return error_set(error, ENOMEM, "%s: out of memory", file->path);
    for (size_t i = 0; i < names.count && r == 0; i++) {
        if (npy_text(&names, i, ret->text[i], sizeof(ret->text[i])) < 0 || read_statement(ret->text[i], &ret->statements[i]) < 0)
            return error_set(error, EINVAL, "%s: predicate %zu cannot be read", file->path, i);
        r = predicate_check(task, &ret->statements[i], error);
    }
    return r;
}

static void compare_truths(const struct libero_slot *slot, const struct truths *t, const double *golden, const char *state,
                           const char *when, struct check_result *result)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct bddl_statement *s = &t->statements[i];
        const bool holds = predicate_holds(slot->task, slot->mujoco.data, s);

        result->compared++;
        if (holds == (golden[i] != 0))
            continue;
        if (!result->wrong++)
            snprintf(result->where, sizeof(result->where), "state %s %s: (%s %s %s) is %d, expected %d", state, when,
                     bddl_predicate_name[s->predicate], s->first, s->second ? s->second : "", holds, !holds);
    }
}

static const double no_op[7] = { 0, 0, 0, 0, 0, 0, -1 };

/* What the original said of each state: after a forward pass, and after one step with no_op. */
struct reference {
    struct truths truths;
    double poses[LIBERO_MAX_FIXTURES][7];       /* of the fixtures, the same for all */
    size_t n;                   /* states */
    double *states;             /* [n][task->init.width] */
    double *fwd, *step;         /* [n][truths.n]: which predicates hold */
    double *success, *done;     /* [n]: is the goal reached */
    double *contacts;           /* [n]: after the forward pass */
    struct npy names;           /* [n] */
};

static void release_reference(struct reference *reference)
{
    release_truths(&reference->truths);
    free(reference->states);
    free(reference->fwd);
    free(reference->step);
    free(reference->success);
    free(reference->done);
    free(reference->contacts);
    npy_release(&reference->names);
}

static int read_reference(const struct libero_task *task, const struct zip_archive *file, struct reference *ret,
                          struct error *error)
{
    int r = read_truths(task, file, &ret->truths, error);

    if (r == 0)
        r = check_read_fixtures(task, file, ret->poses, error);
    if (r == 0)
        r = check_read_rows(file, "states", (size_t)task->init.width, &ret->states, &ret->n, error);
    if (r == 0)
        r = check_read_exactly(file, "fwd", ret->truths.n, ret->n, &ret->fwd, error);
    if (r == 0)
        r = check_read_exactly(file, "step", ret->truths.n, ret->n, &ret->step, error);
    if (r == 0)
        r = check_read_exactly(file, "fwd_success", 1, ret->n, &ret->success, error);
    if (r == 0)
        r = check_read_exactly(file, "step_done", 1, ret->n, &ret->done, error);
    if (r == 0)
        r = check_read_exactly(file, "fwd_ncon", 1, ret->n, &ret->contacts, error);
    if (r == 0)
        r = npy_read(file, "state_names", &ret->names, error);
    return r;
}

int check_predicates(const struct libero_task *task, const char *path, struct check_result *ret, struct error *error)
{
    _cleanup_(zip_closep) struct zip_archive *file = NULL;
    _cleanup_(libero_slot_release) struct libero_slot slot = {0};
    _cleanup_(release_reference) struct reference g = {0};
    int r = zip_open(path, &file, error);

    if (r == 0)
        r = read_reference(task, file, &g, error);
    if (r < 0)
        return r;
    if (libero_slot_init(&slot, task, LIBERO_REFERENCE) < 0)
        return error_set(error, ENOMEM, "%s: out of memory", path);

    *ret = (struct check_result) { .first_bad = -1 };
    for (size_t i = 0; i < g.n; i++) {
        char name[100] = "?";

        if (i < g.names.count)
            npy_text(&g.names, i, name, sizeof(name));
        r = libero_set_state(&slot, g.states + i * (size_t)task->init.width, g.poses);
        if (r < 0)
            return error_set(error, -r, "%s: state %s breaks the simulation", path, name);
        compare_truths(&slot, &g.truths, g.fwd + i * g.truths.n, name, "after forward", ret);
        ret->wrong += libero_success(&slot) != (g.success[i] != 0);
        ret->contacts_differ += slot.mujoco.data->ncon != (int)g.contacts[i];
        r = libero_step(&slot, no_op);
        if (r < 0)
            return error_set(error, -r, "%s: a step from state %s breaks the simulation", path, name);
        compare_truths(&slot, &g.truths, g.step + i * g.truths.n, name, "after a step", ret);
        ret->wrong += libero_success(&slot) != (g.done[i] != 0);
        ret->compared += 2;
    }
    return 0;
}

bool check_passed(const struct check_result *result)
{
    return result->compared > 0 && result->first_bad < 0 && result->wrong == 0 && result->contacts_differ == 0;
}
