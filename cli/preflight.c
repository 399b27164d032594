/* preflight.c - what a run needs of this machine's memory and disk, beside what there is. */
#include <errno.h>
#include <sys/statvfs.h>

#include "cli/preflight_internal.h"
#include "daemon/memory_available.h"
#include "nn/models/openvla_start.h"
#include "sim/sim.h"

#define MB (1024.0 * 1024.0)

/* What a process needs beside weights, measured on the demo and doubled; MB. */
enum { BASE_MB = 40, WORKER_MB = 260, RENDER_SLOT_MB = 12 };
enum { LIBERO_MODEL_MB = 100, LIBERO_PICTURES_MB = 350 };       /* of each task in each worker; pictures: where the CPU draws */

enum { STEPS_GUESS = 60, STEP_BYTES = 512 /* beside its pictures */, KEEP_POLICIES = 6 };

/* Observations of an episode that the policy plays, from the first to the one it ends with. */
struct observations {
    double rollout;             /* over all tasks alike */
    double most;                /* in the task with the highest limit */
};

/* By every `turn`-th step. An episode may last to its limit; where that is not known here all steps of the guess count, as it may
 * well last longer. */
static struct observations count_observations(const struct run_config *c, int turn)
{
    struct observations n = {0};

    for (int i = 0; i < c->n_tasks; i++) {
        int limit = preflight_limit(c, i, c->max_steps);
        double here = limit ? (limit + turn - 1) / turn + 1 : STEPS_GUESS + 1;

        n.rollout += here / c->n_tasks;
        n.most = MAX(n.most, here);
    }
    return n;
}

/* Of all demonstrations; all have pictures. The expert fails, too, and then plays to the limit; a data set is there already. */
static double count_demos(const struct run_config *c, const struct demos_config *demos)
{
    double n = 0;

    if (demos->from[0])
        return preflight_dataset(demos->from);
    for (int i = 0; i < c->n_tasks; i++)
        n += ((preflight_limit(c, i, demos->max_steps) ?: STEPS_GUESS) + 1.0) / c->n_tasks;
    return demos->episodes * n;
}

/* What a slot of an env worker plays at most. */
static double longest(const struct run_config *c, const struct observations *drawn)
{
    double most = drawn->most;

    for (int i = 0; i < c->n_stages; i++)
        if (c->stages[i].kind == STAGE_DEMOS && !c->stages[i].demos.from[0])
            for (int k = 0; k < c->n_tasks; k++)
                most = MAX(most, (preflight_limit(c, k, c->stages[i].demos.max_steps) ?: STEPS_GUESS) + 1.0);
    return most;
}

/* Those that have pictures. chunk: actions that the policy answers at once. */
static struct observations count_drawn(const struct run_config *c, int chunk)
{
    return count_observations(c, c->draw == DRAW_TURNS && !c->prm_history ? MAX(chunk, 1) : 1);
}

/* The most observations that a learner holds at once. Imitation and the reward model take all that was played before; an
 * iteration of rl its own, while the next one arrives. */
static double frames_in_learner(const struct run_config *c, const struct observations *drawn)
{
    double demos = 0, own = 0, most = 0;

    for (int i = 0; i < c->n_stages; i++) {
        const struct stage_config *s = &c->stages[i];

        switch (s->kind) {
        case STAGE_DEMOS: demos += count_demos(c, &s->demos); break;
        case STAGE_ROLLOUTS: own += s->rollouts.episodes * drawn->rollout; break;
        case STAGE_SFT: most = MAX(most, s->sft.from == SFT_DEMOS ? demos : s->sft.from == SFT_ROLLOUTS ? own : demos + own);
            break;
        case STAGE_PRM: most = MAX(most, demos + own); break;
        case STAGE_RL: most = MAX(most, 2.0 * s->rl.episodes * drawn->most); break;
        default: break;
        }
    }
    return most;
}

/* Meshes and textures stay in a worker once their task has been played there, and a renderer has its own copy of those drawn last
 * (env_worker/simulation.c). */
