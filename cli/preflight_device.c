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

enum { ITEMS = 96, MEGA = 1 << 20, ACT_ROWS = 64 /* a batch of an actor */, SCORES = 8 };

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

static void add_actor(struct on_device *d, int index, int threads, const struct device_need *need)
{
    add(d, "actor", index, "weights, twice while versions change", 2 * need->weights,
        "a device with more memory, or one device less shared");
    add(d, "actor", index, "keys and values", threads * need->cache, "fewer threads in cluster.actors");
    add(d, "actor", index, "activations", threads * (need->activations + need->workspace), "fewer threads in cluster.actors");
}

static void add_learner(struct on_device *d, int index, bool whole, const struct device_need *need, int64_t reference)
{
    add(d, "learner", index, "weights", need->weights, "a device with more memory, or one device less shared");
    add(d, "learner", index, "reference", reference,
        whole ? "policy.train: lora (the base is its own reference)" : "rl.kl: none");
    add(d, "learner", index, "gradients", need->gradients, whole ? "policy.train: lora" : "a smaller policy.lora_r");
    add(d, "learner", index, "moments and masters", need->optimiser, whole ? "policy.train: lora" : "a smaller policy.lora_r");
    add(d, "learner", index, "activations", need->activations + need->workspace, "a smaller batch (sft.batch, rl.minibatch)");
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

struct needs {
    struct device_need act, score, train;
    int64_t reward, reference;          /* weights */
    bool whole;
};

/* Does a stage keep near to the policy that it began with? */
static bool has_reference(const struct run_config *c)
{
    for (int i = 0; i < c->n_stages; i++)
        if (c->stages[i].kind == STAGE_RL && c->stages[i].rl.kl != KL_NONE)
            return true;
    return false;
}

static int train_batch(const struct run_config *c)
{
    int batch = 1;

    for (int i = 0; i < c->n_stages; i++)
        batch = MAX(batch, c->stages[i].kind == STAGE_SFT ? c->stages[i].sft.batch :
                           c->stages[i].kind == STAGE_RL  ? c->stages[i].rl.minibatch : 1);
    return batch;
}

/* Trained whole nothing stays bf16; then the rest is worked out on the same model with its bf16 matrices marked. */
static int work_out(const struct run_config *c, struct openvla *policy, int64_t reward_bytes, struct needs *ret)
{
    bool fast = c->numerics == NUMERICS_FAST;
    struct device_job job = {.strict = !fast, .blas = true, .dnn = fast, .lora_r = c->lora_r, .ranks = c->n_learners};
    int r = 0;

    *ret = (struct needs) {.reward = reward_bytes, .whole = strcmp(c->policy_train, "lora") != 0};
    job.use = ret->whole ? MEMORY_FULL : MEMORY_LORA;
    job.batch = train_batch(c);
    job.masters = ret->whole && !strcmp(c->policy_weights, "bf16");
    job.half = fast;
    if (ret->whole)
        r = memory_need_device(policy, &job, &ret->train);
    memory_keep_halves(policy);
    job.half = fast || params_are_half(&policy->params);
    if (r >= 0 && !ret->whole)
        r = memory_need_device(policy, &job, &ret->train);
    job = (struct device_job) {.use = MEMORY_ACT, .batch = ACT_ROWS, .half = job.half, .strict = job.strict, .blas = true,
                               .dnn = fast};
    if (r >= 0)
        r = memory_need_device(policy, &job, &ret->act);
    job.batch = SCORES;
    if (r >= 0)
        r = memory_need_device(policy, &job, &ret->score);
    /* adapters are left out of a pass; what is trained whole beside them is not, nor are adapters that the policy starts with */
    if (has_reference(c) && (ret->whole || oft_trains_whole(policy) || openvla_start_is_adapter(c->policy_init)))
        ret->reference = ret->act.weights;
    return r;
}

static bool names_devices(const struct server_config *servers, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(servers[i].device, "cpu"))
            return true;
    return false;
}

int preflight_devices(const struct run_config *c, struct openvla *policy, int64_t reward_bytes, struct error *error)
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
    r = work_out(c, policy, reward_bytes, &needs);
    if (r < 0)
        return error_set(error, -r, "policy.init: what it takes of a device cannot be worked out: %s", strerror(-r));
    for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
        for (int i = 0; i < lists[k].n; i++) {
            const struct server_config *server = &lists[k].servers[i];
            int threads = MAX(server->threads, 1);

            if (!strcmp(server->device, "cpu") || device_of(all, &n, server->device, lists[k].where, i, &d, error) < 0)
                continue;
            if (k == 0)
                add_actor(d, i, threads, &needs.act);
            else if (k == 1)
                add(d, "prm_server", i, "weights and activations",
                    2 * (needs.reward ? needs.reward : needs.score.weights) +
                        threads * (needs.score.activations + needs.score.workspace),
                    "prm.init: a smaller reward model, or one device less shared");
            else
                add_learner(d, i, needs.whole, &needs.train, needs.reference);
        }
    for (int i = 0; i < n && r >= 0; i++)
        r = check(&all[i], error);
    return r;
}
