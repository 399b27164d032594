/* preflight_model.c - the checkpoints that a run starts from: are they whole, do they fit the suite and the stages, and what will
 * they take? */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "cli/preflight_device.h"
#include "cli/preflight_internal.h"
#include "coordinator/start_policy.h"
#include "nn/base_link.h"
#include "nn/hf.h"
#include "nn/models/openvla_oft.h"
#include "train/memory.h"

#define MB (1024.0 * 1024.0)

enum { LOOK_MB = 256 };

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

int preflight_weights(const char *dir, double *ret_bytes, struct error *error)
{
    double bytes = 0;
    int r = check_model(dir, error);

    if (r >= 0)
        r = weight_bytes(dir, &bytes, error);
    if (r >= 0)
        r = check_values(dir, bytes, error);
    if (r < 0)
        return r;
    *ret_bytes = bytes;
    return 0;
}

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

/* What stages ask of the policy's heads. */
static int check_heads(const struct run_config *c, const char *dir, const struct openvla *policy, struct error *error)
{
    enum oft_kind kind = policy->config.oft.kind;

    for (int i = 0; i < c->n_stages; i++) {
        const struct stage_config *stage = &c->stages[i];

        if (stage->kind == STAGE_RL && kind == OFT_L1)
            return error_set(error, EINVAL, "policy.init: %s: its head of kind l1 answers one number and has no probabilities, "
                             "which stages[%d].rl needs: `gantry model oft %s NEW --kind laplace` adds them", dir, i, dir);
        if (stage->kind == STAGE_EVAL && kind != OFT_NONE && stage->eval.search_judge == JUDGE_CONFIDENCE &&
            eval_searches(&stage->eval))
            return error_set(error, EINVAL, "stages[%d].eval.search_judge: confidence asks a policy that answers token by token, and "
                             "policy.init %s answers whole chunks: take prm or value", i, dir);
        if (stage->kind == STAGE_RL && rl_has_critic(&stage->rl) && policy->config.value_width &&
            policy->config.value_inputs != rl_critic_inputs(&stage->rl))
            return error_set(error, EINVAL,
                             "stages[%d].rl: the critic of policy.init %s (value_head.safetensors) takes %d numbers beside what it "
                             "sees, critic_time and critic_prm make %d: set both as they were where it learned, or remove the file",
                             i, dir, policy->config.value_inputs, rl_critic_inputs(&stage->rl));
    }
    return 0;
}

static bool bf16_has(const struct st_tensor *t, int64_t at)
{
    uint32_t bits = 0;

    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16)
        return true;
    memcpy(&bits, (const char *)t->data + (size_t)at * dtype_size(t->dtype), dtype_size(t->dtype));
    return !(bits & (t->dtype == DTYPE_F32 ? 0xffff : 7));
}

struct bf16_question { const char *dir; struct error *error; };

/* Some of its values are looked at: of a checkpoint that was not rounded hardly any fits, and all would take minutes. */
static int ask_bf16(const struct st_tensor *t, void *arg)
{
    enum { LOOKS = 1024 };
    const struct bf16_question *asked = arg;
    int64_t step = MAX(t->numel / LOOKS, 1);
    bool fits = true;

    for (int64_t at = 0; at < t->numel && fits; at += step)
        fits = bf16_has(t, at);
    return fits ? 0
         : error_set(asked->error, EINVAL, "policy.weights is bf16, but policy.init %s has values that bf16 has not (%s): `gantry model "
                     "convert %s NEW --dtype bf16` rounds them, or set policy.weights: fp32", asked->dir, t->name, asked->dir);
}

/* What is trained whole and rests as bf16 begins with values that bf16 has. */
static int check_bf16(const struct run_config *c, const char *dir, const struct hf_shards *shards, struct error *error)
{
    struct bf16_question asked = {dir, error};
    int r = 0;

    if (strcmp(c->policy_weights, "bf16") != 0 || !strcmp(c->policy_train, "lora"))
        return 0;
    for (int i = 0; i < shards->n; i++)
        for (int k = 0; k < shards->file[i]->count && r == 0; k++)
            r = ask_bf16(&shards->file[i]->list[k], &asked);
    return r < 0 ? r : oft_look(dir, ask_bf16, &asked, error);
}

/* What the run's copy of the checkpoint will say beyond it; data sets that it would then learn from the wrong way round are
 * refused. */
static int find_fit(const struct run_config *c, const struct openvla *policy, char ret_words[static 256], struct error *error)
{
    const struct openvla_fit_ask ask = start_policy_ask(c);
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

int preflight_models(const struct run_config *c, const char *policy_dir, bool copied, struct model_needs *ret,
                     struct error *error)
{
    _cleanup_(hf_shards_close) struct hf_shards shards = {0};
    _cleanup_(openvla_freep) struct openvla *policy = NULL;
    _cleanup_(source_release) struct reward_source reward = {0};
    enum memory_use use = strcmp(c->policy_train, "lora") ? MEMORY_FULL : MEMORY_LORA;
    int per_actor = (c->env_workers * c->slots + MAX(c->n_actors, 1) - 1) / MAX(c->n_actors, 1);
    int threads = c->n_learners ? MAX(c->learners[0].threads, 1) : 1, r;
    struct memory_need act = {0}, train = {0}, score = {0}, judge = {0};
    char base[PATH_MAX], fit[256] = "";

    r = base_link_follow(policy_dir, base, error);
    if (r >= 0)
        r = openvla_open(r > 0 ? base : policy_dir, NULL, &policy, &shards, error);
    if (r >= 0)
        r = check_suite(c, "policy.init", policy_dir, policy, error);
    if (r >= 0)
        r = check_heads(c, policy_dir, policy, error);
    if (r >= 0)
        r = check_bf16(c, policy_dir, &shards, error);
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
        .state = policy->config.oft.kind == OFT_NONE ? 0 : policy->config.oft.proprio,
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
