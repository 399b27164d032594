#include "cli/preflight.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/atomic_file.h"
#include "cli/preflight_device.h"
#include "daemon/http.h"
#include "daemon/memory_available.h"
#include "nn/base_link.h"
#include "nn/hf.h"
#include "nn/models/openvla_fit.h"
#include "nn/models/openvla_start.h"
#include "sim/sim.h"
#include "train/memory.h"
#include "wire/address.h"
#include "wire/socket.h"

#define MB (1024.0 * 1024.0)

/* What a process needs beside weights, measured on the demo and doubled; MB. */
enum { BASE_MB = 40, WORKER_MB = 260, RENDER_SLOT_MB = 12 };
enum { LIBERO_MODEL_MB = 100, LIBERO_PICTURES_MB = 350 };       /* of each task in each worker; pictures: where the CPU draws */

enum { STEPS_GUESS = 60, STEP_BYTES = 512 /* beside its pictures */, KEEP_POLICIES = 6, LOOK_MB = 256 };

/* Bytes of the *.safetensors files in a directory. */
static int weight_bytes(const char *path, double *ret, struct error *error)
{
    DIR *directory = opendir(path);
    double bytes = 0;

    if (!directory)
        return error_set(error, errno, "policy.init: %s: %s; name a directory with config.json and *.safetensors", path,
                         strerror(errno));
    for (const struct dirent *entry = readdir(directory); entry; entry = readdir(directory)) {
        size_t n = strlen(entry->d_name);
        struct stat st;

        if (n > 12 && !strcmp(entry->d_name + n - 12, ".safetensors") && fstatat(dirfd(directory), entry->d_name, &st, 0) == 0)
            bytes += (double)st.st_size;
    }
    closedir(directory);
    if (bytes <= 0)
        return error_set(error, ENOENT, "policy.init: %s: no *.safetensors there, or empty ones; `gantry model new` makes a "
                         "fresh policy", path);
    *ret = bytes;
    return 0;
}

static int check_model(const char *path, struct error *error)
{
    char config[PATH_MAX + 32];

    snprintf(config, sizeof config, "%s/config.json", path);
    if (access(config, R_OK) < 0)
        return error_set(error, errno, "policy.init: %s: %s; name a Hugging Face OpenVLA directory", config, strerror(errno));
    return 0;
}

/* A value that is no number would be found when the first stage that needs the policy loads it, after its demonstrations have been
 * played. Larger checkpoints than this take longer to read than an answer should: `gantry model verify` does. */
static int check_values(const char *path, double bytes, struct error *error)
{
    _cleanup_(hf_shards_close) struct hf_shards shards = {.total_size = -1};
    int r = bytes > LOOK_MB * MB ? 0 : hf_shards_open(path, &shards, error);

    if (r == -ENOENT)           /* laid out otherwise: whoever loads it knows how */
        return 0;
    for (int s = 0; s < shards.n && r == 0; s++)
        for (int i = 0; i < shards.file[s]->count && r == 0; i++)
            r = hf_check_finite(&shards, &shards.file[s]->list[i], NULL, error);
    return r < 0 ? error_prefix(error, r, "policy.init") : 0;
}


/* What models take in each kind of daemon, and once for all of them; bytes. A server holds two versions while one is swapped for
 * the next. */
struct model_needs { double actor, prm, learner, shared;
                     double saved; /* in each version, adapters; 0: all weights */
                     int action_dims; /* of the policy */
                     int chunk; /* actions that it answers at once */
                     char fit[256]; /* what the run settles for its checkpoint */
                     int devices; /* 0, or why the GPUs will not do; the error has the line */ };

/* What the suite sends and takes must be what the model was made for. key: policy.init, prm.init. */
static int check_suite(const struct run_config *c, const char *key, const char *dir, const struct openvla *model,
                       struct error *error)
{
    const struct openvla_config *config = &model->config;

