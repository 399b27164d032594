/* golden.c - the run of a golden check: open, the groups one after the other, and what was left out with the reason. */
#include <errno.h>

#include "base/strbuf.h"
#include "nn/cpu/kernels.h"
#include "nn/golden/golden_internal.h"
#include "nn/golden/golden_prm.h"
#include "nn/tokenizer.h"

static void golden_release(struct golden *g)
{
    for (int i = 0; i < g->n_files; i++)
        safetensors_close(g->files[i].file);
    for (int i = 0; i < GOLDEN_SAMPLES; i++)
        free(g->prompt[i]);
    json_decref(g->manifest);
    json_decref(g->seen);
    openvla_free(g->model);
}

void golden_items(const struct golden *g, struct openvla_item items[GOLDEN_SAMPLES])
{
    for (int i = 0; i < GOLDEN_SAMPLES; i++)
        items[i] = (struct openvla_item) {
            .images = {g->image[i]}, .n_images = 1, .prompt = g->prompt[i], .n_prompt = g->n_prompt[i],
            .actions = g->actions[i], .n_actions = GOLDEN_TOKENS,
        };
}

/* Why a tensor of the manifest is not compared; NULL: it should have been. */
static const char *why_skipped(const char *wanted, const char *file, const char *name, const char *tolerance)
{
    bool bf16 = !strcmp(file, "forward_bf16.safetensors") || !strncmp(name, "bf16.", 5) || strstr(name, "_bf16");

    if (wanted && bf16 != !strcmp(wanted, "bf16"))
        return "of the other dtype: not asked for";
    if (tolerance && !strcmp(tolerance, "input"))
        return "given, not computed";
    return NULL;
}

/* One line for each reason; one FAIL for tensors that nothing looked at. */
static void report_rest(struct golden *g, const char *wanted)
{
    static const char *const reasons[] = {"of the other dtype: not asked for", "given, not computed"};
    int counts[ARRAY_SIZE(reasons)] = {0};
    const char *file, *name;
    json_t *entry, *tensor;

    golden_begin(g);
    json_object_foreach(json_object_get(g->manifest, "files"), file, entry)
        json_object_foreach(json_object_get(entry, "tensors"), name, tensor) {
            _cleanup_(strbuf_release) struct strbuf key = STRBUF_INIT;
            const char *reason;

            strbuf_addf(&key, "%s/%s", file, name);
            if (json_object_get(g->seen, key.text))
                continue;
            reason = why_skipped(wanted, file, name, json_string_value(json_object_get(tensor, "tolerance")));
            for (size_t i = 0; reason && i < ARRAY_SIZE(reasons); i++)
                counts[i] += !strcmp(reason, reasons[i]);
            if (!reason)
                golden_expect(g, false, key.text);
        }
    if (g->count)
        golden_end(g, "never compared");
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (counts[i])
            golden_skip(g, i == 0 ? "others" : "inputs given", counts[i], reasons[i]);
}

int golden_open(struct golden *g, const char *folder, const char *name)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    int r;

    if (g->n_files == (int)ARRAY_SIZE(g->files) || strlen(name) >= sizeof(g->files[0].name))
        return error_set(g->error, E2BIG, "manifest.json: %s: too many files, or too long a name", name);
    strbuf_addf(&path, "%s/%s%s.safetensors", g->dir, folder, name);
    r = safetensors_open(path.text, &g->files[g->n_files].file, g->error);
    if (r >= 0)
        snprintf(g->files[g->n_files++].name, sizeof(g->files[0].name), "%s", name);
    return r;
}

static bool is_there(const struct golden *g, const char *name)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;

    strbuf_addf(&path, "%s/%s", g->dir, name);
    return !path.failed && access(path.text, F_OK) == 0;
}

/* A model and what it computes: checkpoint/ and golden/. */
static int open_model(struct golden *g)
{
    static const char *const names[] = {"inputs", "forward_fp32", "generate", "logprobs", "sft", "adamw", "ppo"};
    _cleanup_(strbuf_release) struct strbuf golden = STRBUF_INIT, checkpoint = STRBUF_INIT;
    int r;

    strbuf_addf(&golden, "%s/golden", g->dir);
    strbuf_addf(&checkpoint, "%s/checkpoint", g->dir);
    if (golden.failed || checkpoint.failed)
        return error_set(g->error, ENOMEM, "out of memory");
    r = hf_json(golden.text, "manifest.json", &g->manifest, g->error);
    for (size_t i = 0; i < ARRAY_SIZE(names) && r >= 0; i++)
        r = golden_open(g, "golden/", names[i]);
    if (r >= 0 && is_there(g, "golden/oft.safetensors"))
        r = golden_open(g, "golden/", "oft");
    if (r >= 0)
        r = openvla_load(checkpoint.text, &g->model, g->error);
    if (r < 0)
        return r;
    r = openvla_pack(g->model, true);
    return r < 0 ? error_set(g->error, -r, "out of memory") : 0;
}

