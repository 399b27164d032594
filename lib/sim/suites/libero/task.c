#include "sim/suites/libero/task.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "sim/suites/libero/placement.h"
#include "sim/suites/libero/predicates.h"
#include "sim/suites/libero/xml.h"

int libero_thing(const struct libero_task *task, const char *name)
{
    for (int i = 0; i < task->n_things; i++)
        if (strcmp(task->things[i].name, name) == 0)
            return i;
    return -1;
}

int libero_region(const struct libero_task *task, const char *name)
{
    for (int i = 0; i < task->problem->n_regions; i++)
        if (strcmp(task->regions[i].name, name) == 0)
            return i;
    return -1;
}

void libero_prompt(const char *stem, char *ret, size_t n)
{
    const char *scene = isupper((unsigned char)stem[0]) ? strstr(stem, "SCENE") : NULL;
    size_t i;

    if (scene)
        stem = scene + (strstr(scene, "SCENE10") == scene ? 8 : 7);
    for (i = 0; stem[i] && i < n - 1; i++)
        ret[i] = stem[i] == '_' ? ' ' : stem[i];
    ret[i] = '\0';
}

/* ---- names to ids -------------------------------------------------------------------------------------- */

static bool inside(const mjModel *model, int body, int root)
{
    while (body > root)
        body = model->body_parentid[body];
    return body == root;
}

/* The first body of the file's worldbody holds sites that say how far the object reaches; they are not in the model. */
static int read_extent(const struct libero_assets *assets, struct libero_thing *thing, struct error *error)
{
    static const char *const names[3] = { "bottom_site", "top_site", "horizontal_radius_site" };
    double *const to[3] = { &thing->bottom, &thing->top, &thing->radius };
    _cleanup_(xml_freep) struct xml_node *root = NULL;
    char path[4096];
    int r;

    snprintf(path, sizeof(path), "%s/assets/%s.xml", assets->libero, thing->category->file);
    r = xml_read(path, &root, error);
    if (r < 0)
        return r;
    for (int i = 0; i < 3; i++) {
        const struct xml_node *site = xml_find(root, "site", names[i]);
        const char *pos = site ? xml_get(site, "pos") : NULL;
        double xyz[3];

        if (!pos || sscanf(pos, "%lf %lf %lf", &xyz[0], &xyz[1], &xyz[2]) != 3)
            return error_set(error, EINVAL, "%s: expected a site '%s' with pos=\"x y z\" in it", path, names[i]);
        *to[i] = xyz[i == 2 ? 0 : 2];
    }
    return 0;
}

static int find_joints(const struct libero_task *task, struct libero_thing *thing, struct error *error)
{
    const mjModel *model = task->model;

    for (int j = 0; j < model->njnt; j++) {
        if (!inside(model, model->jnt_bodyid[j], thing->body))
            continue;
        if (model->jnt_type[j] == mjJNT_FREE) {
            thing->free_qpos = model->jnt_qposadr[j];
            thing->free_dof = model->jnt_dofadr[j];
        } else if (thing->n_joints == LIBERO_MAX_JOINTS) {
            return error_set(error, EINVAL, "%s: '%s' has more than %d joints", task->problem->file, thing->name,
                             LIBERO_MAX_JOINTS);
        } else {
            thing->joints[thing->n_joints++] = model->jnt_qposadr[j];
        }
    }
    return 0;
}

static int find_things(struct libero_task *task, const struct libero_assets *assets, struct error *error)
{
    const struct bddl_problem *problem = task->problem;
    int fixtures = 0, r = 0;

    for (int i = 0; i < problem->n_objects + problem->n_fixtures && r == 0; i++) {
        const bool movable = i < problem->n_objects;
        const struct bddl_thing *from = movable ? &problem->objects[i] : &problem->fixtures[i - problem->n_objects];
        struct libero_thing *thing = &task->things[task->n_things];
        char body[200];

        if (!movable && strcmp(from->name, task->arena->workspace) == 0)
            continue;
        if (!movable && ++fixtures > LIBERO_MAX_FIXTURES)
            return error_set(error, EINVAL, "%s: more than %d fixtures", problem->file, LIBERO_MAX_FIXTURES);
        snprintf(body, sizeof(body), "%s_main", from->name);
        *thing = (struct libero_thing) { .name = from->name, .category = libero_category(from->category), .movable = movable,
                                         .body = mj_name2id(task->model, mjOBJ_BODY, body), .free_qpos = -1, .free_dof = -1 };
        if (thing->body < 0)
            return error_set(error, EINVAL, "%s: the model has no body %s", problem->file, body);
        task->n_things++;
        task->n_objects += movable;
        r = find_joints(task, thing, error);
        if (r == 0)
            r = read_extent(assets, thing, error);
    }
    return r;
}