    if (config->image_height != c->image || config->image_width != c->image)
        return error_set(error, EINVAL, "%s: %s: looks at pictures of %dx%d, suite.image is %d: say image: %d, or "
                         "name a model made for this suite", key, dir, config->image_width, config->image_height, c->image,
                         config->image_width);
    if (config->image_chain[0] && strcmp(config->image_chain, c->chain) != 0)
        return error_set(error, EINVAL, "%s: %s: was trained on pictures of the chain %s, suite.chain is %s", key, dir,
                         config->image_chain, c->chain);
    if (!strcmp(key, "policy.init") && config->oft.kind != OFT_NONE &&
        (config->oft.images > c->cameras || (config->oft.proprio && !c->state)))
        return error_set(error, EINVAL,
                         "policy.init: %s: looks at %d picture%s%s: say cameras: %d, state: %s in suite (now %d, %s)", dir,
                         config->oft.images, config->oft.images > 1 ? "s" : "", config->oft.proprio ? " and the robot's state" : "",
                         MAX(config->oft.images, c->cameras), config->oft.proprio || c->state ? "true" : "false", c->cameras,
                         c->state ? "true" : "false");
    if (!strcmp(key, "policy.init") && config->oft.kind != OFT_NONE && c->policy_eos_in_logp)
        return error_set(error, EINVAL,
                         "policy.eos_in_logp: %s answers whole chunks and says no end token; say eos_in_logp: false", dir);
    return 0;
}

static int check_head(const struct run_config *c, const char *dir, const struct openvla *policy, struct error *error)
{
    for (int i = 0; i < c->n_stages; i++)
        if (c->stages[i].kind == STAGE_RL && policy->config.oft.kind == OFT_L1)
            return error_set(error, EINVAL, "policy.init: %s: its head of kind l1 answers one number and has no probabilities, which "
                             "stages[%d].rl needs: `gantry model oft %s NEW --kind laplace` adds them", dir, i, dir);
    return 0;
}

/* What the run's copy of the checkpoint will say beyond it; data sets that it would then learn from the wrong way round are refused. */
static int find_fit(const struct run_config *c, const struct openvla *policy, char ret_words[static 256], struct error *error)
{
    const struct openvla_fit_ask ask = {c->suite, c->chain, c->policy_unnorm_key, c->policy_center_crop};
    struct openvla_fit fit;
    int r = openvla_fit_find(policy, &ask, &fit, error);

    if (r < 0)
        return error_prefix(error, r, "policy.init");
    for (int i = 0; i < c->n_stages; i++)
        if (c->stages[i].kind == STAGE_DEMOS && c->stages[i].demos.from[0] &&
            (r = openvla_fit_check_data(policy, &fit, c->suite, c->stages[i].demos.from, error)) < 0)
            return error_prefix(error, r, "stages[%d].demos.from", i);
    openvla_fit_words(&fit, ret_words);
    return 0;
}

static void source_release(struct reward_source *source)
{
    openvla_free(source->trunk);
    qwen_vl_free(source->backbone);
}

/* prm.init: the policy's own trunk, or a directory of either kind. */
static int open_reward(const struct run_config *c, struct reward_source *ret, struct error *error)
{
    _cleanup_(hf_shards_close) struct hf_shards shards = {0};
    int r = 0;

    if (!strcmp(c->prm_init, "policy"))
        return 0;
    if (qwen_vl_is(c->prm_init))
        r = qwen_vl_open(c->prm_init, NULL, &ret->backbone, &shards, error);
    else
        r = openvla_open(c->prm_init, NULL, &ret->trunk, NULL, error);
    if (r < 0)
        return error_prefix(error, r, "prm.init (an OpenVLA, Qwen2-VL or Qwen2.5-VL directory)");
    if (ret->trunk && c->prm_history > TRUNK_HISTORY_MAX)
        return error_set(error, EINVAL, "prm.history: %d: an OpenVLA (prm.init: %s) is shown at most %d frames beside the first "
                         "and the current one", c->prm_history, c->prm_init, TRUNK_HISTORY_MAX);
    return ret->trunk ? check_suite(c, "prm.init", c->prm_init, ret->trunk, error) : 0;
}

