#include "nn/models/openvla_fit.h"

#include <errno.h>
#include <limits.h>
#include <math.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "image/tf_image.h"
#include "nn/models/openvla_internal.h"

static const float LIBERO_CROP = 0.9f; /* of the area: what OpenVLA's fine-tuning for LIBERO cropped at random */

static bool is_libero(const char *suite) { return !strncmp(suite, "libero", 6); }

/* ---- whose statistics ---------------------------------------------------------------------------------------------------- */

/* "a, b, c and 24 more" */
static const char *list_keys(const struct openvla *model, struct strbuf *out)
{
    enum { SHOWN = 6 };

    for (int i = 0; i < model->n_stats && i < SHOWN; i++)
        strbuf_addf(out, "%s%s", i ? ", " : "", model->stats[i].key);
    if (model->n_stats > SHOWN)
        strbuf_addf(out, " and %d more", model->n_stats - SHOWN);
    return out->failed ? "..." : out->text;
}

static int find_stats(const struct openvla *model, const struct openvla_fit_ask *ask, const struct action_stats **ret,
                      struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf keys = STRBUF_INIT;
    const struct action_stats *stats = NULL;
    char no_noops[128];

    if (ask->unnorm_key[0]) {
        stats = openvla_stats(model, ask->unnorm_key);
        if (!stats)
            return error_set(error, EINVAL, "%s: has no statistics of '%s' (policy.unnorm_key), but of %s", model->dir,
                             ask->unnorm_key, model->n_stats ? list_keys(model, &keys) : "nothing");
    } else if (model->n_stats > 1) {
        snprintf(no_noops, sizeof(no_noops), "%s_no_noops", ask->suite);
        stats = openvla_stats(model, ask->suite) ?: openvla_stats(model, no_noops);
        if (!stats)
            return error_set(error, EINVAL,
                             "%s: has statistics of %d data sets (%s) and none that is called %s or %s: say which one: "
                             "policy.unnorm_key (gantry eval MODEL: --unnorm-key)",
                             model->dir, model->n_stats, list_keys(model, &keys), ask->suite, no_noops);
    } else if (model->n_stats == 1) {
        stats = &model->stats[0];
    } else {
        return error_set(error, EINVAL, "%s: has no statistics of any data set (dataset_statistics.json, or norm_stats in "
                         "config.json): nobody knows the units of its actions", model->dir);
    }
    *ret = stats;
    return 0;
}

/* ---- what is unsaid ------------------------------------------------------------------------------------------------------ */

static bool gripper_is_turned(const struct openvla *model, const struct action_stats *stats, const char *suite)
{
    int last = stats->dims - 1;

    return is_libero(suite) && !model->config.gripper.said && !stats->mask[last] && stats->q01[last] >= 0 &&
           stats->q99[last] <= 1;
}

static int find_crop(const struct openvla *model, const struct openvla_fit_ask *ask, float *ret, struct error *error)
{
    const struct openvla_config *c = &model->config;
    bool unsaid = !(c->center_crop > 0) && !c->image_chain[0];

    *ret = 0;
    if (ask->center_crop > 0) {
        double said = c->center_crop > 0 ? (double)c->center_crop : c->image_chain[0] ? 1 : ask->center_crop;

        if (fabs(said - ask->center_crop) > 1e-6)
            return error_set(error, EINVAL,
                             "%s: was taught with %g of each picture's area (config.json), policy.center_crop is %g: "
                             "leave the key out",
                             model->dir, said, ask->center_crop);
        *ret = ask->center_crop < 1 && unsaid ? (float)ask->center_crop : 0;
    } else if (unsaid && is_libero(ask->suite) && !strcmp(ask->chain, TF_EVALUATION_CHAIN)) {
        *ret = LIBERO_CROP;
    }
    return 0;
}

/* ---- the robot's state ----------------------------------------------------------------------------------------------------- */

/* Wider than what `gantry data stats` finds where the suites' experts play, since people turn the hand further. LIBERO: place, m
 * (the arm stands on the floor among libero_object's things, at a table or on the floor in libero_10 and 90, at a table in the
 * others), axis-angle, fingers. */
