#include "nn/peft.h"

#include <errno.h>
#include <math.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/hf.h"

#define FILE_NAME "adapter_config.json"
enum { LIMIT = 4 << 20, MAX_RANK = 1 << 14, STEPS = 100000 };

/* Keys that ask for more than A and B: the value each must have, or be absent, or null. */
static const struct { const char *key; const char *value; const char *what; } demands[] = {
    {"peft_type", "LORA", "only LoRA adapters are read"},
    {"bias", "none", "trained biases are not supported"},
    {"use_dora", "false", "DoRA is not supported"},
    {"lora_bias", "false", "biases of B are not supported"},
    {"fan_in_fan_out", "false", "transposed weights are not supported"},
    {"modules_to_save", "", "modules saved whole are not supported"},
    {"layer_replication", "", "replicated layers are not supported"},
    {"target_parameters", "", "adapters of bare parameters are not supported"},
    {"trainable_token_indices", "", "trained token rows are not supported"},
    {"alora_invocation_tokens", "", "adapters that begin at a token are not supported"},
    {"arrow_config", "", "routing between adapters is not supported"},
    {"kasa_config", "", "KaSA is not supported"},
    {"monteclora_config", "", "MonteCLoRA is not supported"},
    {"use_bdlora", "", "block-diagonal adapters are not supported"},
    {"use_qalora", "false", "QALoRA is not supported"},
};

/* Ways to begin that take from the base what they give to A and B: PEFT does so again whenever it loads one, W - s B0 A0. */
static const char *const changes_base[] = {"pissa", "corda", "olora", "loftq"};

/* `text` gets the value as it reads in the file. */
static bool demand_met(const json_t *value, const char *wanted, char *text, size_t n)
{
    _cleanup_free_ char *dump = NULL;
    bool empty = !value || json_is_null(value) || (json_is_array(value) && !json_array_size(value)) ||
                 (json_is_object(value) && !json_object_size(value));

    if (empty)
        return true;
    dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(text, n, "%s", json_is_string(value) ? json_string_value(value) : dump ? dump : "?");
    return *wanted && !strcmp(text, wanted);
}

static int check_demands(const json_t *json, const char *path, struct error *error)
{
    const char *init = json_string_value(json_object_get(json, "init_lora_weights"));
    char text[80];

    for (size_t i = 0; i < ARRAY_SIZE(demands); i++)
        if (!demand_met(json_object_get(json, demands[i].key), demands[i].value, text, sizeof(text)))
            return error_set(error, ENOTSUP, "%s: %s is %s: %s", path, demands[i].key, text, demands[i].what);
    for (size_t i = 0; init && i < ARRAY_SIZE(changes_base); i++)
        if (!strncasecmp(init, changes_base[i], strlen(changes_base[i])))
            return error_set(error, ENOTSUP,
                             "%s: init_lora_weights is %s: it changes the base, too; PEFT's save_pretrained makes a plain "
                             "adapter of it (path_initial_model_for_weight_conversion)",
                             path, init);
    return 0;
}

static int read_targets(const json_t *json, const char *path, struct peft_config *config, struct error *error)
{
    const json_t *targets = json_object_get(json, "target_modules"), *item;
    size_t i;

    if (!json_is_array(targets))
        return 0;               /* a string: "all-linear" or a pattern; the tensors tell */
    config->targets = calloc(json_array_size(targets) + 1, sizeof(*config->targets));
    if (!config->targets)
        return error_set(error, ENOMEM, "out of memory");
    json_array_foreach(targets, i, item) {
        if (!json_is_string(item))
            return error_set(error, EINVAL, "%s: target_modules[%zu] is not a string", path, i);
        config->targets[config->n_targets] = strdup(json_string_value(item));
        if (!config->targets[config->n_targets++])
            return error_set(error, ENOMEM, "out of memory");
    }
    return 0;
}

/* Where the module's name ends with the pattern, as PEFT looks for it; old: as it did before 0.14. NULL: no regular expression,
 * or one that is too large. */
static pcre2_code *compile(const char *pattern, bool old)
{
    _cleanup_(strbuf_release) struct strbuf whole = STRBUF_INIT;
    PCRE2_SIZE at;
    int code;

    strbuf_addf(&whole, old ? "^(?:.*\\.%s$)" : "^(.*\\.)?(?:%s)$", pattern);
    return whole.failed ? NULL : pcre2_compile((PCRE2_SPTR)whole.text, whole.length, 0, &code, &at, NULL);
}