/* Who scores, and who learns to, beside the policy: on its trunk all of it. Zeros: nobody does. */
static int reward_needs(const struct run_config *c, const struct reward_source *source, const struct openvla *policy, int threads,
                        struct memory_need *ret_score, struct memory_need *ret_train)
{
    const struct openvla *trunk = source->trunk ? source->trunk : policy;
    enum memory_use use = strcmp(c->prm_train, "lora") ? MEMORY_ACT /* its head learns */ : MEMORY_LORA;
    int batch = preflight_batch(c, true), r;

    r = source->backbone ? memory_need_prm(source->backbone, MEMORY_ACT, 1, 1, 0, ret_score)
                         : memory_need(trunk, MEMORY_ACT, 1, 1, 0, ret_score);
    if (r < 0 || !batch)
        return r;
    return source->backbone ? memory_need_prm(source->backbone, use, batch, threads, c->lora_r, ret_train)
                            : memory_need(trunk, MEMORY_FULL, batch, threads, 0, ret_train);
}

static bool on_devices(const struct server_config *servers, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(servers[i].device, "cpu"))
            return false;
    return n > 0;
}

/* Of who computes on a device the host has the values and the moments, which are saved from here. */
static void leave_to_device(struct memory_need *need)
{
    need->total -= need->packs + need->cache + need->activations + need->gradients;
    need->packs = need->cache = need->activations = need->gradients = 0;
}

/* From the checkpoint's headers: a broken one is refused here, by name. copied: it is the run's own. */
static int model_needs(const struct run_config *c, const char *policy_dir, bool copied, struct model_needs *ret,
                       struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *policy = NULL;
    _cleanup_(source_release) struct reward_source reward = {0};
    enum memory_use use = strcmp(c->policy_train, "lora") ? MEMORY_FULL : MEMORY_LORA;
    int per_actor = (c->env_workers * c->slots + MAX(c->n_actors, 1) - 1) / MAX(c->n_actors, 1);
    int threads = c->n_learners ? MAX(c->learners[0].threads, 1) : 1, r;
    struct memory_need act = {0}, train = {0}, score = {0}, judge = {0};
    char base[PATH_MAX], fit[256] = "";

    r = base_link_follow(policy_dir, base, error);
    if (r >= 0)
        r = openvla_open(r > 0 ? base : policy_dir, NULL, &policy, NULL, error);
    if (r >= 0)
        r = check_suite(c, "policy.init", policy_dir, policy, error);
    if (r >= 0)
        r = check_head(c, policy_dir, policy, error);
    if (r >= 0 && !copied)
        r = find_fit(c, policy, fit, error);
    if (r >= 0)
        r = open_reward(c, &reward, error);
    if (r < 0)
        return r;
    if ((r = reward_needs(c, &reward, policy, threads, &score, &judge)) < 0)
        return error_set(error, -r, "prm.init: %s: memory: %s", c->prm_init, strerror(-r));
    r = memory_need(policy, MEMORY_ACT, MAX(per_actor, 1), 1, 0, &act);
    if (r >= 0)
        r = memory_need(policy, use, MAX(preflight_batch(c, false), 1), threads, c->lora_r, &train);
    if (r < 0)
        return error_set(error, -r, "policy.init: %s: memory: %s", policy_dir, strerror(-r));
    if (on_devices(c->actors, c->n_actors))
        leave_to_device(&act);
    if (on_devices(c->prm_servers, c->n_prm_servers))
        leave_to_device(&score);
    if (on_devices(c->learners, c->n_learners)) {       /* which hold one of them at a time */
        leave_to_device(&train);
        leave_to_device(&judge);
        judge.total = MAX(judge.total - train.total, 0);
    }
    *ret = (struct model_needs) {
        .action_dims = policy->config.action_dims,
        .chunk = policy->config.oft.kind == OFT_NONE ? 1 : policy->config.oft.chunk,
        .actor = (double)(act.total + act.weights + act.packs - 2 * act.mapped),
        .prm = (double)(score.total + score.weights + score.packs - 2 * score.mapped),
        .learner = (double)(train.total + train.weights + judge.total - 2 * train.mapped - judge.mapped),   /* and reference */
        .shared = (double)(MAX(act.mapped, train.mapped) + (c->n_prm_servers || judge.total ? score.mapped : 0)),
        .saved = use == MEMORY_LORA ? (double)train.trained * sizeof(float) : 0,
        .devices = preflight_devices(c, policy, &reward, error),
    };
    memcpy(ret->fit, fit, sizeof fit);
    return 0;
}

