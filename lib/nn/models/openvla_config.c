/* openvla_config.c - config.json, preprocessor_config.json and dataset statistics into struct openvla_config.
 *
 * A Hugging Face OpenVLA says the towers' dims only through timm's model names; here they come from the tensors' shapes.
 * Heads cannot be seen in shapes: gantry_vision in config.json gives them, else they are OpenVLA-7B's. */
#include <errno.h>
#include <math.h>

#include "base/strbuf.h"
#include "nn/models/openvla_internal.h"
#include "nn/tokenizer.h"

enum { OPENVLA_7B_EMPTY_ID = 29871, DEFAULT_ACTION_DIMS = 7, LARGEST = 1 << 20 };

static const char *const tower_prefix[2] = {"vision_backbone.featurizer.", "vision_backbone.fused_featurizer."};

/* Shape of a tower's tensor; NULL: not there. */
static const struct st_tensor *tower_tensor(const struct hf_shards *shards, int which, const char *name)
{
    char full[128];

    snprintf(full, sizeof(full), "%s%s", tower_prefix[which], name);
    return hf_shards_find(shards, full);
}

/* said: config.json has the towers' numbers too. Without, a cls_token has registers beside it: DINOv2 without any has a position
 * for the cls_token, which is another shape. */
static int tower_from_tensors(const struct hf_shards *shards, int which, bool said, struct openvla_tower *tower,
                              struct error *error)
{
    const struct st_tensor *patch = tower_tensor(shards, which, "patch_embed.proj.weight");
    const struct st_tensor *fc1 = tower_tensor(shards, which, "blocks.0.mlp.fc1.weight");
    const struct st_tensor *cls = tower_tensor(shards, which, "cls_token"), *reg = tower_tensor(shards, which, "reg_token");
    char name[64];

    if (!patch || patch->ndim != 4 || patch->dim[0] > LARGEST || patch->dim[2] > LARGEST || patch->dim[2] != patch->dim[3] ||
        !fc1 || fc1->ndim != 2 || fc1->dim[0] > LARGEST || (reg && (reg->ndim != 3 || reg->dim[1] > LARGEST || !cls)) ||
        (cls && !reg && !said))
        return error_set(error, EINVAL,
                         "%s*: patch_embed.proj.weight, blocks.0.mlp.fc1.weight or reg_token is missing or misshapen",
                         tower_prefix[which]);
    tower->dim = (int)patch->dim[0];
    tower->patch = (int)patch->dim[2];
    tower->mlp = (int)fc1->dim[0];
    tower->prefix = (cls ? 1 : 0) + (reg ? (int)reg->dim[1] : 0);
    for (tower->depth = 0; tower->depth < 256; tower->depth++) {
        snprintf(name, sizeof(name), "blocks.%d.norm1.weight", tower->depth);
        if (!tower_tensor(shards, which, name))
            break;
    }
    return 0;
}

/* gantry_vision.towers[which]: heads always; the rest must agree with the tensors, or for a fresh model gives the dims. */
static int tower_from_json(const json_t *json, bool fresh, struct openvla_tower *tower, struct error *error)
{
    const struct { const char *key; int *to; } fields[] = {
        {"heads", &tower->heads}, {"patch", &tower->patch}, {"prefix_tokens", &tower->prefix},
        {"dim", &tower->dim}, {"depth", &tower->depth}, {"mlp", &tower->mlp},
    };

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        bool from_tensors = !fresh && i > 0;
        int64_t value;
        int r = hf_integer(json, fields[i].key, from_tensors ? *fields[i].to : -1, &value, error);

        if (r < 0)
            return r;
        if (value < 0 || value > LARGEST)
            return error_set(error, EINVAL, "gantry_vision: a tower needs %s", fields[i].key);
        if (from_tensors && value != *fields[i].to)
            return error_set(error, EINVAL, "gantry_vision: %s is %lld, the tensors say %d", fields[i].key, (long long)value,
                             *fields[i].to);
        *fields[i].to = (int)value;
    }
    return 0;
}

