#include "cli/preflight_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nn/device/device.h"
#include "nn/models/openvla_oft.h"
#include "nn/models/openvla_start.h"
#include "train/device_memory.h"

enum { ITEMS = 96, MEGA = 1 << 20, ROWS = 64 /* a batch of an actor, or of a prm_server */ };

struct needs {
    struct device_need act, score, policy, reward;      /* the last two: of who trains them */
    bool whole;                                         /* the policy is trained so */
};

struct item {
    char what[64];
    int64_t bytes;
    const char *knob;
};

struct on_device {
    char name[24];
    struct device_facts facts;
    struct item item[ITEMS]; int n;
    int64_t total;
};

/* ---- is it there? ------------------------------------------------------------------------------------------------ */

struct answer {
    int r;
    struct device_facts facts;
    char text[400];
};

/* A child asks: whoever has a CUDA context keeps hundreds of megabytes of every device it looked at, and `gantry up` lives as
 * long as the run. */
static int look(const char *name, struct device_facts *ret, struct error *error)
{
    struct answer answer = {.r = -EIO};
    int ends[2], status;
    ssize_t n;
    pid_t child;

    if (pipe(ends) < 0)
        return error_set(error, errno, "pipe: %s", strerror(errno));
    child = fork();
    if (child == 0) {
        struct error why = {0};

        close(ends[0]);
        answer.r = device_look(name, &answer.facts, &why);
        snprintf(answer.text, sizeof answer.text, "%s", answer.r < 0 ? error_text(&why, answer.r) : "");
        n = write(ends[1], &answer, sizeof answer);
        _exit(n == (ssize_t)sizeof answer ? 0 : 1);
    }
    close(ends[1]);
    n = child < 0 ? -1 : read(ends[0], &answer, sizeof answer);
    close(ends[0]);
    if (child > 0)
        (void)waitpid(child, &status, 0);
    if (n != (ssize_t)sizeof answer)
        return error_set(error, EIO, "%s: the driver ended the process that asked for it (nvidia-smi and dmesg tell more)", name);
    if (answer.r < 0)
        return error_set(error, -answer.r, "%s", answer.text);
    *ret = answer.facts;
    return 0;
}

/* The device by its name, asked for when it is named first. where: its key in the configuration. */
static int device_of(struct on_device *all, int *n, const char *name, const char *where, int index, struct on_device **ret,
                     struct error *error)
{
    struct on_device *d;
    int r;

    for (int i = 0; i < *n; i++)
        if (!strcmp(all[i].name, name)) {
            *ret = &all[i];
            return 0;
        }
    d = &all[*n];
    *d = (struct on_device) {0};
    snprintf(d->name, sizeof d->name, "%s", name);
    r = look(name, &d->facts, error);
    if (r < 0)
        return error_prefix(error, r, "cluster.%s[%d]", where, index);
    ++*n;
    *ret = d;
    return 0;
}

/* ---- what is wanted of it ------------------------------------------------------------------------------------------ */

static void add(struct on_device *d, const char *daemon, int index, const char *what, int64_t bytes, const char *knob)
{
    struct item *item = &d->item[d->n];

    if (bytes <= 0 || d->n == ITEMS)
        return;
    snprintf(item->what, sizeof item->what, "%s %d's %s", daemon, index, what);
    item->bytes = bytes;
    item->knob = knob;
    d->total += bytes;
    d->n++;
}

/* Versions of a policy with adapters have the same base, which is there once. */
static void add_actor(struct on_device *d, int index, int threads, const struct needs *needs)
{
    const struct device_need *need = &needs->act;

    add(d, "actor", index, needs->whole ? "weights, twice while versions change" : "weights",
        2 * need->weights - (needs->whole ? 0 : need->shared), "a device with more memory, or one device less shared");
    add(d, "actor", index, "keys and values", threads * need->cache, "fewer threads in cluster.actors");
    add(d, "actor", index, "activations", threads * (need->activations + need->workspace), "fewer threads in cluster.actors");
}

/* shared: versions are heads, or adapters, on one backbone. */
static void add_prm_server(struct on_device *d, int index, int threads, const struct device_need *need, bool shared)
{
    add(d, "prm_server", index, shared ? "weights" : "weights, twice while versions change",
        2 * need->weights - (shared ? need->shared : 0),
        "prm.init: a smaller reward model, or one device less shared");
    add(d, "prm_server", index, "activations", threads * (need->activations + need->workspace),
        "prm.history: fewer, or fewer threads in cluster.prm_servers");
}