/* Observations of an episode, from the first to the one it ends with. */
struct observations {
    double demo, rollout;       /* a demonstration's; the policy's, over all tasks alike */
    double most;                /* the policy's, in the task with the highest limit */
};

/* The policy's by every `turn`-th step. An episode of it may last to its limit; where that is not known here all steps of the
 * guess count, as it may well last longer. */
static struct observations count_observations(const struct run_config *c, int turn)
{
    struct observations n = {.demo = STEPS_GUESS + 1};

    for (int i = 0; i < c->n_tasks; i++) {
        int limit = preflight_limit(c, i);
        double here = limit ? (limit + turn - 1) / turn + 1 : STEPS_GUESS + 1;

        n.rollout += here / c->n_tasks;
        n.most = MAX(n.most, here);
    }
    return n;
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
        case STAGE_DEMOS: demos += s->demos.episodes * drawn->demo; break;
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

    need += c->env_workers * (WORKER_MB * MB + scenes_needed(c) + c->slots * (RENDER_SLOT_MB * MB + 2 * STEPS_GUESS * image));
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
        case STAGE_DEMOS: need += s->demos.from[0] ? 0 : s->demos.episodes * (drawn.demo * image + all.demo * STEP_BYTES); break;
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

static void no_page(struct http_reply *reply, void *arg) { (void)reply, (void)arg; }

/* The status page's port, by really listening there for a moment. */
static int check_port(const char *address, struct error *error)
{
    static const struct http_route routes[] = {{"/", no_page, true}, {NULL, NULL, false}};
    _cleanup_(loop_freep) struct loop *loop = NULL;
    struct http *http;
    int r = loop_new(&loop);

    if (r < 0)
        return error_set(error, -r, "event loop: %s", strerror(-r));
    r = http_new(loop, address, routes, NULL, &http, error);
    if (r == 0)
        http_free(http);
    return r;
}

/* One address that the configuration names; those that it has named before must be others. */
struct named { char key[48]; const char *address; };

static int check_address(const struct named *all, size_t n, bool try, struct error *error)
{
    const struct named *last = &all[n - 1];
    size_t length = strlen(last->address);
    int r;

    if (!length)        /* a socket in the run directory */
        return 0;
    if ((r = address_check(last->address, error)) < 0)
        return error_prefix(error, r, "%s", last->key);
    if (n == 1 && address_is_ipc(last->address))
        return error_set(error, EINVAL, "%s: %s: it is for members on other hosts: tcp://HOST:PORT, or empty", last->key,
                         last->address);
    if (address_is_ipc(last->address))
        return 0;
    for (size_t i = 0; i + 1 < n && last->address[length - 1] != '*'; i++)
        if (!strcmp(all[i].address, last->address))
            return error_set(error, EADDRINUSE, "%s: %s is the address of %s, too: give each its own port", last->key,
                             last->address, all[i].key);
    r = try ? wire_socket_try(last->address, error) : 0;
    return r < 0 ? error_prefix(error, r, "%s", last->key) : 0;
}

/* try: could the daemons listen there? Found out before any is started. */
static int check_addresses(const struct run_config *c, bool try, struct error *error)
{
    const struct { const char *key; const struct server_config *of; int n; } lists[] = {
        {"learners", c->learners, c->n_learners}, {"actors", c->actors, c->n_actors},
        {"prm_servers", c->prm_servers, c->n_prm_servers},
    };
    struct named all[1 + 3 * RUN_MAX_SERVERS] = {{"cluster.listen", c->listen}};
    size_t n = 1;
    int r = check_address(all, n, try, error);

    for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
        for (int i = 0; r == 0 && i < lists[k].n; i++) {
            snprintf(all[n].key, sizeof all[n].key, "cluster.%s[%d].address", lists[k].key, i);
            all[n++].address = lists[k].of[i].address;
            r = check_address(all, n, try, error);
        }
    return r;
}

int preflight_addresses(const struct run_config *c, struct error *error) { return check_addresses(c, false, error); }

int preflight_page(const struct run_config *c, struct error *error)
{
    return c->http[0] ? http_address_check(c->http, error) : 0;
}

int preflight_token(const struct run_config *c, struct error *error)
{
    char token[HTTP_TOKEN_MAX + 1];

    return c->http[0] && c->token_file[0] ? http_token_load(c->token_file, token, error) : 0;
}

int preflight_check(const struct run_config *config, const char *run_dir, struct preflight *ret, struct error *error)
{
    double weights = 0, memory, frames, disk, have_memory, have_disk = disk_available(run_dir);
    struct model_needs models = {0};
    bool limited, copied;
    int r, dims = strcmp(config->suite, "remote") ? SIM_ACTION_DIMS : 0;        /* 0: unknown here */
    char first[PATH_MAX];

    if (!config->n_stages)
        return error_set(error, EINVAL, "stages: there are none, so there is nothing to do; `gantry demo --config` shows a "
                         "list of them");
    /* Later starts use the copy in the run directory. */
    snprintf(first, sizeof first, "%s/policies/v000000", run_dir);
    copied = access(first, F_OK) == 0;
    if (!copied && openvla_start_is_adapter(config->policy_init)) {
        if ((r = openvla_start_base(config->policy_init, config->policy_base, first, error)) < 0)
            return error_prefix(error, r, "policy.init");
    } else if (!copied) {
        snprintf(first, sizeof first, "%s", config->policy_init);
    }
    if ((r = check_model(first, error)) < 0 || (r = weight_bytes(first, &weights, error)) < 0 ||
        (r = check_values(first, weights, error)) < 0)
        return r;
    if (config->env_workers)            /* with none here they are played where the suite's files are */
        r = preflight_tasks(config, &dims, error);
    if (r >= 0)
        r = preflight_stages(config, first, error);
    if (r >= 0)
        r = model_needs(config, first, copied, &models, error);
    if (r < 0)
        return r;
    if (dims && models.action_dims != dims)
        return error_set(error, EINVAL, "policy.init: %s: its actions have %d dimensions, the suite %s takes %d%s; name another "
                         "policy", first, models.action_dims, config->suite, dims,
                         dims == SIM_ACTION_DIMS ? " (dx dy dz droll dpitch dyaw gripper)" : "");
    memory = memory_needed(config, &models);
    frames = memory_needed(config, &(struct model_needs) {.chunk = models.chunk});
    have_memory = memory_available("", &limited);
    disk = disk_needed(config, weights, &models);
    if (ret) {
        *ret = (struct preflight) {.memory_bytes = (uint64_t)memory, .memory_available = (uint64_t)have_memory,
                                   .disk_bytes = (uint64_t)disk, .disk_available = (uint64_t)have_disk};
        memcpy(ret->fit, models.fit, sizeof ret->fit);
    }
    if (models.devices < 0)
        return models.devices;
    if (have_memory > 0 && memory > have_memory)
        return error_set(error, ENOMEM,
                         "the run needs about %.0f MB of memory, %.0f MB of it for the models, and %.0f MB are %s: lower "
                         "cluster.env_workers (%d), cluster.slots (%d), a LIBERO suite's tasks or the episodes of demos and "
                         "rollouts, train adapters (policy.train: lora), or spread it over more hosts",
                         memory / MB, (memory - frames) / MB, have_memory / MB,
                         limited ? "left within the limit of this control group (container, job or unit)" : "free",
                         config->env_workers, config->slots);
    if (disk > have_disk)
        return error_set(error, ENOSPC, "the run needs about %.0f MB of disk at %s, %.0f MB are free: put run.dir elsewhere, or "
                         "lower journal.keep (%d) or the episodes of demos and rollouts", disk / MB, run_dir, have_disk / MB,
                         config->journal_keep);
    if ((r = check_addresses(config, true, error)) < 0 || (r = preflight_token(config, error)) < 0)
        return r;
    return config->http[0] ? check_port(config->http, error) : 0;
}
