#include "serve/policy_version.h"

#include <errno.h>
#include <math.h>

#include "nn/device/mirror.h"
#include "nn/base_files.h"
#include "nn/base_link.h"
#include "nn/models/openvla_oft.h"
#include "run/manifest.h"

/* A chunk of actions on grey pictures, the robot in the middle of its range. */
static int probe_chunk(struct policy_version *v, struct openvla_session *session, const uint8_t *grey, const int32_t *prompt,
                       int n, bool *ret_finite)
{
    static const float middle[OPENVLA_MAX_PROPRIO];
    const struct oft_config *c = &v->model->config.oft;
    struct oft_item item = {.n_images = c->images, .prompt = prompt, .n_prompt = n, .proprio = c->proprio ? middle : NULL,
                            .temperature = 1};
    _cleanup_free_ struct oft_result *result = calloc(1, sizeof *result);
    int r;

    if (!result)
        return -ENOMEM;
    for (int i = 0; i < c->images; i++)
        item.images[i] = grey;
    r = oft_act(v->model, session, &item, 1, result);
    *ret_finite = isfinite(result->value);
    for (int k = 0; k < oft_slots(&v->model->config); k++)
        *ret_finite = *ret_finite && isfinite(result->logp[k]) && isfinite(result->action[k]);
    return r;
}

/* One action on a plain grey picture: finite numbers, or the version is refused. */
static int probe(struct policy_version *v, struct error *error)
{
    const struct openvla_config *config = &v->model->config;
    size_t bytes = (size_t)config->image_height * (size_t)config->image_width * 3;
    _cleanup_free_ uint8_t *grey = malloc(bytes);
    struct openvla_session *session = NULL;
    struct act_result act = {0};
    const int32_t *prompt;
    float progress = 0;
    bool finite = true;
    int n, r;

    if (!grey)
        return error_set(error, ENOMEM, "out of memory");
    memset(grey, 128, bytes);
    r = policy_version_prompt(v, "pick up the red block", &prompt, &n);
    if (r >= 0)
        r = openvla_session_new(config, 1, &session);
    if (r >= 0 && v->reward)
        r = openvla_score(v->model, session, &(struct score_item) {.images = {grey, grey}, .n_images = 2, .prompt = prompt,
                                                                   .n_prompt = n}, 1, &progress);
    else if (r >= 0 && config->oft.kind != OFT_NONE)
        r = probe_chunk(v, session, grey, prompt, n, &finite);
    else if (r >= 0)
        r = openvla_act(v->model, session, &(struct act_item) {.images = {grey}, .n_images = 1, .prompt = prompt, .n_prompt = n,
                                                               .temperature = 1}, 1, &act);
    openvla_session_free(session);
    if (r < 0)
        return error_set(error, -r, "%s: the probe failed: %s", v->model->dir, strerror(-r));
    for (int k = 0; k < config->action_dims; k++)
        finite = finite && isfinite(act.logp[k]);
    if (!finite || !isfinite(progress) || !isfinite(act.value))
        return error_set(error, EINVAL, "%s: the probe gave numbers that are not finite; the weights are damaged", v->model->dir);
    return 0;
}

bool version_file_is_served(const char *name)
{
    return strcmp(name, "train_state.safetensors") != 0;
}

/* digest NULL: whatever its manifest says. */
static int check_files(const char *dir, const uint8_t *digest, struct error *error)
{
    struct manifest manifest = {0};
    int r = manifest_read(dir, &manifest, error);

    if (r < 0)
        return r;
    if (digest && memcmp(manifest.digest, digest, sizeof manifest.digest))
        r = error_set(error, EBADMSG, "%s/manifest.json: not the one that was announced: restore it from a copy", dir);
    else
        r = manifest_verify(dir, &manifest, version_file_is_served, error);
    manifest_release(&manifest);
    return r;
}

int version_check_manifest(const char *dir, const uint8_t digest[32], struct base_files **ret_base, struct error *error)
{
    char base[PATH_MAX], unused[PATH_MAX], sha256[65];
    struct base_files *held;
    int r = check_files(dir, digest, error);

    if (r < 0 || (r = base_link_follow(dir, base, error)) <= 0 || (r = base_link_read(dir, unused, sha256, error)) <= 0)
        return r;
    held = base_files_held(sha256, BASE_VERIFIED);
    if (!held && (r = check_files(base, NULL, error)) < 0)
        return r;
    *ret_base = held;
    return 0;
}