/* Whatever it trains, policy or reward model, it holds alone (learner/plan_parent.c): the larger counts. */
static void add_learner(struct on_device *d, int index, const struct needs *needs)
{
    bool reward = needs->reward.total > needs->policy.total;
    const struct device_need *need = reward ? &needs->reward : &needs->policy;
    const char *knob = reward ? "prm.init: a smaller reward model"
                              : needs->whole ? "policy.train: lora" : "a smaller policy.lora_r";

    add(d, "learner", index, "weights", need->weights, "a device with more memory, or one device less shared");
    add(d, "learner", index, "reference", need->reference,
        needs->whole ? "policy.train: lora (the base is its own reference)" : "rl.kl: none");
    add(d, "learner", index, "gradients", need->gradients, knob);
    add(d, "learner", index, "moments and masters", need->optimiser, knob);
    add(d, "learner", index, "activations", need->activations + need->workspace,
        reward ? "a smaller batch (prm.batch)" : "a smaller batch (sft.batch, rl.minibatch)");
}

static int check(const struct on_device *d, struct error *error)
{
    const struct item *first = &d->item[0], *second = NULL;

    if (d->n == 0 || d->total <= (int64_t)d->facts.memory_free)
        return 0;
    for (int i = 1; i < d->n; i++)
        first = d->item[i].bytes > first->bytes ? &d->item[i] : first;
    for (int i = 0; i < d->n; i++)
        if (&d->item[i] != first && (!second || d->item[i].bytes > second->bytes))
            second = &d->item[i];
    return error_set(error, ENOMEM, "cluster: %s (%s): the run needs about %.0f MiB there, %.0f of %.0f MiB are free; %s take "
                     "%.0f MiB, %s %.0f; try: %s",
                     d->name, d->facts.name, (double)d->total / MEGA, (double)d->facts.memory_free / MEGA,
                     (double)d->facts.memory / MEGA, first->what, (double)first->bytes / MEGA, second ? second->what : "others",
                     (double)(second ? second->bytes : 0) / MEGA, first->knob);
}

/* Does a stage keep near to the policy that it began with? */
static bool has_reference(const struct run_config *c)
{
    for (int i = 0; i < c->n_stages; i++)
        if (c->stages[i].kind == STAGE_RL && c->stages[i].rl.kl != KL_NONE)
            return true;
    return false;
}

int preflight_batch(const struct run_config *c, bool reward)
{
    int batch = 0;

    for (int i = 0; i < c->n_stages; i++) {
        const struct stage_config *s = &c->stages[i];

        if (reward)
            batch = MAX(batch, s->kind == STAGE_PRM ? s->prm.batch : 0);
        else
            batch = MAX(batch, s->kind == STAGE_SFT ? s->sft.batch : s->kind == STAGE_RL ? s->rl.minibatch : 0);
    }
    return batch;
}

/* Of a policy or its trunk. fp32: in whose versions nothing stays bf16. */
static int need_of(struct openvla *model, struct device_job job, bool fp32, struct device_need *ret)
{
    memory_keep_halves(model, !fp32);
    job.half = job.half || params_are_half(&model->params);
    return memory_need_device(model, &job, ret);
}

/* What is trained whole becomes fp32, passes see it so, and it is saved so; with policy.weights: bf16 it is saved as bf16. */
static int policy_needs(const struct run_config *c, struct openvla *policy, const struct device_job *base, struct needs *ret)
{
    struct device_job train = *base, act = *base;
    bool bf16 = !strcmp(c->policy_weights, "bf16");
    int r = 0;

    ret->whole = strcmp(c->policy_train, "lora") != 0;
    train.use = ret->whole ? MEMORY_FULL : MEMORY_LORA;
    train.batch = preflight_batch(c, false);
    train.masters = ret->whole && bf16;
    if (train.batch)
        r = need_of(policy, train, ret->whole, &ret->policy);
    act.use = MEMORY_ACT;
    act.batch = ROWS;
    if (r >= 0)
        r = need_of(policy, act, train.batch && ret->whole && !bf16, &ret->act);
    /* adapters are left out of a pass; what is trained whole beside them is not, nor are adapters that the policy starts with */
    if (has_reference(c) && (ret->whole || oft_trains_whole(policy) || openvla_start_is_adapter(c->policy_init)))
        ret->policy.reference = ret->act.weights;
    ret->policy.total += ret->policy.reference;
    return r;
}