static int read_patterns(const json_t *json, const char *path, struct peft_config *config, struct error *error)
{
    json_t *pattern = json_object_get(json, "alpha_pattern"), *ranks = json_object_get(json, "rank_pattern"), *value;
    const char *key;

    if (!json_is_object(pattern) || !json_object_size(pattern))
        return 0;
    json_object_foreach(pattern, key, value)
        if (!json_is_number(value) || !isfinite(json_number_value(value)))
            return error_set(error, EINVAL, "%s: alpha_pattern: %s is not a number", path, key);
    json_object_foreach(pattern, key, value) {
        pcre2_code *code = compile(key, false);

        if (!code)
            return error_set(error, EINVAL, "%s: alpha_pattern: %s is no regular expression", path, key);
        pcre2_code_free(code);
    }
    config->alpha_pattern = json_incref(pattern);
    if (json_is_object(ranks) && json_object_size(ranks) && !json_object_get(json, "peft_version"))
        config->rank_pattern = json_incref(ranks);
    return 0;
}

static int read_all(const json_t *json, const char *path, struct peft_config *config, struct error *error)
{
    const char *base = json_string_value(json_object_get(json, "base_model_name_or_path"));
    int64_t r;
    int status = check_demands(json, path, error);

    if (status < 0)
        return status;
    status = hf_integer(json, "r", 8, &r, error);
    if (status >= 0)
        status = hf_real(json, "lora_alpha", 8, &config->alpha, error);
    if (status < 0)
        return error_prefix(error, status, "%s", path);
    if (r < 1 || r > MAX_RANK || !isfinite(config->alpha))
        return error_set(error, EINVAL, "%s: r is %lld and lora_alpha %g; r must be 1 to %d", path, (long long)r, config->alpha,
                         MAX_RANK);
    config->r = (int)r;
    config->rslora = json_is_true(json_object_get(json, "use_rslora"));
    config->base = base ? strdup(base) : NULL;
    if (base && !config->base)
        return error_set(error, ENOMEM, "out of memory");
    status = read_targets(json, path, config, error);
    return status < 0 ? status : read_patterns(json, path, config, error);
}

int peft_config_parse(const char *text, size_t n, const char *path, struct peft_config *ret, struct error *error)
{
    _cleanup_(peft_config_release) struct peft_config config = {0};
    json_error_t where;
    _cleanup_json_ json_t *json = json_loadb(text, n, JSON_REJECT_DUPLICATES, &where);
    int r;

    if (!json_is_object(json))
        return error_set(error, EINVAL, "%s:%d: %s", path, json ? 1 : where.line, json ? "not an object" : where.text);
    r = read_all(json, path, &config, error);
    if (r < 0)
        return r;
    *ret = TAKE_STRUCT(config);
    return 0;
}

int peft_config_read(const char *dir, struct peft_config *ret, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r;

    strbuf_addf(&path, "%s/" FILE_NAME, dir);
    if (path.failed)
        return error_set(error, ENOMEM, "out of memory");
    r = file_read(path.text, LIMIT, &text, &n);
    if (r < 0)
        return error_set(error, -r, "%s: %s", path.text, strerror(-r));
    return peft_config_parse(text, n, path.text, ret, error);
}

int peft_config_copy(const struct peft_config *from, struct peft_config *ret)
{
    _cleanup_(peft_config_release) struct peft_config config = {.r = from->r, .alpha = from->alpha, .rslora = from->rslora};

    config.base = from->base ? strdup(from->base) : NULL;
    config.targets = calloc((size_t)from->n_targets + 1, sizeof(*config.targets));
    if (!config.targets || (from->base && !config.base))
        return -ENOMEM;
    for (; config.n_targets < from->n_targets; config.n_targets++) {
        config.targets[config.n_targets] = strdup(from->targets[config.n_targets]);
        if (!config.targets[config.n_targets])
            return -ENOMEM;
    }
    config.alpha_pattern = json_incref(from->alpha_pattern);
    config.rank_pattern = json_incref(from->rank_pattern);
    *ret = TAKE_STRUCT(config);
    return 0;
}

void peft_config_release(struct peft_config *config)
{
    for (int i = 0; i < config->n_targets; i++)
        free(config->targets[i]);
    free(config->targets);
    free(config->base);
    json_decref(config->alpha_pattern);
    json_decref(config->rank_pattern);
    *config = (struct peft_config) {0};
}

bool peft_config_matches(const struct peft_config *config, const char *module)
{
    size_t n = strlen(module);

    for (int i = 0; i < config->n_targets; i++) {
        size_t m = strlen(config->targets[i]);

        if (m <= n && !strcmp(module + n - m, config->targets[i]) && (m == n || module[n - m - 1] == '.'))
            return true;
    }
    return false;
}