static bool has_region_site(const struct libero_task *task, int body, const struct libero_thing *thing)
{
    char own[200];

    snprintf(own, sizeof(own), "%s_default_site", thing->name);
    for (int s = 0; s < task->model->nsite; s++)
        if (inside(task->model, task->model->site_bodyid[s], body) && strcmp(mj_id2name(task->model, mjOBJ_SITE, s), own) != 0)
            return true;
    return false;
}

/* The joints that move a region are those of the last body, in document order, whose subtree holds the site; the search stops at
 * the first body without any site. */
static void find_region_joints(const struct libero_task *task, struct libero_region *region)
{
    const mjModel *model = task->model;
    const struct libero_thing *thing = &task->things[region->parent];

    for (int body = thing->body; body < model->nbody && inside(model, body, thing->body); body++) {
        if (!has_region_site(task, body, thing))
            break;
        if (!inside(model, model->site_bodyid[region->site], body))
            continue;
        region->n_joints = 0;
        for (int j = 0; j < model->body_jntnum[body] && j < LIBERO_MAX_JOINTS; j++)
            if (model->jnt_type[model->body_jntadr[body] + j] != mjJNT_FREE)
                region->joints[region->n_joints++] = model->jnt_qposadr[model->body_jntadr[body] + j];
    }
}

static void find_regions(struct libero_task *task)
{
    for (int i = 0; i < task->problem->n_regions; i++) {
        struct libero_region *region = &task->regions[i];

        region->name = task->problem->regions[i].name;
        region->site = mj_name2id(task->model, mjOBJ_SITE, region->name);
        region->parent = libero_thing(task, task->problem->regions[i].target);
        if (region->site >= 0 && region->parent >= 0)
            find_region_joints(task, region);
    }
}

static int find_owners(struct libero_task *task, struct error *error)
{
    const mjModel *model = task->model;

    task->geom_owner = malloc(sizeof(*task->geom_owner) * (size_t)model->ngeom);
    if (!task->geom_owner)
        return error_set(error, ENOMEM, "%s: out of memory", task->problem->file);
    for (int g = 0; g < model->ngeom; g++) {
        task->geom_owner[g] = -1;
        for (int i = 0; i < task->n_things && model->geom_group[g] == 0; i++)
            if (inside(model, model->geom_bodyid[g], task->things[i].body))
                task->geom_owner[g] = (int16_t)i;
    }
    return 0;
}

static int find_robot(struct libero_task *task, struct error *error)
{
    const mjModel *model = task->model;

    task->grip_site = mj_name2id(model, mjOBJ_SITE, "gripper0_grip_site");
    task->hand_body = mj_name2id(model, mjOBJ_BODY, "robot0_right_hand");
    task->cameras[0] = mj_name2id(model, mjOBJ_CAMERA, "agentview");
    task->cameras[1] = mj_name2id(model, mjOBJ_CAMERA, "robot0_eye_in_hand");
    if (task->grip_site < 0 || task->hand_body < 0 || task->cameras[0] < 0 || task->cameras[1] < 0 || model->nu != ARM + 2 ||
        model->nq < ARM + 2 || mj_name2id(model, mjOBJ_JOINT, "robot0_joint1") != 0)
        return error_set(error, EINVAL, "%s: the model is not the Panda arm with its gripper first (other robosuite?)",
                         task->problem->file);
    task->burner_site = task->stove = -1;
    for (int i = 0; i < task->n_things; i++)
        if (task->things[i].category->turnon.sign) {
            char site[200];

            snprintf(site, sizeof(site), "%s_burner", task->things[i].name);
            task->stove = i;
            task->burner_site = mj_name2id(model, mjOBJ_SITE, site);
        }
    return 0;
}