static const struct {
    const char *suites;         /* their names begin so; the first that fits */
    int n;
    double low[OPENVLA_MAX_PROPRIO], high[OPENVLA_MAX_PROPRIO];
} own_ranges[] = {
    {"libero_object", 8, {-.35, -.4, 0, 1.5, -2.5, -1.2, 0, -.042}, {.25, .4, .5, 3.6, 2.5, 1.2, .042, 0}},
    {"libero_10", 8, {-.5, -.4, 0, 1.5, -2.5, -1.2, 0, -.042}, {.25, .4, 1.4, 3.6, 2.5, 1.2, .042, 0}},
    {"libero_90", 8, {-.5, -.4, 0, 1.5, -2.5, -1.2, 0, -.042}, {.25, .4, 1.4, 3.6, 2.5, 1.2, .042, 0}},
    {"libero_", 8, {-.45, -.4, .85, 1.5, -2.5, -1.2, 0, -.042}, {.25, .4, 1.4, 3.6, 2.5, 1.2, .042, 0}},
    {"tabletop", 5, {-.2, -.2, 0, -1.6, 0}, {.2, .2, .3, 1.6, .05}},
};

/* Of `n` numbers. 0: not there. */
static int range_of_data(const char *data, int n, struct openvla_fit *ret, struct error *error)
{
    _cleanup_json_ json_t *file = NULL;
    struct action_stats *stats = NULL;
    int count = 0, r = hf_json(data, "dataset_statistics.json", &file, error);

    if (r >= 0)
        r = openvla_read_stats(file, &stats, &count, error);
    if (r < 0)
        return error_prefix(error, r, "%s", data);
    r = count == 1 && stats->proprio == n;
    if (r) {
        memcpy(ret->state_low, stats->proprio_low, sizeof(ret->state_low));
        memcpy(ret->state_high, stats->proprio_high, sizeof(ret->state_high));
    }
    openvla_free_stats(stats, count);
    return r;
}

static bool range_of_suite(const char *suite, int n, struct openvla_fit *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(own_ranges); i++) {
        if (strncmp(suite, own_ranges[i].suites, strlen(own_ranges[i].suites)) != 0 || own_ranges[i].n != n)
            continue;
        memcpy(ret->state_low, own_ranges[i].low, sizeof(ret->state_low));
        memcpy(ret->state_high, own_ranges[i].high, sizeof(ret->state_high));
        return true;
    }
    return false;
}

static int find_state(const struct openvla *model, const struct openvla_fit_ask *ask, struct openvla_fit *fit, struct error *error)
{
    const struct oft_config *oft = &model->config.oft;
    int n = oft->kind == OFT_NONE ? 0 : oft->proprio, r = 0;

    if (!n || fit->stats->proprio == n || !ask->used)
        return 0;
    if (ask->imitates && ask->data)
        r = range_of_data(ask->data, n, fit, error);
    if (r < 0)
        return r;
    fit->state_of_data = r;
    if (!r && !(ask->imitates && range_of_suite(ask->suite, n, fit)))
        return error_set(error, EINVAL,
                         "%s: takes %d numbers of the robot's state, whose range %s does not say (proprio: q01, q99, in "
                         "dataset_statistics.json); `gantry data stats RUN` has that of a run's demonstrations (stages: demos alone)",
                         model->dir, n, fit->stats->key);
    fit->state = n;
    return 0;
}

int openvla_fit_find(const struct openvla *model, const struct openvla_fit_ask *ask, struct openvla_fit *ret, struct error *error)
{
    struct openvla_fit fit = {.alone = model->n_stats <= 1};
    int r = find_stats(model, ask, &fit.stats, error);

    if (r >= 0)
        r = find_crop(model, ask, &fit.center_crop, error);
    if (r >= 0)
        r = find_state(model, ask, &fit, error);
    if (r < 0)
        return r;
    fit.turn_gripper = gripper_is_turned(model, fit.stats, ask->suite);
    *ret = fit;
    return 0;
}

int openvla_fit_check_data(const struct openvla *model, const struct openvla_fit *fit, const char *suite, const char *data,
                           struct error *error)
{
    _cleanup_json_ json_t *file = NULL;
    bool turned = fit->turn_gripper || model->config.gripper.invert;
    struct action_stats *stats = NULL;
    int n = 0, last, r = hf_json(data, "dataset_statistics.json", &file, error);

