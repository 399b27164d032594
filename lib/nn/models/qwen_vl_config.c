/* qwen_vl_config.c - config.json and preprocessor_config.json of Qwen2-VL and Qwen2.5-VL, in hub and in save_pretrained form.
 *
 * Rules that cost hours when missed: save_pretrained leaves out what equals the class's default, so defaults are the class's;
 * rope_scaling.type is "mrope" in one form and "default" in the other, mrope_section decides; ids come from the files; newer
 * writers put the language model's keys under text_config, and the rotation's under rope_parameters. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "image/smart_resize.h"
#include "nn/base_link.h"
#include "nn/models/qwen_vl_internal.h"

enum { LARGEST = 1 << 24, BICUBIC = 3 /* as PIL counts them */ };

struct key { const char *name; int64_t fallback; int *to; };

static int read_keys(const json_t *object, const struct key *keys, size_t n, struct error *error)
{
    for (size_t i = 0; i < n; i++) {
        int64_t value;
        int r = hf_integer(object, keys[i].name, keys[i].fallback, &value, error);

        if (r < 0)
            return r;
        if (value < 1 || value > LARGEST)
            return error_set(error, EINVAL, "%s: %lld is out of range (1..%d)", keys[i].name, (long long)value, LARGEST);
        *keys[i].to = (int)value;
    }
    return 0;
}

static bool is_family(const json_t *config, enum qwen_family *ret)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));

    *ret = type && !strcmp(type, "qwen2_5_vl") ? QWEN2_5_VL : QWEN2_VL;
    return type && (!strcmp(type, "qwen2_vl") || !strcmp(type, "qwen2_5_vl"));
}

bool qwen_vl_is(const char *dir)
{
    _cleanup_json_ json_t *config = NULL;
    char base[PATH_MAX], sha256[65], path[2 * PATH_MAX];
    enum qwen_family family;

    if (base_link_read(dir, base, sha256, NULL) > 0) {
        snprintf(path, sizeof(path), "%s/%s", dir, base);
        dir = path;
    }
    return hf_json(dir, "config.json", &config, NULL) >= 0 && is_family(config, &family);
}

/* ---- vision ---------------------------------------------------------------------------------------------- */

static int read_whole(const json_t *list, struct qwen_vision_config *v, struct error *error)
{
    static const int published[] = {7, 15, 23, 31};
    size_t at;
    json_t *block;

    if (list && !json_is_array(list))
        return error_set(error, EINVAL, "fullatt_block_indexes: must be a list");
    for (size_t i = 0; !list && i < ARRAY_SIZE(published); i++)
        v->whole[published[i]] = true;
    json_array_foreach(list, at, block) {
        if (!json_is_integer(block) || json_integer_value(block) < 0 || json_integer_value(block) >= v->depth)
            return error_set(error, EINVAL, "fullatt_block_indexes: an entry is no block of 0..%d", v->depth - 1);
        v->whole[json_integer_value(block)] = true;
    }
    return 0;
}

static int read_vision_2_5(const json_t *json, struct qwen_vl_config *c, struct error *error)
{
    struct qwen_vision_config *v = &c->vision;
    int out, r;
    const struct key keys[] = {
        {"hidden_size", 3584, &v->dim}, {"intermediate_size", 3420, &v->mlp}, {"window_size", 112, &v->window},
        {"out_hidden_size", 3584, &out},
    };

    r = read_keys(json, keys, ARRAY_SIZE(keys), error);
    if (r >= 0)
        r = read_whole(json_object_get(json, "fullatt_block_indexes"), v, error);
    if (r < 0)
        return r;
    if (out != c->hidden)
        return error_set(error, EINVAL, "out_hidden_size: %d, the language model's hidden_size is %d", out, c->hidden);
    if (v->window % (v->patch * v->merge))
        return error_set(error, EINVAL, "window_size: %d is no multiple of patch_size * spatial_merge_size = %d", v->window,
                         v->patch * v->merge);
    v->window /= v->patch * v->merge;
    return 0;
}