static double scenes_needed(const struct run_config *c)
{
    const int drawn = strcmp(c->renderers, "software") ? 0 : MIN(c->n_tasks, MAX(SIM_RENDERER_TASKS, c->slots + 4));

    return strncmp(c->suite, "libero_", 7) == 0 ? (c->n_tasks * LIBERO_MODEL_MB + drawn * LIBERO_PICTURES_MB) * MB : 0;
}

static double memory_needed(const struct run_config *c, const struct model_needs *models)
{
    double picture = 3.0 * c->image * c->image, image = picture * c->cameras, slots = (double)c->env_workers * c->slots;
    const struct observations drawn = count_drawn(c, models->chunk);
    double need = BASE_MB * MB + models->shared;

    need += c->env_workers * (WORKER_MB * MB + scenes_needed(c));
    need += slots * (RENDER_SLOT_MB * MB + 2 * longest(c, &drawn) * image);
    need += c->n_actors * (BASE_MB * MB + models->actor + slots * image);
    need += c->n_prm_servers * (BASE_MB * MB + models->prm + slots * drawn.most * picture);     /* scored from the first camera */
    need += c->n_learners * (4 * BASE_MB * MB + models->learner);
    return need + frames_in_learner(c, &drawn) * image;
}

/* weights: of the policy, which the first version is. models->saved: of adapters in each version, beside the moments; 0: all
 * weights are. With adapters, the versions in which an sft stage ends are merged, and whole. */
static double disk_needed(const struct run_config *c, double weights, const struct model_needs *models)
{
    const struct observations drawn = count_drawn(c, models->chunk), all = count_observations(c, 1);
    double image = 2.0 * c->image * c->image * c->cameras;      /* lossless ones compress to about two thirds */
    double saved = models->saved, need = weights + KEEP_POLICIES * 4 * (saved > 0 ? saved : weights) + 64 * MB;

    for (int i = 0; i < c->n_stages; i++) {
        const struct stage_config *s = &c->stages[i];

        switch (s->kind) {
        case STAGE_DEMOS: need += s->demos.from[0] ? 0 : count_demos(c, &s->demos) * (image + STEP_BYTES); break;
        case STAGE_ROLLOUTS: need += s->rollouts.episodes * (drawn.rollout * image + all.rollout * STEP_BYTES); break;
        case STAGE_SFT: need += saved > 0 ? weights : 0; break;
        case STAGE_RL: need += (double)(c->journal_keep + 1) * s->rl.episodes * (drawn.most * image + all.most * STEP_BYTES);
            break;
        case STAGE_EVAL: need += (double)s->eval.n_policies * s->eval.episodes * 1024; break;
        default: break;
        }
    }
    return need;
}

/* Of the nearest directory that exists. */
static double disk_available(const char *run_dir)
{
    _cleanup_free_ char *path = strdup(run_dir);
    struct statvfs fs;

    while (path && statvfs(path, &fs) < 0) {
        char *slash = strrchr(path, '/');

        if (!slash || slash == path)
            return statvfs(slash ? "/" : ".", &fs) < 0 ? 0 : (double)fs.f_bavail * (double)fs.f_frsize;
        *slash = '\0';
    }
    return path ? (double)fs.f_bavail * (double)fs.f_frsize : 0;
}

/* The directory whose weights the run starts from: the copy in the run directory once it is there (later starts use it), before
 * that policy.init, or its base where that is an adapter. */
static int find_first(const struct run_config *config, const char *run_dir, char ret[PATH_MAX], bool *ret_copied,
                      struct error *error)
{
    int r;

    snprintf(ret, PATH_MAX, "%s/policies/v000000", run_dir);
    *ret_copied = access(ret, F_OK) == 0;
    if (*ret_copied)
        return 0;
    if (!openvla_start_is_adapter(config->policy_init)) {
        snprintf(ret, PATH_MAX, "%s", config->policy_init);
        return 0;
    }
    r = openvla_start_base(config->policy_init, config->policy_base, ret, error);
    return r < 0 ? error_prefix(error, r, "policy.init") : 0;
}

