#include "serve/reward_version.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "nn/base_files.h"

/* The third frame of a grey episode: a past, actions and a present; a finite score, or the version is refused. */
static int probe(const struct qwen_vl *model, const char *dir, struct error *error)
{
    enum { SIDE = 224, FRAMES = 3, DIMS = 7 };
    static const float action[(FRAMES - 1) * DIMS];
    size_t bytes = (size_t)FRAMES * SIDE * SIDE * 3;
    _cleanup_free_ uint8_t *grey = malloc(bytes);
    _cleanup_(qwen_prompts_release) struct qwen_prompts prompts = {0};
    _cleanup_(qwen_session_freep) struct qwen_session *session = NULL;
    struct qwen_episode episode = {.instruction = "pick up the red block",
                                   .frames = grey,
                                   .n = FRAMES,
                                   .height = SIDE,
                                   .width = SIDE,
                                   .action = action,
                                   .dims = DIMS};
    float progress = 0;
    int r;

    if (!grey)
        return error_set(error, ENOMEM, "out of memory");
    memset(grey, 128, bytes);
    r = qwen_prompts_make(model, &episode, (const uint32_t[]) {FRAMES - 1}, 1, &prompts, error);
    if (r < 0)
        return error_prefix(error, r, "%s: the probe", dir);
    r = qwen_session_new(&session);
    if (r >= 0)
        r = qwen_vl_score(model, session, prompts.items, 1, &progress);
    if (r < 0)
        return error_set(error, -r, "%s: the probe failed: %s", dir, strerror(-r));
    if (!isfinite(progress))
        return error_set(error, EINVAL, "%s: the probe gave a score that is not finite; the weights are damaged", dir);
    return 0;
}

static int load_backbone(const char *dir, const uint8_t digest[32], bool fast, struct reward_version *v, struct error *error)
{
    _cleanup_(base_files_unrefp) struct base_files *held = NULL;
    const struct qwen_vl_config *c;
    int r = version_check_manifest(dir, digest, &held, error);

    if (r >= 0)
        r = qwen_vl_load_halves(dir, QWEN_LARGE, &v->backbone, error);
    if (r < 0)
        return r;
    if (v->backbone->below)
        base_files_mark(v->backbone->below, BASE_VERIFIED);
    c = &v->backbone->config;
    if (!c->reward_width && (c->yes_id < 0 || c->no_id < 0))
        return error_set(error, EINVAL,
                         "%s: no reward head (reward_head.safetensors) and no words Yes and No; this is not a reward model", dir);
    if (fast)
        params_use_fast(&v->backbone->params);
    r = qwen_vl_pack(v->backbone, false);
    return r < 0 ? version_pack_failed(dir, &v->backbone->params, true, r, error) : probe(v->backbone, dir, error);
}

int reward_version_load(const char *dir, const uint8_t digest[32], bool fast, struct reward_version **ret, struct error *error)
{
    _cleanup_(reward_version_freep) struct reward_version *v = calloc(1, sizeof *v);
    int r;

    if (!v)
        return error_set(error, ENOMEM, "out of memory");
    r = qwen_vl_is(dir) ? load_backbone(dir, digest, fast, v, error) : policy_version_load(dir, digest, fast, true, &v->trunk,
            error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(v);
    return 0;
}

struct reward_version *reward_version_free(struct reward_version *v)
{
    if (!v)
        return NULL;
    policy_version_free(v->trunk);
    qwen_vl_free(v->backbone);
    free(v);
    return NULL;
}
