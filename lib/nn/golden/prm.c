/* prm.c - the run of a check of reward models: tables, then each model's groups. */
#include <errno.h>
#include <string.h>

#include "nn/golden/golden_prm.h"
#include "nn/golden/prm_internal.h"

static void close_model(struct prm_check *p)
{
    for (int i = 0; p->ids && i < p->n; i++)
        free(p->ids[i]);
    free(p->ids);
    free(p->items);
    free(p->labels);
    json_decref(p->prompts);
    qwen_vl_free(p->model);
    p->ids = NULL;
    p->items = NULL;
    p->labels = NULL;
    p->prompts = NULL;
    p->model = NULL;
    p->name = NULL;
    p->bf16 = false;
    p->n = 0;
}

static void prm_release(struct prm_check *p)
{
    close_model(p);
    for (int i = 0; i < p->n_pictures; i++)
        free(p->resized[i]);
    free(p->resized);
    free(p->picture);
    safetensors_close(p->pictures);
    json_decref(p->manifest);
    json_decref(p->stats);
    json_decref(p->seen);
}

/* bf16: matrices as they lie in the files. */
static int open_model(struct prm_check *p)
{
    char path[4096];
    int r;

    snprintf(path, sizeof(path), "%s/%s/model", p->dir, p->name);
    r = qwen_vl_load_halves(path, p->bf16 ? 0 : -1, &p->model, p->error);
    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "%s/%s/reward_head.safetensors", p->dir, p->name);
    r = qwen_vl_load_reward_head(p->model, path, p->error);
    if (r < 0)
        return r;
    r = qwen_vl_pack(p->model, true);
    return r < 0 ? error_set(p->error, -r, "out of memory") : 0;
}

static void expect_all(struct prm_check *p)
{
    static const char *const files[] = {"inputs.safetensors", "forward_fp32.safetensors", "train_lora_fp32.safetensors",
                                        "train_full_fp32.safetensors"};
    char path[512];

    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        snprintf(path, sizeof(path), "%s/%s", p->name, files[i]);
        prm_expect_all(p, path);
    }
}

static int check_model(struct prm_check *p, const char *name, bool bf16)
{
    static int (*const fp32_checks[])(struct prm_check *p) = {prm_check_inputs, prm_check_forward, prm_check_adapters,
                                                              prm_check_full};
    static int (*const bf16_checks[])(struct prm_check *p) = {prm_check_inputs, prm_check_forward, prm_check_adapters};
    int r;

    p->name = name;
    p->bf16 = bf16;
    r = open_model(p);
    for (size_t i = 0; i < (bf16 ? ARRAY_SIZE(bf16_checks) : ARRAY_SIZE(fp32_checks)) && r >= 0; i++)
        r = bf16 ? bf16_checks[i](p) : fp32_checks[i](p);
    if (r >= 0 && !bf16)
        expect_all(p);
    close_model(p);
    return r;
}

int golden_check_prm(const char *dir, const char *dtype, FILE *out, struct error *error)
{
    static const char suffix[] = "/model/config.json";
    _cleanup_(prm_release) struct prm_check p = {.dir = dir, .out = out, .error = error, .seen = json_object()};
    const char *file;
    json_t *entry;
    int models = 0, r = hf_json(dir, "manifest.json", &p.manifest, error);

    if (r >= 0)
        r = hf_json(dir, "stats.json", &p.stats, error);
    if (r < 0)
        return r;
    fprintf(out, "%-68s %-14s %9s %9s  %-14s\n", "tensor", "shape", "max abs", "relative", "tolerance");
    r = prm_check_common(&p);
    json_object_foreach(json_object_get(p.manifest, "files"), file, entry) {
        size_t n = strlen(file), m = strlen(suffix);
        char name[256];

        if (r < 0 || n <= m || n - m >= sizeof(name) || strcmp(file + n - m, suffix))
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(n - m), file);
        models++;
        if (!dtype || strcmp(dtype, "bf16"))
            r = check_model(&p, name, false);
        if (r >= 0 && (!dtype || !strcmp(dtype, "bf16")))
            r = check_model(&p, name, true);
    }
    if (r >= 0 && !models)
        r = error_set(error, EINVAL, "%s/manifest.json: names no model: nothing was compared", dir);
    return r < 0 ? r : p.failed;
}