static int read_tower(const json_t *config, const struct hf_shards *shards, int which, struct openvla_tower *tower,
                      struct error *error)
{
    const json_t *vision = json_object_get(config, "gantry_vision");
    int r = 0;

    *tower = (struct openvla_tower) {.heads = 16};      /* both towers of OpenVLA-7B */
    if (shards)
        r = tower_from_tensors(shards, which, vision != NULL, tower, error);
    if (r >= 0 && (vision || !shards))
        r = tower_from_json(json_array_get(json_object_get(vision, "towers"), (size_t)which), !shards, tower, error);
    if (r < 0)
        return r;
    if (tower->depth < 2 || tower->heads < 1 || tower->dim < 1 || tower->dim % tower->heads || tower->patch < 1)
        return error_set(error, EINVAL, "%s*: dim %d, %d heads, %d blocks, patch %d make no tower", tower_prefix[which],
                         tower->dim, tower->heads, tower->depth, tower->patch);
    return 0;
}

static int read_image_size(const json_t *config, struct openvla_config *c, struct error *error)
{
    const json_t *sizes = json_object_get(config, "image_sizes");
    json_int_t side = json_integer_value(json_array_get(sizes, 0));
    int grid;

    if (side < 1 || side > 4096 || json_integer_value(json_array_get(sizes, 1)) != side)
        return error_set(error, EINVAL, "image_sizes: must be twice the same side");
    if (c->tower[0].patch != c->tower[1].patch || side % c->tower[0].patch)
        return error_set(error, EINVAL, "image_sizes: %lld is no multiple of both towers' patch (%d, %d)", (long long)side,
                         c->tower[0].patch, c->tower[1].patch);
    grid = (int)side / c->tower[0].patch;
    c->image_height = c->image_width = (int)side;
    c->patches = grid * grid;
    return 0;
}

static int read_language(const json_t *config, struct openvla_config *c, struct error *error)
{
    struct hf_llama llama;
    int64_t multiple, pad, empty;
    int r;

    r = hf_llama(json_object_get(config, "text_config"), &llama, error);
    if (r >= 0)
        r = hf_integer(config, "pad_to_multiple_of", 64, &multiple, error);
    if (r >= 0)
        r = hf_integer(config, "pad_token_id", 32000, &pad, error);
    if (r >= 0)
        r = hf_integer(config, "gantry_empty_token_id", OPENVLA_7B_EMPTY_ID, &empty, error);
    if (r < 0)
        return r;
    if (llama.num_key_value_heads != llama.num_attention_heads)
        return error_set(error, ENOTSUP, "text_config: %lld key-value heads for %lld heads; only equal numbers are supported",
                         (long long)llama.num_key_value_heads, (long long)llama.num_attention_heads);
    if (llama.hidden_size % (2 * llama.num_attention_heads))
        return error_set(error, EINVAL, "text_config: hidden_size %lld does not split into %lld heads of even width",
                         (long long)llama.hidden_size, (long long)llama.num_attention_heads);
    c->hidden = (int)llama.hidden_size;
    c->layers = (int)llama.num_hidden_layers;
    c->heads = (int)llama.num_attention_heads;
    c->intermediate = (int)llama.intermediate_size;
    c->vocab_padded = (int)llama.vocab_size;
    c->vocab = (int)(llama.vocab_size - multiple);
    c->rms_eps = (float)llama.rms_norm_eps;
    c->rope_theta = (float)llama.rope_theta;
    c->max_positions = (int)llama.max_position_embeddings;
    c->pad_id = (int)pad;
    c->empty_id = (int)empty;
    if (multiple < 0 || c->vocab <= OPENVLA_ACTION_BINS + 3 || pad < 0 || pad >= c->vocab_padded || empty < 0 ||
        empty >= c->vocab_padded)
        return error_set(
            error, EINVAL,
            "vocab_size %d - pad_to_multiple_of %lld, pad_token_id %lld and gantry_empty_token_id %lld do not fit together",
            c->vocab_padded, (long long)multiple, (long long)pad, (long long)empty);
    return 0;
}