static int read_vision_2(const json_t *json, struct qwen_vl_config *c, struct error *error)
{
    struct qwen_vision_config *v = &c->vision;
    double ratio;
    int out, r;
    const struct key keys[] = {{"embed_dim", 1280, &v->dim}, {"hidden_size", 3584, &out}};

    r = read_keys(json, keys, ARRAY_SIZE(keys), error);
    if (r >= 0)
        r = hf_real(json, "mlp_ratio", 4, &ratio, error);
    if (r < 0)
        return r;
    if (out != c->hidden)
        return error_set(error, EINVAL, "hidden_size: %d, the language model's is %d", out, c->hidden);
    if (!(ratio > 0 && ratio <= 64))
        return error_set(error, EINVAL, "mlp_ratio: %g makes no sense", ratio);
    v->mlp = (int)(v->dim * ratio);
    return 0;
}

static int read_vision(const json_t *json, struct qwen_vl_config *c, struct error *error)
{
    struct qwen_vision_config *v = &c->vision;
    const char *act = json_string_value(json_object_get(json, "hidden_act")),
               *wanted = c->family == QWEN2_VL ? "quick_gelu" : "silu";
    double theta;
    int channels, r;
    const struct key keys[] = {
        {"depth", 32, &v->depth},
        {"num_heads", 16, &v->heads},
        {"patch_size", 14, &v->patch},
        {"spatial_merge_size", 2, &v->merge},
        {"temporal_patch_size", 2, &v->temporal},
        {"in_channels", 3, &channels},
        {"in_chans", 3, &channels},
    };

    r = read_keys(json, keys, ARRAY_SIZE(keys), error);
    if (r >= 0)
        r = hf_real(json_object_get(json, "rope_parameters"), "rope_theta", 10000, &theta, error);
    if (r < 0)
        return r;
    v->rope_theta = (float)theta;
    if (v->depth > QWEN_MAX_DEPTH || v->patch > 64 || v->merge > 8 || v->temporal > 8 || channels != 3)
        return error_set(error, ENOTSUP,
                         "depth %d (up to %d), patch_size %d (64), spatial_merge_size %d (8), temporal_patch_size %d (8), "
                         "%d channels (3) are not supported",
                         v->depth, QWEN_MAX_DEPTH, v->patch, v->merge, v->temporal, channels);
    if (act && strcmp(act, wanted))
        return error_set(error, ENOTSUP, "hidden_act: %s, expected %s", act, wanted);
    r = c->family == QWEN2_VL ? read_vision_2(json, c, error) : read_vision_2_5(json, c, error);
    if (r < 0)
        return r;
    if (v->dim % v->heads || v->dim / v->heads % 4)
        return error_set(error, EINVAL, "%d columns do not cut into %d heads of a multiple of 4", v->dim, v->heads);
    return 0;
}

/* ---- language --------------------------------------------------------------------------------------------- */

/* rope_scaling, or as newer writers have it rope_parameters with the theta in it. */
static int read_rope(const json_t *config, struct qwen_vl_config *c, double *ret_theta, struct error *error)
{
    const json_t *scaling = json_object_get(config, "rope_scaling"), *list;
    const char *type;
    int sum = 0, r = hf_real(config, "rope_theta", 1e6, ret_theta, error);

    if (!json_is_object(scaling))
        scaling = json_object_get(config, "rope_parameters");
    if (r >= 0)
        r = hf_real(scaling, "rope_theta", *ret_theta, ret_theta, error);
    if (r < 0)
        return r;
    type = json_string_value(json_object_get(scaling, "rope_type"));
    type = type ? type : json_string_value(json_object_get(scaling, "type"));
    if (type && strcmp(type, "mrope") && strcmp(type, "default"))
        return error_set(error, ENOTSUP, "rope_scaling: type %s, expected mrope or default", type);
    list = json_object_get(scaling, "mrope_section");
    if (json_array_size(list) != 3)
        return error_set(error, EINVAL, "rope_scaling.mrope_section must be three numbers");
    for (size_t i = 0; i < 3; i++) {
        c->section[i] = (int)json_integer_value(json_array_get(list, i));
        if (c->section[i] < 0 || c->section[i] > c->head_dim)
            return error_set(error, EINVAL, "rope_scaling.mrope_section: %d is out of range", c->section[i]);
        sum += c->section[i];
    }
    if (2 * sum != c->head_dim)
        return error_set(error, EINVAL, "rope_scaling.mrope_section: the sum is %d, half a head has %d", sum, c->head_dim / 2);
    return 0;
}