int version_pack_failed(const char *dir, const struct params *params, bool reward, int r, struct error *error)
{
    const struct device *device = params->device;
    size_t bytes = device ? mirror_bytes(params, params->device_half) : 0;

    (void)device_ask(params->device);
    if (r == -ENOMEM && device)
        return error_set(error, ENOMEM,
                         "%s: %.1f GiB of weights do not fit into the memory of %s (%.1f GiB, %.1f were free at the start; two "
                         "versions are held while one replaces the other); use a device with more, or %s",
                         dir, (double)bytes / 0x1p30, device->name, (double)device->facts.memory / 0x1p30,
                         (double)device->facts.memory_free / 0x1p30,
                         reward ? "a smaller reward model (prm.init)" : "adapters (policy.train: lora)");
    return error_set(error, -r, "%s: %s", dir, device_error_text(device, r));
}

int policy_version_load(const char *dir, const uint8_t digest[32], bool fast, bool reward, struct policy_version **ret,
                        struct error *error)
{
    _cleanup_(policy_version_freep) struct policy_version *v = calloc(1, sizeof *v);
    _cleanup_(base_files_unrefp) struct base_files *held = NULL;
    int r;

    if (!v)
        return error_set(error, ENOMEM, "out of memory");
    v->reward = reward;
    pthread_mutex_init(&v->lock, NULL);
    r = version_check_manifest(dir, digest, &held, error);
    if (r == 0)
        r = openvla_load_halves(dir, OPENVLA_LARGE, &v->model, error);
    if (r < 0)
        return r;
    if (v->model->base)
        base_files_mark(v->model->base, BASE_VERIFIED);
    if (reward && !v->model->config.reward_width)
        return error_set(error, EINVAL, "%s: no reward head (reward_head.safetensors); this is not a reward model", dir);
    if (fast)
        params_use_fast(&v->model->params);
    r = openvla_pack(v->model, false);
    if (r < 0)
        return version_pack_failed(dir, &v->model->params, reward, r, error);
    r = probe(v, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(v);
    return 0;
}

struct policy_version *policy_version_free(struct policy_version *v)
{
    if (!v)
        return NULL;
    openvla_free(v->model);
    for (int i = 0; i < v->n_prompts; i++) {
        free(v->prompts[i].instruction);
        free(v->prompts[i].ids);
    }
    pthread_mutex_destroy(&v->lock);
    free(v);
    return NULL;
}

static int prompt_locked(struct policy_version *v, const char *instruction)
{
    _cleanup_free_ char *copy = NULL;
    int32_t *ids;
    int n, r;

    for (int i = 0; i < v->n_prompts; i++)
        if (!strcmp(v->prompts[i].instruction, instruction))
            return i;
    if (v->n_prompts == PROMPTS_MAX)
        return -ENOSPC;
    copy = strdup(instruction);
    if (!copy)
        return -ENOMEM;
    r = v->reward ? openvla_reward_prompt(v->model, instruction, &ids, &n) : openvla_prompt(v->model, instruction, &ids, &n);
    if (r < 0)
        return r;
    v->prompts[v->n_prompts].instruction = TAKE_PTR(copy);
    v->prompts[v->n_prompts].ids = ids;
    v->prompts[v->n_prompts].n = n;
    return v->n_prompts++;
}

int policy_version_prompt(struct policy_version *v, const char *instruction, const int32_t **ret_ids, int *ret_n)
{
    int i;

    pthread_mutex_lock(&v->lock);
    i = prompt_locked(v, instruction);
    if (i >= 0) {
        *ret_ids = v->prompts[i].ids;
        *ret_n = v->prompts[i].n;
    }
    pthread_mutex_unlock(&v->lock);
    return i < 0 ? i : 0;
}

int session_fit(struct openvla_session **session, struct openvla_config *made_for, const struct openvla_config *config,
                int max_batch)
{
    struct openvla_session *fitting;
    int r;

    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): one that differs in padding or the sign of 0 costs a new session */
    if (*session && !memcmp(made_for, config, sizeof *config))
        return 0;
    r = openvla_session_new(config, max_batch, &fitting);
    if (r < 0)
        return r;
    openvla_session_free(*session);
    *session = fitting;
    *made_for = *config;
    return 0;
}