/* Two lists of equally many numbers, at most `most`; returns how many. Absent: 0. */
static int read_range(const json_t *json, const char *low_key, const char *high_key, size_t most, double *ret_low,
                      double *ret_high)
{
    const json_t *low = json_object_get(json, low_key), *high = json_object_get(json, high_key);
    size_t n = json_array_size(low);

    if (n > most || json_array_size(high) != n)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (!json_is_number(json_array_get(low, i)) || !json_is_number(json_array_get(high, i)))
            return -EINVAL;
        ret_low[i] = json_number_value(json_array_get(low, i));
        ret_high[i] = json_number_value(json_array_get(high, i));
    }
    return (int)n;
}

static int read_bounds(const json_t *action, struct action_stats *stats)
{
    const json_t *mask = json_object_get(action, "mask");
    int dims = read_range(action, "q01", "q99", OPENVLA_MAX_ACTION_DIMS, stats->q01, stats->q99);

    if (dims < 1 || (mask && json_array_size(mask) != (size_t)dims))
        return -EINVAL;
    stats->dims = dims;
    for (int i = 0; i < dims; i++) {
        const json_t *one = json_array_get(mask, (size_t)i);

        if (one && !json_is_boolean(one) && !json_is_number(one))
            return -EINVAL;
        stats->mask[i] = !one || json_is_true(one) || json_number_value(one) != 0;
    }
    stats->extremes = read_range(action, "min", "max", OPENVLA_MAX_ACTION_DIMS, stats->min, stats->max) == dims;
    return 0;
}

/* The robot's own state; absent, or empty, in many data sets. */
static int read_proprio(const json_t *proprio, struct action_stats *stats)
{
    int n = read_range(proprio, "q01", "q99", OPENVLA_MAX_PROPRIO, stats->proprio_low, stats->proprio_high);

    if (n < 0)
        return n;
    stats->proprio = n;
    stats->extremes = stats->extremes &&
                      read_range(proprio, "min", "max", OPENVLA_MAX_PROPRIO, stats->proprio_min, stats->proprio_max) == n;
    return 0;
}

int openvla_check_range(const char *what, const char *low_name, const double *low, const char *high_name, const double *high,
                        const bool *mask, int n, struct error *error)
{
    for (int i = 0; i < n; i++)
        if ((!mask || mask[i]) && !(low[i] <= high[i] && isfinite(high[i] - low[i])))
            return error_set(error, EINVAL, "%s: number %d has %s %g and %s %g: that is no range", what, i, low_name, low[i],
                             high_name, high[i]);
    return 0;
}

static int check_ranges(const char *key, const struct action_stats *s, struct error *error)
{
    int r = openvla_check_range("action", "q01", s->q01, "q99", s->q99, s->mask, s->dims, error);

    if (r >= 0)
        r = openvla_check_range("proprio", "q01", s->proprio_low, "q99", s->proprio_high, NULL, s->proprio, error);
    return r < 0 ? error_prefix(error, r, "dataset %s", key) : 0;
}

