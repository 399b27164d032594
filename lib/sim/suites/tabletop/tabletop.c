#include "sim/suites/tabletop/tabletop.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/crc32c.h"

static const char arm_xml[] =
#include "lib/sim/suites/tabletop/arm.xml.inc"
;

static const struct tabletop_rules *const tasks[] = {       /* by level: 0 0 1 1 2 2 3 3 */
    &tabletop_pick, &tabletop_push, &tabletop_stack, &tabletop_drawer, &tabletop_sort, &tabletop_pour, &tabletop_assemble,
    &tabletop_tool
};

static const struct { const char *word; float rgba[4]; } palette[] = {
    { "red",   {.85f, .12f, .12f, 1} },
    { "green", {.12f, .70f, .15f, 1} },
    { "blue",  {.12f, .20f, .90f, 1} },
};

static struct tabletop_slot *slot_of(struct sim_slot *slot) { return (struct tabletop_slot *)slot; }
static const struct tabletop_slot *const_slot_of(const struct sim_slot *slot) { return (const struct tabletop_slot *)slot; }

/* ---- tasks --------------------------------------------------------------------------------------- */

static struct sim_task_info infos[ARRAY_SIZE(tasks)];

static void fill_infos(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(tasks); i++) {
        infos[i] = tasks[i]->info;
        infos[i].cameras = TABLETOP_CAMERAS;
        infos[i].action_dims = SIM_ACTION_DIMS;
        infos[i].proprio = 5;
    }
}

static int list_tasks(const struct sim_suite *suite _unused_, const struct sim_task_info **ret_infos)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;     /* asked from the loop and from simulation threads */

    pthread_once(&once, fill_infos);
    *ret_infos = infos;
    return (int)ARRAY_SIZE(tasks);
}

static struct sim_task *task_close(struct sim_task *base)
{
    struct tabletop_task *task = (struct tabletop_task *)base;

    if (task->model)
        mj_deleteModel(task->model);
    free(task);
    return NULL;
}

static int free_joint_qpos(const mjModel *model, int body)
{
    return body < 0 ? -1 : model->jnt_qposadr[model->body_jntadr[body]];
}

static int mocap_id(const mjModel *model, const char *name)
{
    int body = mj_name2id(model, mjOBJ_BODY, name);

    return body < 0 ? -1 : model->body_mocapid[body];
}

static int find_parts(struct tabletop_task *task, struct error *error)
{
    static const char *const discs[2] = { "disc1", "disc2" };
    const char *const *name = task->rules->parts;
    const mjModel *model = task->model;
    int i, drawer = mj_name2id(model, mjOBJ_JOINT, "drawer");

    task->camera[0] = mj_name2id(model, mjOBJ_CAMERA, "front");
    task->camera[1] = mj_name2id(model, mjOBJ_CAMERA, "hand");
    task->block = mj_name2id(model, mjOBJ_BODY, "block");
    task->base_block = mj_name2id(model, mjOBJ_BODY, "base");
    task->block_geom = mj_name2id(model, mjOBJ_GEOM, "block");
    task->base_geom = mj_name2id(model, mjOBJ_GEOM, "base");
    task->block_qpos = free_joint_qpos(model, task->block);
    task->base_qpos = free_joint_qpos(model, task->base_block);
    task->disc = mocap_id(model, "disc");
    task->cabinet = mocap_id(model, "cabinet");
    task->drawer_qpos = drawer < 0 ? -1 : model->jnt_qposadr[drawer];
    for (i = 0; i < 2; i++) {
        task->discs[i] = mocap_id(model, discs[i]);
        task->disc_geoms[i] = mj_name2id(model, mjOBJ_GEOM, discs[i]);
    }
    for (i = 0; name && name[i]; i++) {
        if (i == TABLETOP_PARTS)
            return error_set(error, EINVAL, "task %s: more than %d parts", task->rules->info.name, TABLETOP_PARTS);
        task->parts[i] = mj_name2id(model, mjOBJ_BODY, name[i]);
        if (task->parts[i] < 0)
            return error_set(error, EINVAL, "task %s: its scene has no body '%s'", task->rules->info.name, name[i]);
    }
    return 0;
}

static int task_open(struct sim_suite *suite _unused_, int index, struct sim_task **ret, struct error *error)
{
    const struct mujoco_file files[] = { tasks[index]->mjcf, { "arm.xml", arm_xml } };
    struct tabletop_task *task = calloc(1, sizeof(*task));
    int r;

    if (!task)
        return error_set(error, ENOMEM, "task %s: out of memory", tasks[index]->info.name);
    task->rules = tasks[index];
    r = mujoco_compile(files, ARRAY_SIZE(files), &task->model, error);
    if (r == 0)
        r = arm_check(task->model, error);
    if (r == 0)
        r = find_parts(task, error);
    if (r < 0) {
        task_close(&task->base);
        return r;
    }
    *ret = &task->base;
    return 0;
}

