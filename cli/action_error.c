#include "cli/action_error.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/figure.h"
#include "base/json_write.h"
#include "base/philox.h"
#include "cli/episode_film.h"
#include "cli/run_open.h"
#include "proto/control.pb-c.h"
#include "rl/scaling.h"
#include "rl/search.h"
#include "run/ledger.h"
#include "serve/policy_version.h"

enum { K_MAX = 12, DRAWS = 128, DIMS_MAX = OPENVLA_MAX_ACTION_DIMS, BATCH = 32, RESAMPLES = 2000, PROPOSERS = 2 };
static const char *const proposer_names[PROPOSERS] = {"policy", "gaussian"};

/* A frame of a demonstration, with what was to be done. */
struct sample {
    uint8_t *rgb; /* owned */
    char instruction[128];
    float label[DIMS_MAX];
};

struct work {
    const char *run_dir;
    const struct action_error_ask *ask;
    struct ledger_run run;
    struct ledger_episode *demos;
    size_t n_demos;
    struct sample *samples;
    int n_samples, height, width, dims;
    int k[K_MAX], n_k;
};

struct measured {
    char policy[24];
    double *errors[PROPOSERS]; /* (n_k, n_samples): E[least error of k] on that frame */
    struct error_law law[PROPOSERS];
};

/* ---- frames --------------------------------------------------------------------------------------------------------- */

static int read_demos(struct work *w, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    struct ledger_episode *all = NULL;
    size_t n;
    int r = run_open_ledger(w->run_dir, &ledger, error);

    if (r < 0)
        return r;
    w->run = *ledger_run(ledger);
    if ((r = ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &all, &n)) < 0)
        return error_set(error, -r, "%s/ledger.sqlite: %s", w->run_dir, ledger_error(ledger));
    for (size_t i = 0; i < n; i++)
        if (all[i].purpose == GANTRY__PURPOSE__PURPOSE_DEMO && all[i].state == EPISODE_KEPT)
            all[w->n_demos++] = all[i];
    w->demos = all;
    return w->n_demos ? 0 : error_set(error, ENODATA, "%s: the run has no demonstrations to compare with", w->run_dir);
}

/* One frame of one demonstration, both drawn. */
static int take_frame(struct work *w, struct journal *journal, int number, struct error *error)
{
    struct philox draws = philox_at(w->run.seed, PHILOX_TEST, (uint64_t)number, 0, 0);
    const struct ledger_episode *e = &w->demos[philox_below(&draws, (uint32_t)w->n_demos)];
    _cleanup_(episode_film_release) struct episode_film film = {0};
    struct sample *s = &w->samples[number];
    const Gantry__Trajectory *t;
    size_t bytes, at;
    int r = episode_film_load(journal, e->episode, &film, error);

    if (r < 0)
        return r;
    t = film.trajectory;
    if (!t->steps || !t->height || !t->width || t->action_dims > DIMS_MAX || (size_t)t->steps * t->action_dims > t->n_action ||
        (t->n_label && t->n_label != t->n_action) || (number && ((int)t->height != w->height || (int)t->action_dims != w->dims)))
        return error_set(error, EBADMSG, "%s: demonstration %llu is not like the others", w->run_dir,
                         (unsigned long long)e->episode);
    w->height = (int)t->height;
    w->width = (int)t->width;
    w->dims = (int)t->action_dims;
    bytes = (size_t)t->height * t->width * 3;
    at = philox_below(&draws, t->steps);
    s->rgb = malloc(bytes);
    if (!s->rgb)
        return error_set(error, ENOMEM, "out of memory");
    memcpy(s->rgb, film.frames + at * bytes, bytes);
    memcpy(s->label, (t->n_label ? t->label : t->action) + at * t->action_dims, sizeof *s->label * t->action_dims);
    snprintf(s->instruction, sizeof s->instruction, "%s", t->instruction);
    return 0;
}

static int take_frames(struct work *w, struct error *error)
{
    _cleanup_(journal_closep) struct journal *journal = NULL;
    int r = run_open_journal(w->run_dir, w->run.id, &journal, error);

    w->samples = r < 0 ? NULL : calloc((size_t)w->ask->frames, sizeof *w->samples);
    if (r == 0 && !w->samples)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < w->ask->frames && r == 0; i++) {
        r = take_frame(w, journal, i, error);
        w->n_samples += r == 0;
    }
    return r;
}

/* ---- errors -------------------------------------------------------------------------------------------------------------- */

