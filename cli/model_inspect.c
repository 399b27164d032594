/* model_inspect.c - `gantry model inspect DIR`: what a directory holds, by its headers alone; a 15 GB checkpoint takes no longer
 * than a small one. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json_write.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "nn/base_link.h"
#include "nn/models/openvla_oft.h"
#include "nn/peft.h"
#include "train/memory.h"

enum { MAX_PARTS = 32, LORA_R = 32, ASSUMED_THREADS = 8 };

struct part { char name[64]; int tensors; int64_t parameters, bytes; };

struct survey {
    const char *dir;
    char architecture[96];
    bool policy, adapter;
    struct peft_config peft;            /* of an adapter alone */
    struct hf_shards shards;
    struct part part[MAX_PARTS];
    int n_parts;
    int tensors, dtypes[DTYPE_BOOL + 1];
    int64_t parameters, bytes, frozen;
    struct openvla *model;              /* a policy, or */
    struct qwen_vl *prm;                /* a reward model, or both NULL: of another architecture */
    struct memory_need need[MEMORY_USES];
    int batch;
};

static void survey_release(struct survey *s)
{
    hf_shards_close(&s->shards);
    peft_config_release(&s->peft);
    openvla_free(s->model);
    qwen_vl_free(s->prm);
}

/* The module a tensor belongs to: the first word of its name, or two where the first says nothing. */
static void part_name(const char *tensor, char ret[64])
{
    static const char *const wrappers[] = {"vision_backbone.", "model.", "base_model.model."};
    const char *end = strchr(tensor, '.');

    for (size_t i = 0; i < ARRAY_SIZE(wrappers); i++)
        if (!strncmp(tensor, wrappers[i], strlen(wrappers[i])))
            end = strchr(tensor + strlen(wrappers[i]), '.');
    snprintf(ret, 64, "%.*s", end ? (int)(end - tensor) : (int)strlen(tensor), tensor);
}

static void count(struct survey *s, const struct st_tensor *tensor)
{
    char name[64];
    int i = 0;

    part_name(tensor->name, name);
    while (i < s->n_parts && strcmp(s->part[i].name, name))
        i++;
    if (i == s->n_parts && s->n_parts == MAX_PARTS)
        i--;                            /* many kinds of names: what is left over goes with the last */
    else if (i == s->n_parts)
        snprintf(s->part[s->n_parts++].name, sizeof(s->part[0].name), "%s", name);
    s->part[i].tensors++;
    s->part[i].parameters += tensor->numel;
    s->part[i].bytes += (int64_t)tensor->bytes;
    s->tensors++;
    s->dtypes[tensor->dtype]++;
    s->parameters += tensor->numel;
    s->bytes += (int64_t)tensor->bytes;
}

static int read_architecture(struct survey *s, struct error *error)
{
    _cleanup_json_ json_t *config = NULL;
    char base[PATH_MAX];
    const char *class, *type;
    int r = base_link_follow(s->dir, base, error);

    if (r >= 0)
        r = hf_json(r > 0 ? base : s->dir, "config.json", &config, error);
    if (r < 0)
        return r;
    class = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    type = json_string_value(json_object_get(config, "model_type"));
    snprintf(s->architecture, sizeof(s->architecture), "%s", class ? class : type ? type : "unknown");
    s->policy = type && !strcmp(type, "openvla");
    return 0;
}

static int survey(struct survey *s, struct error *error)
{
    int r = model_is_adapter(s->dir, &s->shards, &s->peft, error);

    s->adapter = r > 0;
    if (s->adapter)
        snprintf(s->architecture, sizeof(s->architecture), "PEFT LoRA adapter");
    else if (r == 0)
        r = read_architecture(s, error);
    if (r < 0)
        return r;
    if (s->adapter)
        r = 0;
    else if (s->policy)
        r = openvla_open(s->dir, NULL, &s->model, &s->shards, error);
    else if (qwen_vl_is(s->dir))
        r = qwen_vl_open(s->dir, NULL, &s->prm, &s->shards, error);
    else
        r = hf_shards_open(s->dir, &s->shards, error);
    if (r < 0)
        return r;
    for (int i = 0; i < s->shards.n; i++)
        for (int k = 0; k < s->shards.file[i]->count; k++)
            count(s, &s->shards.file[i]->list[k]);
    for (int i = 0; s->model && i < s->model->params.count; i++)
        s->frozen += s->model->params.list[i]->frozen ? s->model->params.list[i]->numel : 0;
    for (int use = 0; use < MEMORY_USES && (s->model || s->prm); use++) {
        r = s->model ? memory_need(s->model, (enum memory_use)use, s->batch, ASSUMED_THREADS, LORA_R, &s->need[use]) :
                       memory_need_prm(s->prm, (enum memory_use)use, s->batch, ASSUMED_THREADS, LORA_R, &s->need[use]);
        if (r < 0)
            return error_set(error, -r, "%s: memory at batch %d: %s", s->dir, s->batch, strerror(-r));
    }
    return 0;
}