/* ---- slots --------------------------------------------------------------------------------------- */

static struct sim_slot *slot_free(struct sim_slot *base)
{
    mujoco_slot_release(&slot_of(base)->mujoco);
    free(base);
    return NULL;
}

static int slot_new(struct sim_task *task, struct sim_slot **ret)
{
    struct tabletop_slot *slot = calloc(1, sizeof(*slot));
    int r;

    if (!slot)
        return -ENOMEM;
    slot->base.task = task;
    slot->task = (struct tabletop_task *)task;
    r = mujoco_slot_init(&slot->mujoco, slot->task->model);
    if (r < 0) {
        free(slot);
        return r;
    }
    *ret = &slot->base;
    return 0;
}

/* The wording with %1 and %2 replaced by the colours' words. */
static void write_instruction(struct tabletop_slot *slot)
{
    const char *from = slot->task->rules->wordings[slot->memory.wording];
    size_t used = 0;

    for (; *from && used < sizeof(slot->instruction) - 1; from++) {
        if (*from == '%') {
            const char *word = palette[slot->memory.color[*++from - '1']].word;
            size_t n = MIN(strlen(word), sizeof(slot->instruction) - 1 - used);

            memcpy(slot->instruction + used, word, n);
            used += n;
        } else {
            slot->instruction[used++] = *from;
        }
    }
    slot->instruction[used] = '\0';
}

static uint32_t count_wordings(const struct tabletop_rules *rules)
{
    uint32_t n = 0;

    while (rules->wordings[n])
        n++;
    return n;
}

/* The hand's x takes values of which every third belongs to one split: whatever the seeds, no two splits share a state. */
static double hand_x(struct philox *draws, enum sim_split split)
{
    double cell = 3.0 * philox_below(draws, 1u << 20) + split + 0.5;

    return -0.10 + 0.12 * cell / (3.0 * (1u << 20));
}

static int reset(struct sim_slot *base, enum sim_split split, uint64_t seed, const char **ret_instruction)
{
    struct tabletop_slot *slot = slot_of(base);
    const struct tabletop_rules *rules = slot->task->rules;
    uint32_t task_key = crc32c(0, rules->info.name, strlen(rules->info.name));
    struct philox draws = philox_at(seed, PHILOX_STATE, task_key, split, 0);
    struct philox wording = philox_at(seed, PHILOX_WORDING, task_key, split, 0);
    double hand[3];

    memset(&slot->memory, 0, sizeof(slot->memory));
    mujoco_slot_clear(&slot->mujoco);

    hand[0] = hand_x(&draws, split);
    hand[1] = tabletop_uniform(&draws, -0.06, 0.06);
    hand[2] = tabletop_uniform(&draws, 0.13, 0.17);
    arm_reset(&slot->mujoco, &slot->memory.target, hand);
    slot->memory.color[0] = philox_below(&draws, ARRAY_SIZE(palette));
    slot->memory.color[1] = (slot->memory.color[0] + 1 + philox_below(&draws, ARRAY_SIZE(palette) - 1)) % ARRAY_SIZE(palette);
    rules->place(slot, &draws);
    mujoco_slot_place(&slot->mujoco);

    slot->memory.wording = philox_below(&wording, count_wordings(rules));
    write_instruction(slot);
    if (ret_instruction)
        *ret_instruction = slot->instruction;
    return 0;
}

static int step(struct sim_slot *base, const float action[SIM_ACTION_DIMS], bool *ret_success)
{
    struct tabletop_slot *slot = slot_of(base);
    int r;

    arm_command(&slot->mujoco, &slot->memory.target, action);
    r = mujoco_slot_step(&slot->mujoco, ARM_SUBSTEPS);
    if (r < 0)
        return r;
    if (slot->task->rules->success(slot))
        slot->memory.latched = 1;
    if (ret_success)
        *ret_success = slot->memory.latched;
    return 0;
}

static bool success(const struct sim_slot *base)
{
    const struct tabletop_slot *slot = const_slot_of(base);

    return slot->memory.latched || slot->task->rules->success(slot);
}

static int expert(struct sim_slot *base, float ret_action[SIM_ACTION_DIMS])
{
    struct tabletop_slot *slot = slot_of(base);
    float action[SIM_ACTION_DIMS] = {0, 0, 0, 0, 0, 0, GRIPPER_OPEN};

    if (slot->mujoco.broken)
        return -EIO;
    slot->task->rules->expert(slot, action);
    memcpy(ret_action, action, sizeof(action));
    return 0;
}

/* ---- state bytes: memory, then MuJoCo's doubles ------------------------------------------------------ */