static int read_language(const json_t *config, struct qwen_vl_config *c, struct error *error)
{
    const json_t *tied = json_object_get(config, "tie_word_embeddings");
    const char *act = json_string_value(json_object_get(config, "hidden_act"));
    double eps, theta;
    const struct key keys[] = {
        {"hidden_size", 8192, &c->hidden},
        {"num_hidden_layers", 80, &c->layers},
        {"num_attention_heads", 64, &c->heads},
        {"num_key_value_heads", 8, &c->kv_heads},
        {"intermediate_size", 29568, &c->intermediate},
        {"vocab_size", 152064, &c->vocab},
        {"max_position_embeddings", 32768, &c->max_positions},
    };
    int r = read_keys(config, keys, ARRAY_SIZE(keys), error);

    if (r >= 0)
        r = hf_real(config, "rms_norm_eps", 1e-5, &eps, error);
    if (r < 0)
        return r;
    if (c->hidden % c->heads || c->hidden / c->heads % 2 || c->heads % c->kv_heads)
        return error_set(error, EINVAL, "%d columns, %d heads and %d key-value heads do not go together", c->hidden, c->heads,
                         c->kv_heads);
    if (act && strcmp(act, "silu"))
        return error_set(error, ENOTSUP, "hidden_act: %s, expected silu", act);
    if (json_is_true(json_object_get(config, "use_sliding_window")))
        return error_set(error, ENOTSUP, "use_sliding_window is not supported");
    c->head_dim = c->hidden / c->heads;
    r = read_rope(config, c, &theta, error);
    if (r < 0)
        return r;
    if (!(eps > 0) || !(theta > 1))
        return error_set(error, EINVAL, "rms_norm_eps %g or rope_theta %g makes no sense", eps, theta);
    c->rms_eps = (float)eps;
    c->rope_theta = (float)theta;
    c->tied = json_is_true(tied);
    return 0;
}

static int read_ids(const json_t *config, struct qwen_vl_config *c, struct error *error)
{
    const struct key keys[] = {
        {"image_token_id", 151655, &c->image_id}, {"vision_start_token_id", 151652, &c->vision_start_id},
        {"vision_end_token_id", 151653, &c->vision_end_id},
    };
    int r = read_keys(config, keys, ARRAY_SIZE(keys), error);

    for (size_t i = 0; i < ARRAY_SIZE(keys) && r >= 0; i++)
        if (*keys[i].to >= c->vocab)
            r = error_set(error, EINVAL, "%s: %d is beyond vocab_size %d", keys[i].name, *keys[i].to, c->vocab);
    return r;
}