/* ---- for people ------------------------------------------------------------------------------------------- */


static void print_tower(const char *name, const struct openvla_tower *t)
{
    printf("%-12s dim %d, %d blocks (%d run), %d heads, mlp %d, patch %d, %d prefix tokens\n", name, t->dim, t->depth,
           t->depth - 1, t->heads, t->mlp, t->patch, t->prefix);
}

static void print_oft(const struct oft_config *oft)
{
    printf("%-12s %s, %d actions in one pass, %d picture%s", "chunks", oft_kind_name(oft->kind), oft->chunk, oft->images,
           oft->images == 1 ? "" : "s");
    if (oft->proprio)
        printf(", %d numbers of the robot's state", oft->proprio);
    printf("%s\n", oft->film ? ", FiLM" : "");
}

static void print_policy(const struct openvla *model)
{
    const struct openvla_config *c = &model->config;

    printf("%-12s %dx%d, %d patches\n", "image", c->image_height, c->image_width, c->patches);
    print_tower("dinov2", &c->tower[0]);
    print_tower("siglip", &c->tower[1]);
    printf("%-12s hidden %d, %d layers, %d heads, mlp %d, rms eps %g, rope theta %g\n", "llama", c->hidden, c->layers, c->heads,
           c->intermediate, (double)c->rms_eps, (double)c->rope_theta);
    printf("%-12s %d ids, padded %d; actions %d..%d, pad %d, empty %d\n", "vocabulary", c->vocab, c->vocab_padded,
           c->vocab - OPENVLA_ACTION_BINS, c->vocab - 1, c->pad_id, c->empty_id);
    if (c->value_width)
        printf("%-12s width %d, %d extra inputs\n", "value head", c->value_width, c->value_inputs);
    if (c->reward_width)
        printf("%-12s width %d\n", "reward head", c->reward_width);
    if (c->oft.kind != OFT_NONE)
        print_oft(&c->oft);
    for (int i = 0; i < model->n_stats; i++)
        printf("%-12s %s, %d action dims\n", i ? "" : "datasets", model->stats[i].key, model->stats[i].dims);
}

static void print_prm(const struct qwen_vl *model)
{
    const struct qwen_vl_config *c = &model->config;

    printf("%-12s dim %d, %d blocks, %d heads, mlp %d, patch %d, groups of %dx%d\n", "vision", c->vision.dim, c->vision.depth,
           c->vision.heads, c->vision.mlp, c->vision.patch, c->vision.merge, c->vision.merge);
    printf("%-12s hidden %d, %d layers, %d heads, %d key-value heads, mlp %d, %d ids%s\n", "language", c->hidden, c->layers,
           c->heads, c->kv_heads, c->intermediate, c->vocab, c->tied ? ", tied" : "");
}

static void print_memory(const struct survey *s)
{
    static const char *const names[MEMORY_USES] = {"inference", "train LoRA", "train full"};
    bool large = s->need[MEMORY_FULL].total >> 30;
    double unit = large ? 1 << 30 : 1 << 20;

    printf("memory of one process at batch %d, in %s (LoRA of rank %d; training on %d threads)\n", s->batch,
           large ? "GiB" : "MiB", LORA_R, ASSUMED_THREADS);
    printf("  %-10s %9s %9s %9s %11s %9s %9s %9s\n", "", "weights", "packed", "kv cache", "activations", "gradients", "optimiser",
           "together");
    for (int use = 0; use < MEMORY_USES; use++) {
        const struct memory_need *n = &s->need[use];
        const int64_t columns[] = {n->weights, n->packs, n->cache, n->activations, n->gradients, n->optimiser, n->total};

        printf("  %-10s", names[use]);
        for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
            printf(" %*.2f", i == 3 ? 11 : 9, (double)columns[i] / unit);
        printf("\n");
    }
}