/* Published evaluation: seed 0 once, row k after the k-th reset. */
static int draw_resets(struct libero_task *task, mjData *scratch, struct error *error)
{
    _cleanup_free_ struct placement_stream *stream = malloc(sizeof(*stream));
    _cleanup_free_ struct placement *drawn = malloc(sizeof(*drawn));
    int r = 0;

    task->reset_fixtures = calloc((size_t)task->init.rows, sizeof(*task->reset_fixtures));
    if (!stream || !drawn || !task->reset_fixtures)
        return error_set(error, ENOMEM, "%s: out of memory", task->problem->file);
    placement_seed(stream, 0);
    for (int i = 0; i < task->init.rows && r == 0; i++) {
        r = placement_draw(stream, task, scratch, drawn, error);
        if (r == 0)
            memcpy(task->reset_fixtures[i], drawn->fixture_pose, sizeof(drawn->fixture_pose));
    }
    return r;
}

/* The arm's pose at rest, everything else at qpos0: what robosuite's controller has seen when a reset ends. */
static int measure_rest(struct libero_task *task, struct error *error)
{
    mjData *data = mj_makeData(task->model);
    int r;

    if (!data)
        return error_set(error, ENOMEM, "%s: out of memory", task->problem->file);
    memcpy(data->qpos, controller_rest_posture, sizeof(controller_rest_posture));
    mj_kinematics(task->model, data);
    mj_comPos(task->model, data);
    mj_crb(task->model, data);
    controller_cache(&task->rest, task->model, data, task->grip_site);
    controller_reset(&task->rest);
    r = draw_resets(task, data, error);
    mj_deleteData(data);
    return r;
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static int open_parts(struct libero_task *task, const struct libero_assets *assets, const char *cache, struct error *error)
{
    const char *suite = task->suite->name, *stem = task->suite->tasks[task->index];
    char path[4096];
    int r;

    snprintf(path, sizeof(path), "%s/bddl_files/%s/%s.bddl", assets->libero, suite, stem);
    r = bddl_read(path, &task->problem, error);
    if (r < 0)
        return r;
    r = model_open(assets, task->problem, cache, &task->model, error);
    if (r < 0)
        return r;
    task->arena = libero_arena(task->problem->problem);
    snprintf(path, sizeof(path), "%s/init_files/%s/%s.pruned_init", assets->libero, suite, stem);
    r = init_states_read(path, 1 + (int)task->model->nq + (int)task->model->nv, &task->init, error);
    if (r == 0 && task->init.rows != LIBERO_TEST_STATES)
        r = error_set(error, EINVAL, "%s: %d rows; the benchmark has %d test states", path, task->init.rows, LIBERO_TEST_STATES);
    if (r == 0)
        r = find_things(task, assets, error);
    if (r < 0)
        return r;
    find_regions(task);
    r = find_owners(task, error);
    if (r == 0)
        r = find_robot(task, error);
    for (int i = 0; i < task->problem->n_goal && r == 0; i++)
        r = predicate_check(task, &task->problem->goal[i], error);
    return r < 0 ? r : measure_rest(task, error);
}

int libero_task_open(const struct libero_assets *assets, const char *cache, const struct libero_suite *suite, int index,
                     struct libero_task **ret, struct error *error)
{
    _cleanup_(libero_task_closep) struct libero_task *task = calloc(1, sizeof(*task));
    int r;

    if (!task)
        return error_set(error, ENOMEM, "task %s: out of memory", suite->tasks[index]);
    task->suite = suite;
    task->index = index;
    libero_prompt(suite->tasks[index], task->prompt, sizeof(task->prompt));
    r = open_parts(task, assets, cache, error);
    if (r == 0)
        *ret = TAKE_PTR(task);
    return r;
}

struct libero_task *libero_task_close(struct libero_task *task)
{
    if (!task)
        return NULL;
    model_close(task->model);
    init_states_release(&task->init);
    bddl_free(task->problem);
    free(task->geom_owner);
    free(task->reset_fixtures);
    free(task);
    return NULL;
}
