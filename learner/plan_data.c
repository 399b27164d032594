#include "learner/plan_data.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/episode.h"
#include "base/json_write.h"
#include "data/dataset_dir.h"
#include "learner/episode_input.h"
#include "run/trajectory.h"

void plan_data_release(struct plan_data *data)
{
    data->set = dataset_free(data->set);
    strbuf_release(&data->sources);
    free(data->used);
    free(data->trained);
    free(data->stale);
    *data = (struct plan_data) {0};
    /* A hundred thousand pictures of some kilobytes each are below what the allocator hands back by itself: without this a
     * learner kept the 2.7 GB of its reward model's data through all of rl. */
    (void)malloc_trim(0);
}

/* ---- one episode --------------------------------------------------------------------------------- */

struct loaded { Gantry__Trajectory *trajectory; uint8_t *frames; size_t n_frames; };

static void loaded_release(struct loaded *l)
{
    trajectory_freep(&l->trajectory);
    free(l->frames);
}

static int load(struct journal *journal, uint64_t id, struct loaded *ret, struct error *error)
{
    int r = trajectory_load(journal, id, &ret->trajectory, &ret->frames, &ret->n_frames, error);

    return r == -ENOENT ? error_set(error, ENOENT, "episode %" PRIu64 " of the plan is not in the journal", id) : r;
}

static int add(struct dataset *set, struct loaded *l, struct error *error)
{
    struct episode_input in = episode_input_of(l->trajectory, l->frames, l->n_frames);
    int r = dataset_add(set, &in, error);

    if (r >= 0)
        l->frames = NULL;
    return r;
}

int plan_data_add(struct journal *journal, uint64_t episode, struct dataset *set, struct error *error)
{
    _cleanup_(loaded_release) struct loaded l = {0};
    int r = load(journal, episode, &l, error);

    if (r == 0 && !set->n && l.trajectory->end_token)
        r = dataset_expect_end(set, error);
    return r < 0 ? r : add(set, &l, error);
}

/* ---- which ones ------------------------------------------------------------------------------------ */

static int note_used(struct plan_data *data, struct journal *journal, uint64_t id, struct error *error)
{
    struct manifest_episode *larger = realloc(data->used, (data->n_used + 1) * sizeof *larger);
    struct journal_entry entry;

    if (!larger)
        return error_set(error, ENOMEM, "out of memory at %zu episodes", data->n_used);
    data->used = larger;
    if (journal_find(journal, id, &entry) < 0)
        return error_set(error, ENOENT, "episode %" PRIu64 " has left the journal", id);
    larger[data->n_used].episode = id;
    memcpy(larger[data->n_used++].digest, entry.digest, SHA256_SIZE);
    return 0;
}

static bool is_stale(const Gantry__Plan *plan, const Gantry__Trajectory *t, int max_staleness)
{
    return t->policy_version > plan->parent || plan->parent - t->policy_version > (uint64_t)max_staleness;
}

static int load_rows(struct plan_runner *runner, const Gantry__Plan *plan, int max_staleness, struct plan_data *data,
                     struct error *error)
{
    data->trained = calloc(MAX(plan->n_episodes, (size_t)1), sizeof *data->trained);
    data->stale = calloc(MAX(plan->n_episodes, (size_t)1), sizeof *data->stale);
    if (!data->trained || !data->stale)
        return error_set(error, ENOMEM, "out of memory for %zu episodes", plan->n_episodes);
    for (size_t i = 0; i < plan->n_episodes; i++) {
        _cleanup_(loaded_release) struct loaded l = {0};
        int r = load(runner->journal, plan->episodes[i], &l, error);

        if (r < 0)
            return r;
        if (is_stale(plan, l.trajectory, max_staleness)) {
            data->stale[data->n_stale++] = plan->episodes[i];
            continue;
        }
        r = add(data->set, &l, error);
        if (r >= 0)
            r = note_used(data, runner->journal, plan->episodes[i], error);
        if (r < 0)
            return r;
        data->trained[data->n_trained++] = plan->episodes[i];
    }
    return 0;
}

/* Is this episode of the policy's own worth imitating? */
static int choose(const struct sft_config *sft, const Gantry__Trajectory *t, bool *ret, struct error *error)
{
    if (sft->choose == CHOOSE_SCORE && !t->n_progress)
        return error_set(error, EINVAL, "episode %" PRIu64 " was not scored, and choose: score goes by the score; say score: "
                         "true in its rollouts stage", t->episode);
    *ret = sft->choose == CHOOSE_ALL || (sft->choose == CHOOSE_SUCCESS && t->success) ||
           (sft->choose == CHOOSE_SCORE && (double)t->progress[t->n_progress - 1] >= sft->least_score);
    return 0;
}

static int wanted(const struct stage_config *settings, const Gantry__Trajectory *t, struct sft_chosen *chosen, bool *ret,
                  struct error *error)
{
    bool yes = t->split == GANTRY__SPLIT__SPLIT_TRAIN && t->purpose != GANTRY__PURPOSE__PURPOSE_EVAL;
    int r;

