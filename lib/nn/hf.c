/* hf.c - config.json with LlamaConfig's defaults, image statistics, problems. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/strbuf.h"
#include "nn/hf.h"

int hf_problem(struct hf_problems *all, struct error *error, int errnum, const char *format, ...)
{
    struct error line = {0};
    va_list args;

    va_start(args, format);
    vsnprintf(line.text, sizeof(line.text), format, args);
    va_end(args);
    if (!all)
        return error_set(error, errnum, "%s", line.text);
    all->count++;
    all->found(all->arg, line.text);
    return 0;
}

int hf_json(const char *dir, const char *name, json_t **ret, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    json_error_t where;
    json_t *json;

    strbuf_addf(&path, "%s/%s", dir, name);
    if (access(path.text, R_OK) < 0)
        return error_set(error, errno, "%s: %s", path.text, strerror(errno));
    json = json_load_file(path.text, JSON_REJECT_DUPLICATES, &where);
    if (!json)
        return error_set(error, EINVAL, "%s:%d: %s", path.text, where.line, where.text);
    if (!json_is_object(json)) {
        json_decref(json);
        return error_set(error, EINVAL, "%s: not an object", path.text);
    }
    *ret = json;
    return 0;
}

int hf_integer(const json_t *object, const char *key, int64_t fallback, int64_t *ret, struct error *error)
{
    const json_t *value = json_object_get(object, key);

    if (value && !json_is_null(value) && !json_is_integer(value))
        return error_set(error, EINVAL, "%s: must be a whole number", key);
    *ret = json_is_integer(value) ? json_integer_value(value) : fallback;
    return 0;
}

int hf_real(const json_t *object, const char *key, double fallback, double *ret, struct error *error)
{
    const json_t *value = json_object_get(object, key);

    if (value && !json_is_null(value) && !json_is_number(value))
        return error_set(error, EINVAL, "%s: must be a number", key);
    *ret = json_is_number(value) ? json_number_value(value) : fallback;
    return 0;
}

int hf_llama(const json_t *text_config, struct hf_llama *ret, struct error *error)
{
    struct hf_llama llama;
    const struct { const char *key; int64_t fallback, *to; } integers[] = {
        {"hidden_size", 4096, &llama.hidden_size},
        {"intermediate_size", 11008, &llama.intermediate_size},
        {"num_hidden_layers", 32, &llama.num_hidden_layers},
        {"num_attention_heads", 32, &llama.num_attention_heads},
        {"num_key_value_heads", -1, &llama.num_key_value_heads},
        {"vocab_size", 32000, &llama.vocab_size},
        {"max_position_embeddings", 2048, &llama.max_position_embeddings},
    };
    int r;

    for (size_t i = 0; i < ARRAY_SIZE(integers); i++) {
        r = hf_integer(text_config, integers[i].key, integers[i].fallback, integers[i].to, error);
        if (r < 0)
            return error_prefix(error, r, "text_config");
    }
    if (llama.num_key_value_heads == -1)
        llama.num_key_value_heads = llama.num_attention_heads;
    for (size_t i = 0; i < ARRAY_SIZE(integers); i++)
        if (*integers[i].to < 1 || *integers[i].to > 1 << 24)
            return error_set(error, EINVAL, "text_config: %s: %lld is out of range", integers[i].key, (long long)*integers[i].to);
    r = hf_real(text_config, "rms_norm_eps", 1e-6, &llama.rms_norm_eps, error);
    if (r >= 0)
        r = hf_real(text_config, "rope_theta", 10000.0, &llama.rope_theta, error);
    if (r < 0)
        return error_prefix(error, r, "text_config");
    if (!(llama.rms_norm_eps > 0) || !(llama.rope_theta > 0))
        return error_set(error, EINVAL, "text_config: rms_norm_eps: %g, rope_theta: %g; both must be above 0", llama.rms_norm_eps,
                         llama.rope_theta);
    *ret = llama;
    return 0;
}

static int three(const json_t *list, double ret[3])
{
    for (size_t c = 0; c < 3; c++) {
        if (!json_is_number(json_array_get(list, c)))
            return -EINVAL;
        ret[c] = json_number_value(json_array_get(list, c));
    }
    return 0;
}

int hf_image_statistics(const json_t *preprocessor, int towers, double (*ret_mean)[3], double (*ret_std)[3], struct error *error)
{
    const json_t *rounded = json_object_get(preprocessor, "tvf_normalize_params");

    for (int i = 0; i < towers; i++) {
        const json_t *one = json_array_get(rounded, (size_t)i);
        const json_t *mean =
            rounded ? json_object_get(one, "mean") : json_array_get(json_object_get(preprocessor, "means"), (size_t)i);
        const json_t *std =
            rounded ? json_object_get(one, "std") : json_array_get(json_object_get(preprocessor, "stds"), (size_t)i);

        if (three(mean, ret_mean[i]) < 0 || three(std, ret_std[i]) < 0)
            return error_set(error, EINVAL, "preprocessor_config.json: no mean and std of three channels for tower %d", i);
        for (int c = 0; c < 3; c++)
            if (!(ret_std[i][c] > 0))
                return error_set(error, EINVAL, "preprocessor_config.json: std of tower %d must be above 0", i);
    }
    return 0;
}