    if (r >= 0)
        r = openvla_read_stats(file, &stats, &n, error);
    if (r < 0)
        return error_prefix(error, r, "%s", data);
    last = n ? stats->dims - 1 : 0;
    if (n != 1 || stats->mask[last])
        r = 0; /* no gripper of its own */
    else if (turned && stats->q01[last] < 0)
        r = error_set(error, EINVAL,
                      "%s: its gripper goes from -1 to 1, and the policy's from 0 (closed) to 1 (open), turned before it "
                      "acts: import with --gripper libero",
                      data);
    else if (!turned && is_libero(suite) && stats->q01[last] >= 0 && stats->q99[last] <= 1 && stats->q01[last] < stats->q99[last])
        r = error_set(error, EINVAL,
                      "%s: its gripper goes from 0 (closed) to 1 (open), and the policy's is not turned for %s: put "
                      "%s/dataset_statistics.json into policy.init's directory",
                      data, suite, data);
    openvla_free_stats(stats, n);
    return r;
}

bool openvla_fit_changes(const struct openvla_fit *fit)
{
    return !fit->alone || fit->turn_gripper || fit->center_crop > 0 || fit->state;
}

void openvla_fit_words(const struct openvla_fit *fit, char ret[static 256])
{
    const char *between = "";
    size_t n = 0;

    ret[0] = '\0';
    if (!fit->alone) {
        n += (size_t)snprintf(ret + n, 256 - n, "actions in the units of %.100s", fit->stats->key);
        between = ", ";
    }
    if (fit->turn_gripper) {
        n += (size_t)snprintf(ret + n, 256 - n, "%sgripper turned (1 open, 0 closed becomes -1, 1)", between);
        between = ", ";
    }
    if (fit->center_crop > 0) {
        n += (size_t)snprintf(ret + n, 256 - n, "%sthe middle %g of each picture's area", between, (double)fit->center_crop);
        between = ", ";
    }
    if (fit->state)
        snprintf(ret + n, 256 - n, "%sthe robot's state in the range of %s", between, fit->state_of_data ? "the data" : "the suite");
}

/* ---- into the files ------------------------------------------------------------------------------------------------------ */

static json_t *numbers(const double *values, int n)
{
    json_t *list = json_array();

    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

/* dataset_statistics.json with one of its data sets, or with one of config.json's. Numbers keep their values. */
static int write_stats(const struct openvla_fit *fit, const char *dir, struct error *error)
{
    const char *key = fit->stats->key;
    _cleanup_json_ json_t *file = NULL, *config = NULL, *one = json_object();
    _cleanup_free_ char *text = NULL;
    char path[PATH_MAX];
    json_t *entry;
    int r = hf_json(dir, "dataset_statistics.json", &file, error);

    if (r == -ENOENT)
        r = hf_json(dir, "config.json", &config, error);
    if (r < 0)
        return r;
    entry = json_object_get(file ? file : json_object_get(config, "norm_stats"), key);
    if (fit->state && json_object_set_new(entry, "proprio", json_pack("{soso}", "q01", numbers(fit->state_low, fit->state), "q99",
                                                                      numbers(fit->state_high, fit->state))) < 0)
        return error_set(error, ENOMEM, "out of memory");
    if (json_object_set(one, key, entry) < 0 || !(text = json_dumps(one, JSON_INDENT(2) | JSON_REAL_PRECISION(17))))
        return error_set(error, ENOMEM, "out of memory");
    if ((size_t)snprintf(path, sizeof(path), "%s/dataset_statistics.json", dir) >= sizeof(path))
        return error_set(error, ENAMETOOLONG, "%s: the name is too long", dir);
    r = file_write(path, text, strlen(text));
    return r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
}

static int write_config(const struct openvla_fit *fit, const char *dir, struct error *error)
{
    _cleanup_(hf_files_release) struct hf_files files = {0};
    char member[96];
    int r = hf_files_read(dir, &files, error);

    if (r < 0)
        return r;
    if (fit->turn_gripper)
        r = openvla_say(&files, "\"gantry_gripper\": {\"binarise\": true, \"invert\": true}");
    if (r >= 0 && fit->center_crop > 0) {
        snprintf(member, sizeof(member), "\"gantry_center_crop\": %.9g", (double)fit->center_crop);
        r = openvla_say(&files, member);
    }
    if (r < 0)
        return error_set(error, -r, "%s/config.json: cannot be changed: %s", dir, strerror(-r));
    return hf_files_write(&files, dir, NULL, error);
}

int openvla_fit_write(const struct openvla_fit *fit, const char *dir, struct error *error)
{
    int r = fit->turn_gripper || fit->center_crop > 0 ? write_config(fit, dir, error) : 0;

    return r < 0 || (fit->alone && !fit->state) ? r : write_stats(fit, dir, error);
}