int openvla_read_stats(const json_t *norm_stats, struct action_stats **ret, int *ret_n, struct error *error)
{
    struct action_stats *list = calloc(json_object_size(norm_stats) + 1, sizeof(*list));
    const char *key;
    json_t *dataset;
    int n = 0, r = list ? 0 : error_set(error, ENOMEM, "out of memory");

    json_object_foreach((json_t *)(uintptr_t)norm_stats, key, dataset) {
        if (r < 0)
            break;
        if (read_bounds(json_object_get(dataset, "action"), &list[n]) < 0)
            r = error_set(error, EINVAL, "dataset %s: action needs q01, q99 (and mask) of 1 to %d numbers", key,
                          OPENVLA_MAX_ACTION_DIMS);
        else if (read_proprio(json_object_get(dataset, "proprio"), &list[n]) < 0)
            r = error_set(error, EINVAL, "dataset %s: proprio needs q01 and q99 of equally many numbers, at most %d", key,
                          OPENVLA_MAX_PROPRIO);
        else if ((r = check_ranges(key, &list[n], error)) < 0)
            break;
        else if (!(list[n].key = strdup(key)))
            r = error_set(error, ENOMEM, "out of memory");
        else
            n++;
    }
    if (r < 0) {
        openvla_free_stats(list, n);
        return r;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

void openvla_free_stats(struct action_stats *stats, int n)
{
    for (int i = 0; i < n; i++)
        free(stats[i].key);
    free(stats);
}

static int read_dataset_stats(struct openvla *model, const char *dir, const json_t *config, struct error *error)
{
    _cleanup_json_ json_t *file = NULL;
    int r = hf_json(dir, "dataset_statistics.json", &file, error);

    if (r < 0 && r != -ENOENT)
        return r;
    r = openvla_read_stats(file ? file : json_object_get(config, "norm_stats"), &model->stats, &model->n_stats, error);
    if (r < 0)
        return error_prefix(error, r, "%s", file ? "dataset_statistics.json" : "norm_stats");
    model->config.action_dims = model->n_stats ? model->stats[0].dims : DEFAULT_ACTION_DIMS;
    return 0;
}

static int read_gripper(const json_t *config, struct gripper_rule *ret, struct error *error)
{
    const json_t *rule = json_object_get(config, "gantry_gripper"), *binarise = json_object_get(rule, "binarise"),
                 *invert = json_object_get(rule, "invert");

    if ((rule && !json_is_object(rule)) || (binarise && !json_is_boolean(binarise)) || (invert && !json_is_boolean(invert)))
        return error_set(error, EINVAL, "gantry_gripper: must be an object with binarise and invert, true or false");
    *ret = (struct gripper_rule) {.binarise = json_is_true(binarise), .invert = json_is_true(invert), .said = rule};
    return 0;
}

/* lut[channel][u8]: the processor's arithmetic, in fp32: x/255, minus mean, over std. */
static int read_preprocessor(struct openvla *model, const char *dir, struct error *error)
{
    _cleanup_json_ json_t *json = NULL;
    double mean[2][3], std[2][3];
    int r;

    r = hf_json(dir, "preprocessor_config.json", &json, error);
    if (r >= 0)
        r = hf_image_statistics(json, 2, mean, std, error);
    if (r >= 0)
        r = openvla_read_pictures(&model->config, json, error);
    if (r < 0)
        return r;
    for (int c = 0; c < 6; c++)
        for (int u = 0; u < 256; u++)
            model->lut[c][u] = ((float)u / 255.0f - (float)mean[c / 3][c % 3]) / (float)std[c / 3][c % 3];
    return 0;
}

static int read_tokenizer(struct openvla *model, const char *dir, struct error *error)
{
    struct openvla_config *c = &model->config;
    int r = tokenizer_load_dir(dir, &model->tokenizer, error);

    if (r < 0)
        return r;
    c->bos_id = tokenizer_bos(model->tokenizer);
    c->eos_id = tokenizer_id(model->tokenizer, "</s>");
    if (tokenizer_size(model->tokenizer) != c->vocab || c->bos_id < 0 || c->eos_id < 0)
        return error_set(error, EINVAL, "%s: the tokenizer has %d pieces, %s <s> and %s </s>; the model has %d ids", dir,
                         tokenizer_size(model->tokenizer), c->bos_id < 0 ? "no" : "a", c->eos_id < 0 ? "no" : "a", c->vocab);
    return 0;
}

static bool is_set(const json_t *value)
{
    return value && !json_is_null(value) && !json_is_false(value);
}

/* What would load and be computed wrongly: other architectures, and variants of this one that the passes do not know. */
static int check_architecture(const json_t *config, struct error *error)
{
    static const struct { const char *object, *key, *expected; } fixed[] = {
        {NULL, "model_type", "openvla"},
        {NULL, "arch_specifier", "no-align+fused-gelu-mlp"},
        {"text_config", "model_type", "llama"},
        {"text_config", "hidden_act", "silu"},
    };
    static const char *const unknown_if_set[] = {"rope_scaling", "rope_parameters", "attention_bias", "mlp_bias",
                                                 "tie_word_embeddings"};
    const json_t *text = json_object_get(config, "text_config"), *act;
    const char *class = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    int64_t bins;
    size_t i;
    int r = hf_integer(config, "n_action_bins", OPENVLA_ACTION_BINS, &bins, error);

    if (r < 0)
        return r;
    if (bins != OPENVLA_ACTION_BINS)
        return error_set(error, ENOTSUP, "n_action_bins: found %lld, expected %d", (long long)bins, OPENVLA_ACTION_BINS);
    if (class && strcmp(class, "OpenVLAForActionPrediction"))
        return error_set(error, ENOTSUP, "architectures: found %s, expected OpenVLAForActionPrediction", class);
    for (i = 0; i < ARRAY_SIZE(fixed); i++) {
        const json_t *value = json_object_get(fixed[i].object ? json_object_get(config, fixed[i].object) : config, fixed[i].key);
        const char *found = json_string_value(value);

        if (value && (!found || strcmp(found, fixed[i].expected)))
            return error_set(error, ENOTSUP, "%s%s%s: found %s, expected %s", fixed[i].object ? fixed[i].object : "",
                             fixed[i].object ? "." : "", fixed[i].key, found ? found : "no text", fixed[i].expected);
    }
    if (json_is_false(json_object_get(config, "use_fused_vision_backbone")))
        return error_set(error, ENOTSUP, "use_fused_vision_backbone: found false, expected true (DINOv2 and SigLIP)");
    json_array_foreach(json_object_get(config, "timm_override_act_layers"), i, act)
        if (!json_is_null(act))
            return error_set(error, ENOTSUP, "timm_override_act_layers: found another activation, expected null (erf GELU)");
    for (i = 0; i < ARRAY_SIZE(unknown_if_set); i++)
        if (is_set(json_object_get(text, unknown_if_set[i])))
            return error_set(error, ENOTSUP, "text_config.%s: is set, expected null or false", unknown_if_set[i]);
    return 0;
}

int openvla_configure(struct openvla *model, const char *dir, const struct hf_shards *shards, struct error *error)
{
    _cleanup_json_ json_t *json = NULL;
    int r;

    r = hf_json(dir, "config.json", &json, error);
    if (r < 0)
        return r;
    r = check_architecture(json, error);
    for (int i = 0; i < 2 && r >= 0; i++)
        r = read_tower(json, shards, i, &model->config.tower[i], error);
    if (r >= 0)
        r = read_image_size(json, &model->config, error);
    if (r >= 0)
        r = read_language(json, &model->config, error);
    if (r < 0)
        return error_prefix(error, r, "%s/config.json", dir);
    r = read_dataset_stats(model, dir, json, error);
    if (r >= 0)
        r = oft_configure(model, json, error);
    if (r >= 0)
        r = read_gripper(json, &model->config.gripper, error);
    if (r >= 0)
        r = openvla_read_chain(&model->config, json, error);
    if (r >= 0)
        r = read_preprocessor(model, dir, error);
    return r < 0 ? error_prefix(error, r, "%s", dir) : read_tokenizer(model, dir, error);
}

int openvla_say(struct hf_files *files, const char *member)
{
    for (int i = 0; i < files->n; i++) {
        struct hf_file *file = &files->list[i];
        _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
        char *grown;

        if (strcmp(file->name, "config.json") != 0)
            continue;
        if (file->bytes[0] != '{')
            return -EINVAL;
        strbuf_addf(&text, "{\n  %s,%s", member, file->bytes + 1);
        grown = text.failed ? NULL : malloc(text.length + 1);
        if (!grown)
            return -ENOMEM;
        memcpy(grown, text.text, text.length + 1);
        free(file->bytes);
        file->bytes = grown;
        file->n = text.length;
        return 0;
    }
    return -ENOENT;
}