    if (yes && settings->kind == STAGE_SFT && t->purpose != GANTRY__PURPOSE__PURPOSE_DEMO) {
        r = choose(&settings->sft, t, &yes, error);
        if (r < 0)
            return r;
        chosen->offered++;
        chosen->chosen += yes;
        chosen->successes += yes && t->success;
    }
    *ret = yes;
    return 0;
}

static int load_stage(struct plan_runner *runner, const struct stage_config *settings, uint64_t stage, struct plan_data *data,
                      struct error *error)
{
    _cleanup_free_ struct journal_entry *entries = NULL;
    size_t n = 0;
    int r = journal_list(runner->journal, (uint32_t)stage, JOURNAL_ALL, &entries, &n);

    if (r < 0)
        return error_set(error, -r, "the journal of stage %" PRIu64 " cannot be listed", stage);
    for (size_t i = 0; i < n; i++) {
        _cleanup_(loaded_release) struct loaded l = {0};
        bool yes = false;

        if (atomic_load(&runner->stop))
            return error_set(error, ECANCELED, "stopped while loading episodes");
        r = load(runner->journal, entries[i].episode, &l, error);
        if (r >= 0)
            r = wanted(settings, l.trajectory, &data->chosen, &yes, error);
        if (r >= 0 && yes) {
            r = add(data->set, &l, error);
            if (r >= 0)
                r = note_used(data, runner->journal, entries[i].episode, error);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

/* A demos stage that was recorded elsewhere. Ids of its own, above all that a run hands out. */
static int load_dataset(struct plan_runner *runner, const char *dir, uint64_t stage, struct plan_data *data, struct error *error)
{
    _cleanup_(dataset_closep) struct dataset_dir *source = NULL;
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX];
    struct json_writer w = {.out = &data->sources, .need_comma = data->sources.length > 0};
    int r = dataset_open(dir, &source, error);

    for (int i = 0; r >= 0 && i < source->info.episodes; i++) {
        _cleanup_(loaded_release) struct loaded l = {0};

        if (atomic_load(&runner->stop))
            return error_set(error, ECANCELED, "stopped while loading episodes");
        r = dataset_get(source, i, &l.trajectory, &l.frames, &l.n_frames, error);
        if (r < 0)
            break;
        l.trajectory->episode |= (uint64_t)1 << 62 | stage << 32;
        r = add(data->set, &l, error);
        if (r < 0)
            return error_prefix(error, r, "%s: number %d", dir, i + 1);
    }
    if (r < 0)
        return r;
    dataset_digest(source, digest);
    sha256_hex(digest, hex);
    json_open(&w, NULL, '{');
    json_unsigned(&w, "stage", stage);
    json_text(&w, "dir", dir);
    json_signed(&w, "episodes", source->info.episodes);
    json_text(&w, "digest", hex);
    json_close(&w, '}');
    return data->sources.failed ? error_set(error, ENOMEM, "out of memory") : 0;
}

/* NULL: its episodes were played in this run, or there are none. */
static const char *dataset_of(const struct plan_runner *runner, uint64_t stage)
{
    const struct run_config *c = runner->config;

    if (!c || stage >= (uint64_t)c->n_stages || c->stages[stage].kind != STAGE_DEMOS || !c->stages[stage].demos.from[0])
        return NULL;
    return c->stages[stage].demos.from;
}

static int compare_used(const void *a, const void *b)
{
    uint64_t x = ((const struct manifest_episode *)a)->episode, y = ((const struct manifest_episode *)b)->episode;

    return (x > y) - (x < y);
}

int plan_data_load(struct plan_runner *runner, const Gantry__Plan *plan, const struct trainer *trainer,
                   const struct stage_config *settings, struct plan_data *ret, struct error *error)
{
    _cleanup_(plan_data_release) struct plan_data data = {.sources = STRBUF_INIT};
    bool ppo = strcmp(plan->objective, "ppo") == 0;
    int r = trainer->reward ? dataset_new_reward(trainer->reward, &data.set) : dataset_new(trainer->model, &data.set);

    if (r < 0)
        return error_set(error, -r, "out of memory");
    if (!trainer->reward && runner->config && runner->config->policy_eos_in_logp && (r = dataset_expect_end(data.set, error)) < 0)
        return r;
    r = load_rows(runner, plan, ppo ? settings->rl.max_staleness : INT32_MAX, &data, error);
    for (size_t i = 0; i < plan->n_stages && r >= 0; i++) {
        const char *dir = dataset_of(runner, plan->stages[i]);

        r = dir ? load_dataset(runner, dir, plan->stages[i], &data, error)
                : load_stage(runner, settings, plan->stages[i], &data, error);
    }
    if (r < 0)
        return r;
    if (data.chosen.offered && !data.set->n)
        return error_set(error, EINVAL, "none of %d rollouts was chosen to be imitated (choose: %s); play more, or let more "
                         "through", data.chosen.offered, settings->sft.choose == CHOOSE_SCORE ? "score" : "success");
    if (data.n_used)
        qsort(data.used, data.n_used, sizeof *data.used, compare_used);
    dataset_sort(data.set);
    *ret = TAKE_STRUCT(data);
    return 0;
}