static int read_preprocessor(struct qwen_vl *model, const json_t *json, struct error *error)
{
    static const char *const names[] = {"image_mean", "image_std"};
    const json_t *size = json_object_get(json, "size");         /* newer writers': numbers of pixels, for all its names */
    struct qwen_vl_config *c = &model->config;
    double value[2][3];
    int patch, temporal, merge, resample, r;
    const struct key keys[] = {{"patch_size", 14, &patch}, {"temporal_patch_size", 2, &temporal}, {"merge_size", 2, &merge},
                               {"resample", BICUBIC, &resample}};

    r = read_keys(json, keys, ARRAY_SIZE(keys), error);
    if (r >= 0)
        r = hf_integer(size, "shortest_edge", 56 * 56, &c->min_pixels, error);
    if (r >= 0)
        r = hf_integer(size, "longest_edge", 28 * 28 * 1280, &c->max_pixels, error);
    if (r >= 0)
        r = hf_integer(json, "min_pixels", c->min_pixels, &c->min_pixels, error);
    if (r >= 0)
        r = hf_integer(json, "max_pixels", c->max_pixels, &c->max_pixels, error);
    if (r < 0)
        return r;
    if (resample != BICUBIC)
        return error_set(error, ENOTSUP, "resample: %d, expected %d (bicubic)", resample, BICUBIC);
    if (patch != c->vision.patch || temporal != c->vision.temporal || merge != c->vision.merge)
        return error_set(error, EINVAL, "patches of %d (merged by %d, %d frames), the model's are of %d (%d, %d)", patch, merge,
                         temporal, c->vision.patch, c->vision.merge, c->vision.temporal);
    if (c->min_pixels < 1 || c->max_pixels < c->min_pixels)
        return error_set(error, EINVAL, "min_pixels %lld and max_pixels %lld make no sense", (long long)c->min_pixels,
                         (long long)c->max_pixels);
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < 3; i++) {
            const json_t *number = json_array_get(json_object_get(json, names[k]), i);

            if (!json_is_number(number) || (k == 1 && !(json_number_value(number) > 0)))
                return error_set(error, EINVAL, "%s must be three numbers%s", names[k], k ? " above 0" : "");
            value[k][i] = json_number_value(number);
        }
    image_qwen_lut(value[0], value[1], model->lut);
    return 0;
}

/* preprocessor_config.json; transformers 5 writes it into processor_config.json. */
static int configure_pictures(struct qwen_vl *model, const char *dir, struct error *error)
{
    _cleanup_json_ json_t *alone = NULL, *all = NULL;
    const json_t *within;
    int r = hf_json(dir, "preprocessor_config.json", &alone, error);

    if (r >= 0) {
        r = read_preprocessor(model, alone, error);
        return r < 0 ? error_prefix(error, r, "%s/preprocessor_config.json", dir) : 0;
    }
    if (r != -ENOENT || hf_json(dir, "processor_config.json", &all, NULL) < 0)
        return r;
    within = json_object_get(all, "image_processor");
    if (!json_is_object(within))
        return r;
    r = read_preprocessor(model, within, error);
    return r < 0 ? error_prefix(error, r, "%s/processor_config.json: image_processor", dir) : 0;
}

int qwen_vl_configure(struct qwen_vl *model, const char *dir, struct error *error)
{
    _cleanup_json_ json_t *config = NULL;
    const json_t *text;
    int r = hf_json(dir, "config.json", &config, error);

    if (r < 0)
        return r;
    if (!is_family(config, &model->config.family))
        return error_set(error, EINVAL, "%s/config.json: model_type is neither qwen2_vl nor qwen2_5_vl", dir);
    text = json_object_get(config, "text_config");
    r = read_language(json_is_object(text) ? text : config, &model->config, error);
    if (r >= 0 && json_is_object(text) && json_object_get(config, "tie_word_embeddings"))
        model->config.tied = json_is_true(json_object_get(config, "tie_word_embeddings"));
    if (r >= 0)
        r = read_ids(config, &model->config, error);
    if (r >= 0) {
        r = read_vision(json_object_get(config, "vision_config"), &model->config, error);
        if (r < 0)
            r = error_prefix(error, r, "vision_config");
    }
    if (r < 0)
        return error_prefix(error, r, "%s/config.json", dir);
    return configure_pictures(model, dir, error);
}

int qwen_vl_picture_size(const struct qwen_vl_config *c, int height, int width, int *ret_height, int *ret_width, int *ret_tokens,
                         struct error *error)
{
    int side = c->vision.patch * c->vision.merge;
    int r = image_smart_resize(height, width, side, c->min_pixels, c->max_pixels, ret_height, ret_width, error);

    if (r >= 0)
        *ret_tokens = *ret_height / side * (*ret_width / side);
    return r;
}