static void print_survey(const struct survey *s)
{
    printf("%-12s %s, %d file%s:", "model", s->architecture, s->shards.n, s->shards.n == 1 ? "" : "s");
    for (int d = 0; d <= DTYPE_BOOL; d++)
        if (s->dtypes[d])
            printf(" %d %s", s->dtypes[d], dtype_name((enum dtype)d));
    printf("\n%-12s %lld in %d tensors, %lld bytes", "parameters", (long long)s->parameters, s->tensors, (long long)s->bytes);
    if (s->frozen)
        printf("; %lld of them never run", (long long)s->frozen);
    printf("\n");
    for (int i = 0; i < s->n_parts; i++)
        printf("  %-34s %14lld in %4d tensors, %14lld bytes\n", s->part[i].name, (long long)s->part[i].parameters,
               s->part[i].tensors, (long long)s->part[i].bytes);
    if (s->model)
        print_policy(s->model);
    if (s->adapter)
        printf("%-12s r %d, alpha %g, of %s\n", "adapter", s->peft.r, s->peft.alpha,
               s->peft.base ? s->peft.base : "a base it does not name");
    if (s->prm)
        print_prm(s->prm);
    if (s->model || s->prm)
        print_memory(s);
}

/* ---- for programs ----------------------------------------------------------------------------------------- */

static void json_memory(struct json_writer *w, const struct survey *s)
{
    static const char *const names[MEMORY_USES] = {"inference", "lora", "full"};

    json_open(w, "memory", '{');
    json_signed(w, "batch", s->batch);
    json_signed(w, "threads", ASSUMED_THREADS);
    json_signed(w, "lora_r", LORA_R);
    for (int use = 0; use < MEMORY_USES; use++) {
        const struct memory_need *n = &s->need[use];

        json_open(w, names[use], '{');
        json_signed(w, "weights", n->weights);
        json_signed(w, "packed", n->packs);
        json_signed(w, "kv_cache", n->cache);
        json_signed(w, "activations", n->activations);
        json_signed(w, "gradients", n->gradients);
        json_signed(w, "optimiser", n->optimiser);
        json_signed(w, "total", n->total);
        json_signed(w, "trained_parameters", n->trained);
        json_close(w, '}');
    }
    json_close(w, '}');
}

static void json_oft(struct json_writer *w, const struct oft_config *oft)
{
    json_open(w, "oft", '{');
    json_text(w, "kind", oft_kind_name(oft->kind));
    json_signed(w, "chunk", oft->chunk);
    json_signed(w, "images", oft->images);
    json_signed(w, "state", oft->proprio);
    json_bool(w, "film", oft->film);
    json_close(w, '}');
}

static int print_json(const struct survey *s)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};

    json_open(&w, NULL, '{');
    json_text(&w, "architecture", s->architecture);
    json_signed(&w, "files", s->shards.n);
    json_signed(&w, "tensors", s->tensors);
    json_signed(&w, "parameters", s->parameters);
    json_signed(&w, "bytes", s->bytes);
    json_open(&w, "dtypes", '{');
    for (int d = 0; d <= DTYPE_BOOL; d++)
        if (s->dtypes[d])
            json_signed(&w, dtype_name((enum dtype)d), s->dtypes[d]);
    json_close(&w, '}');
    json_open(&w, "parts", '[');
    for (int i = 0; i < s->n_parts; i++) {
        json_open(&w, NULL, '{');
        json_text(&w, "name", s->part[i].name);
        json_signed(&w, "tensors", s->part[i].tensors);
        json_signed(&w, "parameters", s->part[i].parameters);
        json_signed(&w, "bytes", s->part[i].bytes);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    if (s->model && s->model->config.oft.kind != OFT_NONE)
        json_oft(&w, &s->model->config.oft);
    if (s->model || s->prm)
        json_memory(&w, s);
    json_close(&w, '}');
    if (out.failed)
        return -ENOMEM;
    printf("%s\n", out.text);
    return 0;
}

int model_inspect(int argc, char **argv)
{
    const char *batch = model_option(&argc, argv, "--batch");
    bool json = model_flag(&argc, argv, "--json");
    _cleanup_(survey_release) struct survey s = {.shards.total_size = -1};
    struct error error = {0};
    char *end;
    int r;

    if (argc != 1)
        return CLI_USAGE;
    s.dir = argv[0];
    s.batch = batch ? (int)strtol(batch, &end, 10) : 1;
    if (batch && (end == batch || *end || s.batch < 1 || s.batch > 4096))
        return model_fail(&error, error_set(&error, EINVAL, "--batch: '%s' is not a number from 1 to 4096", batch));
    r = survey(&s, &error);
    if (r < 0)
        return model_fail(&error, r);
    if (json)
        r = print_json(&s);
    else
        print_survey(&s);
    return r < 0 ? model_fail(NULL, r) : CLI_OK;
}