static double error_of(const struct work *w, const float *action, const float *label)
{
    double sum = 0;

    for (int d = 0; d < w->dims; d++)
        sum += ((double)action[d] - (double)label[d]) * ((double)action[d] - (double)label[d]);
    return sqrt(sum / w->dims);
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* DRAWS actions of one frame -> the errors of the best of k. */
static void note_errors(const struct work *w, int number, const float *actions, double *ret)
{
    double errors[DRAWS];

    for (int i = 0; i < DRAWS; i++)
        errors[i] = error_of(w, actions + i * w->dims, w->samples[number].label);
    qsort(errors, DRAWS, sizeof *errors, compare_double);
    for (int i = 0; i < w->n_k; i++)
        ret[i * w->n_samples + number] = least_of(errors, DRAWS, w->k[i]);
}

static int draw_actions(const struct work *w, struct policy_version *policy, struct openvla_session *session, int number,
                        float *ret)
{
    const struct openvla *model = policy->model;
    struct act_item items[BATCH];
    struct act_result results[BATCH];
    const int32_t *prompt;
    int n_prompt, r = policy_version_prompt(policy, w->samples[number].instruction, &prompt, &n_prompt);

    for (int from = 0; from < DRAWS && r >= 0; from += BATCH) {
        for (int i = 0; i < BATCH; i++)
            items[i] = (struct act_item){.images = {w->samples[number].rgb},
                                         .n_images = 1,
                                         .prompt = prompt,
                                         .n_prompt = n_prompt,
                                         .temperature = (float)w->ask->temperature,
                                         .seed = w->run.seed,
                                         .episode = (uint64_t)number,
                                         .sample = (uint32_t)(from + i)};
        r = openvla_act(model, session, items, BATCH, results);
        for (int i = 0; i < BATCH && r >= 0; i++) {
            double normalised[DIMS_MAX], action[DIMS_MAX];

            for (int d = 0; d < w->dims; d++)
                normalised[d] = openvla_decode(&model->config, results[i].tokens[d]);
            openvla_to_environment(model, normalised, action);
            for (int d = 0; d < w->dims; d++)
                ret[(from + i) * w->dims + d] = (float)action[d];
        }
    }
    return r;
}

static int measure_policy(const struct work *w, struct policy_version *policy, struct measured *m, struct error *error)
{
    _cleanup_(openvla_session_freep) struct openvla_session *session = NULL;
    float actions[DRAWS * DIMS_MAX], gaussian[DRAWS * DIMS_MAX];
    uint64_t begun = clock_mono_ms(), said = begun;
    int r = openvla_session_new(&policy->model->config, BATCH, &session);

    for (int i = 0; i < w->n_samples && r >= 0; i++) {
        uint64_t now = clock_mono_ms();

        r = draw_actions(w, policy, session, i, actions);
        if (r < 0)
            break;
        note_errors(w, i, actions, m->errors[0]);
        search_gaussian(actions, GAUSSIAN_FROM, (uint32_t)w->dims, w->run.seed, (uint64_t)i, 0, gaussian, DRAWS);
        note_errors(w, i, gaussian, m->errors[1]);
        if (now - said > 5000) {
            said = now;
            fprintf(stderr, "gantry: %s: %d of %d frames, %.0f s left\n", m->policy, i + 1, w->n_samples,
                    (double)(now - begun) / 1000 / (i + 1) * (w->n_samples - i - 1));
        }
    }
    for (int p = 0; p < PROPOSERS && r >= 0; p++)
        r = scaling_error_law(w->k, w->n_k, m->errors[p], w->n_samples, RESAMPLES, w->run.seed, &m->law[p]);
    return r < 0 ? error_set(error, -r, "policy %s: %s", m->policy, strerror(-r)) : 0;
}

/* ---- policies -------------------------------------------------------------------------------------------------------------- */

/* "v000012" of a policy's name: the run's summary knows the words. */
static int find_version(const struct work *w, const char *name, uint64_t *ret, struct error *error)
{
    char path[PATH_MAX];
    json_t *summary, *version;

    if (name[0] && strspn(name, "0123456789") == strlen(name)) {
        *ret = strtoull(name, NULL, 10);
        return 0;
    }
    snprintf(path, sizeof path, "%s/summary.json", w->run_dir);
    summary = json_load_file(path, 0, NULL);
    version = json_object_get(json_object_get(json_object_get(summary, "policies"), name), "version");
    if (json_is_integer(version))
        *ret = (uint64_t)json_integer_value(version);
    else
        error_set(error, ENOENT, "%s: knows no version of '%s'; name a version number", path, name);
    version = json_is_integer(version) ? version : NULL;
    if (summary)
        json_decref(summary);
    return version ? 0 : -ENOENT;
}

static int load_policy(const struct work *w, const char *name, struct policy_version **ret, struct error *error)
{
    struct policy_version *policy = NULL;
    const struct openvla_config *config;
    char dir[PATH_MAX];
    uint64_t number = 0;
    int r = find_version(w, name, &number, error);

    if (r < 0)
        return r;
    snprintf(dir, sizeof dir, "%s/policies/v%06llu", w->run_dir, (unsigned long long)number);
    r = policy_version_load(dir, NULL, false, false, &policy, error);
    if (r < 0)
        return r;
    config = &policy->model->config;
    if (config->oft.kind != OFT_NONE)
        r = error_set(error, ENOTSUP, "%s: answers chunks; the law is of policies that answer token by token", dir);
    else if (config->action_dims != w->dims || config->image_height != w->height)
        r = error_set(error, EINVAL, "%s: %d action dims and pictures of %d; the demonstrations have %d and %d", dir,
                      config->action_dims, config->image_height, w->dims, w->height);
    if (r < 0) {
        policy_version_free(policy);
        return r;
    }
    *ret = policy;
    return 0;
}

/* ---- what came of it ---------------------------------------------------------------------------------------------------------
 */

static double mean_of(const struct work *w, const double *errors, int row)
{
    double sum = 0;

    for (int i = 0; i < w->n_samples; i++)
        sum += errors[row * w->n_samples + i];
    return sum / w->n_samples;
}

static void write_measured(const struct work *w, const struct measured *m, struct json_writer *json)
{
    char key[16];

    json_open(json, m->policy, '{');
    for (int p = 0; p < PROPOSERS; p++) {
        json_open(json, proposer_names[p], '{');
        json_number(json, "a", m->law[p].a);
        json_interval(json, "a_interval", m->law[p].a_interval.low, m->law[p].a_interval.high);
        json_number(json, "b", m->law[p].b);
        json_interval(json, "b_interval", m->law[p].b_interval.low, m->law[p].b_interval.high);
        json_number(json, "r2", m->law[p].r2);
        json_open(json, "error", '{');
        for (int i = 0; i < w->n_k; i++) {
            snprintf(key, sizeof key, "k%d", w->k[i]);
            json_number(json, key, mean_of(w, m->errors[p], i));
        }
        json_close(json, '}');
        json_close(json, '}');
    }
    json_close(json, '}');
}

static void print_measured(const struct work *w, const struct measured *m)
{
    for (int p = 0; p < PROPOSERS; p++) {
        printf("%-10s %-9s e = %.4f k^%.3f [%.3f %.3f], r2 %.3f:", m->policy, proposer_names[p], m->law[p].a,
               figure(m->law[p].b, 3), figure(m->law[p].b_interval.low, 3), figure(m->law[p].b_interval.high, 3), m->law[p].r2);
        for (int i = 0; i < w->n_k; i++)
            printf("  %d %.3f", w->k[i], mean_of(w, m->errors[p], i));
        printf("\n");
    }
}

static int measure_all(struct work *w, struct json_writer *json, struct error *error)
{
    int r = 0;

    if (w->n_k < 1 || w->n_samples < 1)
        return error_set(error, EINVAL, "%s: nothing to measure", w->run_dir);
    for (int i = 0; i < w->ask->n_policies && r == 0; i++) {
        _cleanup_(policy_version_freep) struct policy_version *policy = NULL;
        struct measured m = {0};

        snprintf(m.policy, sizeof m.policy, "%s", w->ask->policies[i]);
        for (int p = 0; p < PROPOSERS; p++)
            m.errors[p] = calloc((size_t)w->n_k * (size_t)w->n_samples, sizeof *m.errors[p]);
        r = m.errors[0] && m.errors[1] ? load_policy(w, m.policy, &policy, error) : error_set(error, ENOMEM, "out of memory");
        if (r == 0)
            r = measure_policy(w, policy, &m, error);
        if (r == 0)
            write_measured(w, &m, json);
        if (r == 0 && !w->ask->json)
            print_measured(w, &m);
        for (int p = 0; p < PROPOSERS; p++)
            free(m.errors[p]);
    }
    return r;
}

static int widths(struct work *w, struct error *error)
{
    for (int i = 0; i < (w->ask->n_k ? w->ask->n_k : 8); i++) {
        w->k[w->n_k] = w->ask->n_k ? w->ask->k[i] : 1 << i;
        if (w->k[w->n_k] > DRAWS || (w->n_k && w->k[w->n_k] <= w->k[w->n_k - 1]))
            return error_set(error, EINVAL, "--n %d: ascending, at most %d", w->k[w->n_k], DRAWS);
        w->n_k++;
    }
    return w->n_k > 1 ? 0 : error_set(error, EINVAL, "--n: a law needs two numbers of samples at least");
}

int action_error_run(const char *run_dir, const struct action_error_ask *ask, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer json = {.out = &out};
    struct work w = {.run_dir = run_dir, .ask = ask};
    int r = widths(&w, error);

    if (r == 0)
        r = read_demos(&w, error);
    if (r == 0)
        r = take_frames(&w, error);
    json_open(&json, NULL, '{');
    json_text(&json, "run", run_dir);
    json_signed(&json, "frames", w.n_samples);
    json_number(&json, "temperature", ask->temperature);
    if (r == 0)
        r = measure_all(&w, &json, error);
    json_close(&json, '}');
    strbuf_addc(&out, '\n');
    if (r == 0 && ask->json)
        fputs(out.text, stdout);
    if (r == 0 && ask->out && (r = atomic_file_write_through(ask->out, out.text, out.length)) < 0)
        r = error_set(error, -r, "%s: cannot be written: %s", ask->out, strerror(-r));
    for (int i = 0; i < w.n_samples; i++)
        free(w.samples[i].rgb);
    free(w.samples);
    free(w.demos);
    return r;
}