static size_t state_size(const struct sim_task *task)
{
    const mjModel *model = ((const struct tabletop_task *)task)->model;

    return sizeof(struct tabletop_memory) + sizeof(double) * (size_t)mujoco_state_doubles(model);
}

static int save(struct sim_slot *base, void *ret_state)
{
    const struct tabletop_slot *slot = const_slot_of(base);
    unsigned char *bytes = ret_state;

    memcpy(bytes, &slot->memory, sizeof(slot->memory));
    mujoco_slot_save(&slot->mujoco, (double *)(bytes + sizeof(slot->memory)));
    return 0;
}

static int restore(struct sim_slot *base, const void *state)
{
    struct tabletop_slot *slot = slot_of(base);
    const unsigned char *bytes = state;
    struct tabletop_memory memory;

    memcpy(&memory, bytes, sizeof(memory));
    if (memory.color[0] >= ARRAY_SIZE(palette) || memory.color[1] >= ARRAY_SIZE(palette) ||
        memory.wording >= count_wordings(slot->task->rules))
        return -EINVAL;

    slot->memory = memory;
    mujoco_slot_restore(&slot->mujoco, (const double *)(bytes + sizeof(memory)));
    write_instruction(slot);
    return 0;
}

/* The hand's place, its yaw, the fingers. */
static int proprio(const struct sim_slot *base, float *ret)
{
    const struct mujoco_slot *mujoco = &const_slot_of(base)->mujoco;

    for (int i = 0; i <= ARM_YAW; i++)
        ret[i] = (float)mujoco->data->qpos[i];
    ret[ARM_YAW + 1] = (float)arm_opening(mujoco);
    return 0;
}

static void view(struct sim_slot *base, int camera, struct mujoco_view *ret)
{
    struct tabletop_slot *slot = slot_of(base);
    const struct tabletop_task *task = slot->task;
    const int geoms[4] = { task->block_geom, task->base_geom, task->disc_geoms[0], task->disc_geoms[1] };
    int i;

    *ret = (struct mujoco_view) { .model = task->model, .data = slot->mujoco.data, .camera = task->camera[camera] };
    for (i = 0; i < 4; i++)
        if (geoms[i] >= 0) {
            ret->paint[ret->n_paint].geom = geoms[i];
            memcpy(ret->paint[ret->n_paint++].rgba, palette[slot->memory.color[i % 2]].rgba, sizeof(palette[0].rgba));
        }
}

/* ---- helpers of the task files ------------------------------------------------------------------------ */

double tabletop_uniform(struct philox *draws, double lo, double hi)
{
    return lo + (hi - lo) * philox_uniform53(draws);
}

void tabletop_put(struct tabletop_slot *slot, int qpos, double x, double y, double z, double yaw)
{
    double *q = slot->mujoco.data->qpos + qpos;

    q[0] = x;
    q[1] = y;
    q[2] = z;
    q[3] = cos(yaw / 2);
    q[4] = q[5] = 0;
    q[6] = sin(yaw / 2);
}

void tabletop_put_block(struct tabletop_slot *slot, int qpos, double x, double y, double yaw)
{
    tabletop_put(slot, qpos, x, y, BLOCK_HALF, yaw);
}

int tabletop_part_qpos(const struct tabletop_slot *slot, int part)
{
    return free_joint_qpos(slot->task->model, slot->task->parts[part]);
}

int tabletop_part_mocap(const struct tabletop_slot *slot, int part)
{
    return slot->task->model->body_mocapid[slot->task->parts[part]];
}

bool tabletop_in_the_way(const double a[2], const double b[2])
{
    return tabletop_distance_xy(a, b) < 0.11 || (fabs(a[0] - b[0]) < 0.055 && fabs(a[1] - b[1]) < 0.13);
}

const double *tabletop_position(const struct tabletop_slot *slot, int body)
{
    return slot->mujoco.data->xpos + 3 * body;
}

void tabletop_go(const struct tabletop_slot *slot, double x, double y, double z, float action[SIM_ACTION_DIMS])
{
    const double *hand = arm_hand(&slot->mujoco), to[3] = {x, y, z};
    int i;

    for (i = 0; i < 3; i++)
        action[i] = (float)CLAMP((to[i] - hand[i]) / ARM_REACH, -1.0, 1.0);
}

double tabletop_distance_xy(const double a[2], const double b[2])
{
    return hypot(a[0] - b[0], a[1] - b[1]);
}

const struct sim_suite_driver suite_tabletop = {
    .name = "tabletop",
    .tasks = list_tasks, .task_open = task_open, .task_close = task_close,
    .slot_new = slot_new, .slot_free = slot_free,
    .reset = reset, .step = step, .success = success, .expert = expert, .demonstrate = tabletop_demonstrate,
    .perturb = tabletop_perturb, .proprio = proprio,
    .state_size = state_size, .save = save, .restore = restore,
    .view = view,
};