static int check_memory(const struct run_config *config, const struct model_needs *models, double needed, double available,
                        bool limited, struct error *error)
{
    double frames = memory_needed(config, &(struct model_needs) {.chunk = models->chunk});

    if (available <= 0 || needed <= available)
        return 0;
    return error_set(error, ENOMEM,
                     "the run needs about %.0f MB of memory, %.0f MB of it for the models, and %.0f MB are %s: lower "
                     "cluster.env_workers (%d), cluster.slots (%d), a LIBERO suite's tasks or the episodes of demos and "
                     "rollouts, train adapters (policy.train: lora), or spread it over more hosts",
                     needed / MB, (needed - frames) / MB, available / MB,
                     limited ? "left within the limit of this control group (container, job or unit)" : "free",
                     config->env_workers, config->slots);
}

/* What the policy answers and takes is what the suite takes and says. */
static int check_numbers(const struct run_config *config, const char *policy, const struct model_needs *models,
                         const struct suite_numbers *suite, struct error *error)
{
    if (suite->action && models->action_dims != suite->action)
        return error_set(error, EINVAL, "policy.init: %s: its actions have %d dimensions, the suite %s takes %d%s; name another "
                         "policy", policy, models->action_dims, config->suite, suite->action,
                         suite->action == SIM_ACTION_DIMS ? " (dx dy dz droll dpitch dyaw gripper)" : "");
    if (suite->state && models->state && models->state != suite->state)
        return error_set(error, EINVAL, "policy.init: %s: it takes %d numbers of the robot's state, the suite %s has %d; name another "
                         "policy (fresh: `gantry model oft ... --state %d`)", policy, models->state, config->suite, suite->state,
                         suite->state);
    return 0;
}

int preflight_check(const struct run_config *config, const char *run_dir, struct preflight *ret, struct error *error)
{
    double weights = 0, memory, disk, have_memory, have_disk = disk_available(run_dir);
    struct config_faults faults = {0};
    struct model_needs models = {0};
    bool limited, copied;
    struct suite_numbers suite = {.action = strcmp(config->suite, "remote") ? SIM_ACTION_DIMS : 0};
    int r;
    char first[PATH_MAX];

    if (!config->n_stages)
        return error_set(error, EINVAL, "stages: there are none, so there is nothing to do; `gantry demo --config` shows a "
                         "list of them");
    r = find_first(config, run_dir, first, &copied, error);
    if (r >= 0)
        r = preflight_weights(first, &weights, error);
    if (r >= 0 && config->env_workers)  /* with none here they are played where the suite's files are */
        preflight_tasks(config, &suite, &faults);
    r = r < 0 ? r : config_first_fault(&faults, error);
    if (r >= 0)
        r = preflight_stages(config, first, error);
    if (r >= 0)
        r = preflight_models(config, first, copied, &models, error);
    if (r < 0)
        return r;
    r = check_numbers(config, first, &models, &suite, error);
    if (r < 0)
        return r;
    memory = memory_needed(config, &models);
    have_memory = memory_available("", &limited);
    disk = disk_needed(config, weights, &models);
    if (ret) {
        *ret = (struct preflight) {.memory_bytes = (uint64_t)memory, .memory_available = (uint64_t)have_memory,
                                   .disk_bytes = (uint64_t)disk, .disk_available = (uint64_t)have_disk};
        memcpy(ret->fit, models.fit, sizeof ret->fit);
    }
    if (models.devices < 0)
        return models.devices;
    r = check_memory(config, &models, memory, have_memory, limited, error);
    if (r < 0)
        return r;
    if (disk > have_disk)
        return error_set(error, ENOSPC, "the run needs about %.0f MB of disk at %s, %.0f MB are free: put run.dir elsewhere, or "
                         "lower journal.keep (%d) or the episodes of demos and rollouts", disk / MB, run_dir, have_disk / MB,
                         config->journal_keep);
    return preflight_listen(config, error);
}