/* Pictures only: manifest.json and resize.safetensors. */
static int open_resize(struct golden *g)
{
    int r = hf_json(g->dir, "manifest.json", &g->manifest, g->error);

    return r < 0 ? r : golden_open(g, "", "resize");
}

/* from: openvla_load_halves */
static int check_bf16(struct golden *g, int64_t from)
{
    static int (*const checks[])(struct golden *g) = {golden_check_forward, golden_check_generate, golden_check_logprobs,
                                                      golden_check_lora,
                                                   golden_check_oft};
    _cleanup_(openvla_freep) struct openvla *half = NULL;
    struct openvla *whole = g->model;
    int r;

    r = openvla_load_halves(whole->dir, from, &half, g->error);
    if (r < 0)
        return r;
    if (g->fast)
        params_use_fast(&half->params);
    r = openvla_pack(half, false);
    if (r < 0)
        return error_set(g->error, -r, "out of memory");
    g->model = half;
    g->dtype = "bf16";
    for (size_t i = 0; i < ARRAY_SIZE(checks) && r >= 0; i++)
        r = checks[i](g);
    g->model = whole;
    g->dtype = "fp32";
    return r;
}

int golden_check_bf16(struct golden *g)
{
    int r;

    if (!is_there(g, "golden/forward_bf16.safetensors"))
        return g->fast ? error_set(g->error, ENOENT,
                                   "golden/forward_bf16.safetensors is missing: nothing to hold numerics: fast to") : 0;
    r = golden_open(g, "golden/", "forward_bf16");
    if (r >= 0)
        r = check_bf16(g, 0);
    if (r >= 0 && g->fast)
        r = check_bf16(g, -1);
    return r;
}

static int check_set(const char *dir, const char *dtype, bool fast, bool forward, FILE *out, struct error *error)
{
    static int (*const forward_checks[])(struct golden *g) = {golden_check_inputs, golden_check_forward};
    static int (*const all_checks[])(struct golden *g) = {golden_check_inputs,   golden_check_bf16, golden_check_forward,
                                                          golden_check_generate,
                                                          golden_check_logprobs, golden_check_sft,  golden_check_adamw,
                                                          golden_check_lora,     golden_check_ppo,  golden_check_oft};
    bool only_bf16 = dtype && !strcmp(dtype, "bf16"), only_fp32 = dtype && !strcmp(dtype, "fp32");
    static int (*const resize_checks[])(struct golden *g) = {golden_check_resize};
    _cleanup_(golden_release) struct golden g = {.dir = dir, .out = out, .error = error, .seen = json_object(), .dtype = "fp32",
                                                 .fast = fast};
    bool resize = is_there(&g, "resize.safetensors");
    int (*const *checks)(struct golden *g) = resize ? resize_checks : forward ? forward_checks : all_checks;
    size_t n = resize ? ARRAY_SIZE(resize_checks) : forward ? ARRAY_SIZE(forward_checks) : only_bf16 ? 2 : ARRAY_SIZE(all_checks);
    int r;

    if (!g.seen)
        return error_set(error, ENOMEM, "out of memory");
    if (is_there(&g, "stats.json") && !is_there(&g, "checkpoint"))
        return fast ? error_set(error, ENOTSUP, "%s: numerics: fast is checked with policies", dir) : golden_check_prm(dir, dtype,
                out, error);
    r = resize ? open_resize(&g) : open_model(&g);
    if (r < 0)
        return r;
    fprintf(out, "%-24s %7s  %9s  %-6s %s\n", "tensors", "count", "of limit", "", "worst");
    for (size_t i = 0; i < n; i++) {
        struct error inner = {0};

        if (only_fp32 && checks[i] == golden_check_bf16)
            continue;
        g.error = &inner;
        r = checks[i](&g);
        if (r < 0)
            return error_set(error, -r, "%s: %s", dir, error_text(&inner, r));
    }
    if (!forward)
        report_rest(&g, dtype);
    return g.groups_failed;
}

int golden_check(const char *dir, const char *dtype, FILE *out, struct error *error)
{
    return check_set(dir, dtype, false, false, out, error);
}

int golden_check_fast(const char *dir, FILE *out, struct error *error)
{
    if (!cpu_kernels()->gemm_bf16)
        return error_set(error, ENOTSUP, "numerics: fast: this CPU has no VDPBF16PS (AVX512_BF16)");
    return check_set(dir, "bf16", true, false, out, error);
}

int golden_check_forward_pass(const char *dir, FILE *out, struct error *error)
{
    return check_set(dir, "fp32", false, true, out, error);
}