/* A pattern that takes too many steps matches nothing: no name of a module needs as many. */
static bool pattern_matches(const char *pattern, bool old, const char *module)
{
    pcre2_code *code = compile(pattern, old);
    pcre2_match_data *match = code ? pcre2_match_data_create(1, NULL) : NULL;
    pcre2_match_context *limits = match ? pcre2_match_context_create(NULL) : NULL;
    bool matches = false;

    if (limits) {
        pcre2_set_match_limit(limits, STEPS);
        matches = pcre2_match(code, (PCRE2_SPTR)module, strlen(module), 0, 0, match, limits) >= 0;
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    pcre2_code_free(code);
    return matches;
}

/* The first that matches, as PEFT has it; NULL: none. */
static const char *first_match(json_t *pattern, bool old, const char *module)
{
    const char *key;
    json_t *value;

    json_object_foreach(pattern, key, value)
        if (pattern_matches(key, old, module))
            return key;
    return NULL;
}

static double alpha_at(const struct peft_config *config, const char *key)
{
    const json_t *alpha = key ? json_object_get(config->alpha_pattern, key) : NULL;

    return alpha ? json_number_value(alpha) : config->alpha;
}

int peft_config_check_alpha(const struct peft_config *config, const char *module, const char *dir, struct error *error)
{
    const char *key = config->rank_pattern ? first_match(config->rank_pattern, true, module) : NULL;
    double old, new;

    if (!config->rank_pattern)
        return 0;
    key = key ? key : first_match(config->alpha_pattern, true, module);
    old = alpha_at(config, key ? key : module);
    new = alpha_at(config, first_match(config->alpha_pattern, false, module));
    if (old == new)
        return 0;
    return error_set(error, ENOTSUP,
                     "%s/" FILE_NAME ": the alpha of %s is %g to PEFT before 0.14, where the first key of rank_pattern or "
                     "alpha_pattern that fits counts for both, and %g since; give it one key in both, or say peft_version", dir,
                     module, old, new);
}

double peft_config_scale(const struct peft_config *config, const char *module, int64_t r)
{
    double alpha = alpha_at(config, first_match(config->alpha_pattern, false, module));

    return alpha / (config->rslora ? sqrt((double)r) : (double)r);
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static json_t *number(double x)
{
    return x == nearbyint(x) ? json_integer((json_int_t)x) : json_real(x);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct peft_module *)a)->name, ((const struct peft_module *)b)->name);
}

static json_t *config_json(const struct peft_config *config, const struct peft_class *base, const struct peft_module *modules,
                           int n)
{
    json_t *targets = json_array(), *ranks = json_object(), *alphas = json_object();

    for (int i = 0; i < n; i++) {
        double alpha = modules[i].scale * (config->rslora ? sqrt((double)modules[i].r) : (double)modules[i].r);

        json_array_append_new(targets, json_string(modules[i].name));
        if (modules[i].r != config->r)
            json_object_set_new(ranks, modules[i].name, json_integer(modules[i].r));
        if (fabs(alpha - config->alpha) > 1e-6 * fabs(config->alpha))
            json_object_set_new(alphas, modules[i].name, number(alpha));
    }
    return json_pack("{s:o, s:{s:s,s:s}, s:s?, s:s, s:b, s:b, s:s, s:n, s:n, s:n, s:{}, s:o, s:f, s:n, s:s, s:n, s:s, s:i, s:o,"
                     " s:n, s:o, s:n, s:b, s:b}",
                     "alpha_pattern", alphas, "auto_mapping", "base_model_class", base->name, "parent_library", base->library,
                     "base_model_name_or_path", config->base, "bias", "none", "fan_in_fan_out", 0,
                     "inference_mode", 1, "init_lora_weights", "gaussian", "layer_replication", "layers_pattern",
                     "layers_to_transform", "loftq_config", "lora_alpha", number(config->alpha), "lora_dropout", 0.0,
                     "megatron_config", "megatron_core", "megatron.core", "modules_to_save", "peft_type", "LORA", "r", config->r,
                     "rank_pattern", ranks, "revision", "target_modules", targets, "task_type", "use_dora", 0, "use_rslora",
                     (int)config->rslora);
}

int peft_config_write(const struct peft_config *config, const struct peft_class *base, const struct peft_module *modules, int n,
                      const char *dir, struct error *error)
{
    _cleanup_free_ struct peft_module *sorted = calloc((size_t)n + 1, sizeof(*sorted));
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    _cleanup_json_ json_t *json = NULL;
    _cleanup_free_ char *text = NULL;
    int r;

    if (!sorted)
        return error_set(error, ENOMEM, "out of memory");
    memcpy(sorted, modules, (size_t)n * sizeof(*sorted));
    qsort(sorted, (size_t)n, sizeof(*sorted), by_name);
    json = config_json(config, base, sorted, n);
    text = json ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    strbuf_addf(&path, "%s/" FILE_NAME, dir);
    r = text && !path.failed ? file_write(path.text, text, strlen(text)) : -ENOMEM;
    return r < 0 ? error_set(error, -r, "%s: %s", path.failed ? dir : path.text, strerror(-r)) : 0;
}