/* On a policy's trunk all of it learns. */
static int trunk_needs(const struct run_config *c, struct openvla *trunk, const struct device_job *base, struct needs *ret)
{
    struct device_job job = *base;
    bool trained = preflight_batch(c, true) > 0;
    int r = 0;

    job.judges = true;
    job.history = c->prm_history;
    job.use = MEMORY_FULL;
    job.batch = preflight_batch(c, true);
    if (trained)
        r = need_of(trunk, job, true, &ret->reward);
    job.use = MEMORY_ACT;
    job.batch = ROWS;
    return r < 0 ? r : need_of(trunk, job, trained, &ret->score);
}

static int backbone_needs(const struct run_config *c, struct qwen_vl *backbone, const struct device_job *base, struct needs *ret)
{
    struct device_job job = *base;
    int r = 0;

    memory_keep_halves_prm(backbone);
    job.half = job.half || params_are_half(&backbone->params);
    job.height = job.width = c->image;
    job.use = strcmp(c->prm_train, "lora") ? MEMORY_FULL : MEMORY_LORA;
    job.batch = preflight_batch(c, true);
    if (job.batch) {
        backbone->history = c->prm_history;
        r = memory_need_device_prm(backbone, &job, &ret->reward);
    }
    job.use = MEMORY_ACT;
    job.batch = ROWS;
    return r < 0 ? r : memory_need_device_prm(backbone, &job, &ret->score);
}

static int work_out(const struct run_config *c, struct openvla *policy, const struct reward_source *reward, struct needs *ret,
                    struct error *error)
{
    bool fast = c->numerics == NUMERICS_FAST;
    const struct device_job base = {.strict = !fast, .half = fast, .blas = true, .dnn = fast, .lora_r = c->lora_r,
                                    .ranks = c->n_learners};
    const char *key = "prm.init";
    int r;

    *ret = (struct needs) {0};
    r = reward->backbone ? backbone_needs(c, reward->backbone, &base, ret)
                         : trunk_needs(c, reward->trunk ? reward->trunk : policy, &base, ret);
    if (r >= 0) {
        key = "policy.init";
        r = policy_needs(c, policy, &base, ret);
    }
    return r < 0 ? error_prefix(error, device_need_failed(r, error), "%s", key) : 0;
}

static bool names_devices(const struct server_config *servers, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(servers[i].device, "cpu"))
            return true;
    return false;
}

int preflight_devices(const struct run_config *c, struct openvla *policy, const struct reward_source *reward,
                      struct error *error)
{
    _cleanup_free_ struct on_device *all = calloc(3 * RUN_MAX_SERVERS, sizeof *all);
    const struct { const char *where; const struct server_config *servers; int n; } lists[] = {
        {"actors", c->actors, c->n_actors},
        {"prm_servers", c->prm_servers, c->n_prm_servers},
        {"learners", c->learners, c->n_learners},
    };
    struct on_device *d;
    struct needs needs;
    int n = 0, r = 0;

    if (!names_devices(c->actors, c->n_actors) && !names_devices(c->prm_servers, c->n_prm_servers) &&
        !names_devices(c->learners, c->n_learners))
        return 0;
    if (!all)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t k = 0; k < ARRAY_SIZE(lists); k++)      /* the cheap question first */
        for (int i = 0; i < lists[k].n && r >= 0; i++)
            if (strcmp(lists[k].servers[i].device, "cpu"))
                r = device_of(all, &n, lists[k].servers[i].device, lists[k].where, i, &d, error);
    if (r < 0)
        return r;
    r = work_out(c, policy, reward, &needs, error);
    if (r < 0)
        return r;
    for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
        for (int i = 0; i < lists[k].n; i++) {
            const struct server_config *server = &lists[k].servers[i];
            int threads = MAX(server->threads, 1);

            if (!strcmp(server->device, "cpu") || device_of(all, &n, server->device, lists[k].where, i, &d, error) < 0)
                continue;
            if (k == 0)
                add_actor(d, i, threads, &needs);
            else if (k == 1)
                add_prm_server(d, i, threads, &needs.score, reward->backbone);
            else
                add_learner(d, i, &needs);
        }
    for (int i = 0; i < n && r >= 0; i++)
        r = check(&all[i], error);
    return r;
}
