/* golden_lora.c - adapters in PEFT's form: loss, logits, the gradient of every A and B, merged weights and what they give. */
#include <errno.h>

#include "base/strbuf.h"
#include "nn/golden/golden_internal.h"
#include "nn/models/openvla_lora.h"

/* Every A and B that the file has a gradient of; the base has none. */
static int compare_gradients(struct golden *g, const char *set, const float *grad)
{
    for (int i = 0; i < g->model->params.count; i++) {
        const struct param *p = g->model->params.list[i];
        _cleanup_(strbuf_release) struct strbuf name = STRBUF_INIT;
        int r = 0;

        strbuf_addf(&name, "grad.%s", p->name);
        if (name.failed)
            return error_set(g->error, ENOMEM, "out of memory");
        if (p->adapter && golden_has(g, set, name.text)) {
            r = golden_compare_sampled(g, set, name.text, grad + p->offset, p->numel);
        } else if (p->frozen) {
            bool zero = true;

            for (int64_t k = 0; k < p->numel; k++)
                zero = zero && grad[p->offset + k] == 0;
            golden_expect(g, zero, name.text);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* With the adapters as they are; and the same weights without them, which must be the base. */
static int check_unmerged(struct golden *g, const char *set)
{
    _cleanup_free_ float *grad = NULL;
    struct tape tape, plain;
    struct golden_sft sft;
    char group[48];
    int r = golden_training_tape(g, &tape, &grad);

    if (r < 0)
        return r;
    tape_init(&plain, false);
    plain.plain = true;
    golden_begin(g);
    r = golden_sft(g, &tape, &sft);
    if (r >= 0)
        r = golden_compare_double(g, set, "loss", &sft.loss, 1);
    if (r >= 0)
        r = golden_compare(g, set, "logits", sft.logits->x, sft.logits->rows * sft.logits->cols);
    if (r >= 0)
        r = golden_sft(g, &plain, &sft);
    if (r >= 0)
        r = golden_compare(g, "sft", "logits", sft.logits->x, sft.logits->rows * sft.logits->cols);
    snprintf(group, sizeof(group), "%s loss", set);
    golden_end(g, group);
    golden_begin(g);
    if (r >= 0)
        r = compare_gradients(g, set, grad);
    snprintf(group, sizeof(group), "%s gradients", set);
    golden_end(g, group);
    tape_release(&tape);
    tape_release(&plain);
    return r;
}

static int check_merged(struct golden *g, const char *set)
{
    struct golden_sft sft;
    struct tape tape;
    char group[48];
    int r = openvla_lora_merge(g->model, g->error);

    if (r >= 0)
        r = openvla_pack(g->model, true);
    tape_init(&tape, false);
    golden_begin(g);
    for (int i = 0; i < g->model->params.count && r >= 0; i++) {
        const struct param *p = g->model->params.list[i];
        char name[192];

        if ((size_t)snprintf(name, sizeof(name), "merged.%s", p->name) < sizeof(name) && golden_has(g, set, name))
            r = golden_compare_sampled(g, set, name, p->value, p->numel);
    }
    if (r >= 0)
        r = golden_sft(g, &tape, &sft);
    if (r >= 0)
        r = golden_compare(g, set, "merged_logits", sft.logits->x, GOLDEN_LABELS * sft.logits->cols);
    snprintf(group, sizeof(group), "%s merged", set);
    golden_end(g, group);
    tape_release(&tape);
    return r;
}

/* logits_bf16: against the reference's bf16 run, which did not merge either. */
static int check_bf16(struct golden *g, const char *set)
{
    struct golden_sft sft;
    struct tape tape;
    char group[48];
    int r;

    tape_init(&tape, false);
    golden_begin(g);
    r = golden_sft(g, &tape, &sft);
    if (r >= 0)
        r = golden_compare(g, set, "logits_bf16", sft.logits->x, sft.logits->rows * sft.logits->cols);
    snprintf(group, sizeof(group), "%s", set);
    golden_end(g, group);
    tape_release(&tape);
    return r;
}

/* The adapter of that name on the model; checked; off again, as if nothing had been. */
static int check_set(struct golden *g, const char *set)
{
    struct params *params = &g->model->params;
    size_t bytes = (size_t)params->numel * sizeof(float);
    _cleanup_(strbuf_release) struct strbuf dir = STRBUF_INIT;
    _cleanup_free_ float *base = malloc(bytes);
    int r;

    strbuf_addf(&dir, "%s/golden/%s", g->dir, set);
    if (!base || dir.failed)
        return error_set(g->error, ENOMEM, "out of memory");
    memcpy(base, params->values, bytes);
    r = golden_is_open(g, set) ? 0 : golden_open(g, "golden/", set);
    if (r >= 0)
        r = openvla_lora_load(g->model, dir.text, g->error);
    if (r >= 0)
        r = openvla_pack(g->model, true);
    if (r < 0)
        return r;
    if (strcmp(g->dtype, "fp32")) {
        r = golden_has(g, set, "logits_bf16") ? check_bf16(g, set) : 0;
        return r < 0 ? r : openvla_lora_detach(g->model);
    }
    r = check_unmerged(g, set);
    if (r >= 0)
        r = check_merged(g, set);
    if (r < 0)
        return r;
    memcpy(params->values, base, bytes);
    return openvla_pack(g->model, true);
}

int golden_check_lora(struct golden *g)
{
    const char *file;
    json_t *entry;
    int r;

    json_object_foreach(json_object_get(g->manifest, "files"), file, entry) {
        const char *end = strstr(file, ".safetensors");
        char set[32];

        if (strncmp(file, "lora", 4) || !end || (size_t)(end - file) >= sizeof(set))
            continue;
        memcpy(set, file, (size_t)(end - file));
        set[end - file] = '\0';
        r = check_set(g, set);
        if (r < 0)
            return r;
    }
    return 0;
}
