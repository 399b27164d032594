#include "train/prm_data.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/philox.h"
#include "rl/labels.h"

/* This share of the draws shows an episode's end: there the verdict is, and look-ahead and the gate ask for it. */
#define LAST_SHARE .25

void prm_data_release(struct prm_data *d)
{
    for (int i = 0; i < 4; i++)
        free(d->list[i / 2][i % 2]);
    free(d->held);
}

/* An initial state is held out as a whole: the same scene must not be on both sides. */
static bool held_out(const struct train_episode *episode, double share, uint64_t seed)
{
    struct philox random = philox_at(seed, PHILOX_SHUFFLE, episode->state_seed, (uint32_t)episode->task, 2);

    return !episode->demo && philox_uniform53(&random) < share;
}

int prm_data_split(const struct dataset *data, const struct prm_config *config, uint64_t seed, struct prm_data *ret)
{
    for (int i = 0; i < 4; i++) {
        ret->list[i / 2][i % 2] = malloc((size_t)MAX(data->n, 1) * sizeof(int));
        if (!ret->list[i / 2][i % 2])
            return -ENOMEM;
    }
    ret->held = malloc((size_t)MAX(data->n, 1) * sizeof(int));
    if (!ret->held)
        return -ENOMEM;
    for (int task = 0; task < data->n_tasks; task++)
        for (int i = 0; i < data->n; i++) {
            const struct train_episode *episode = &data->list[i];

            if (episode->task != task)
                continue;
            if (held_out(episode, config->holdout, seed))
                ret->held[ret->n_held++] = i;
            else
                ret->list[episode->demo][episode->success][ret->n[episode->demo][episode->success]++] = i;
        }
    return 0;
}

static int range_of_task(const struct dataset *data, const int *list, int n, int task, int *ret_first)
{
    int first = 0, last;

    while (first < n && data->list[list[first]].task < task)
        first++;
    for (last = first; last < n && data->list[list[last]].task == task; last++)
        ;
    *ret_first = first;
    return last - first;
}

enum { LONGEST = 4096 };        /* frames of an episode that is drawn from */

int prm_data_check(const struct dataset *data, const struct prm_config *config, struct error *error)
{
    for (int i = 0; i < data->n && config->labels == LABELS_MILESTONE; i++)
        if (!data->list[i].action)
            return error_set(error, EINVAL,
                             "episode %" PRIu64 ": its actions are not recorded, and milestones are found in them; "
                             "say labels: segments", data->list[i].id);
    return 0;
}

void prm_data_labels(const struct dataset *data, const struct train_episode *episode, enum label_mode mode, float *ret)
{
    int cut[LONGEST], n = 0;

    if (mode == LABELS_MILESTONE && episode->steps < LONGEST)
        n = prm_milestones(episode->action, episode->steps, data->action_dims, cut);
    prm_milestone_labels(cut, n, episode->steps + 1, episode->success, ret);
}

/* One frame: a task, then success or failure with equal chance, then a rollout or (at most demo_fraction) a demonstration. */
static bool draw_sample(const struct dataset *data, const struct prm_data *d, const struct prm_config *config,
                        struct philox *random, struct prm_sample *ret)
{
    float label[LONGEST];
    int task = (int)philox_below(random, (uint32_t)data->n_tasks), success = philox_u32(random) & 1;
    int demo = philox_uniform53(random) < config->demo_fraction, first[2], count[2], pick;
    const struct train_episode *episode;

    for (int i = 0; i < 2; i++)
        count[i] = range_of_task(data, d->list[i][success], d->n[i][success], task, &first[i]);
    if (demo && !count[1])
        demo = 0;
    if (!count[0])              /* demonstrations are never a class's only source: draw again */
        return false;
    pick = first[demo] + (int)philox_below(random, (uint32_t)count[demo]);
    episode = &data->list[d->list[demo][success][pick]];
    if (episode->steps + 1 > (int)ARRAY_SIZE(label))
        return false;
    prm_data_labels(data, episode, config->labels, label);
    ret->at.episode = d->list[demo][success][pick];
    ret->at.step = dataset_observed(episode, (int)philox_below(random, (uint32_t)dataset_observed_count(episode)));
    if (philox_uniform53(random) < LAST_SHARE)
        ret->at.step = episode->steps;
    ret->label = label[ret->at.step];
    return true;
}

bool prm_data_draw(const struct dataset *data, const struct prm_data *d, const struct prm_config *config,
                   const struct objective *objective, int64_t step, struct prm_sample *ret)
{
    struct philox random = philox_at(objective->seed, PHILOX_SHUFFLE, objective->stage << 32 | (uint64_t)step, 3,
                                     (uint32_t)objective->iteration);
    int n = 0;

    for (int tries = 0; n < config->batch && tries < 100 * config->batch; tries++)
        n += draw_sample(data, d, config, &random, &ret[n]);
    return n == config->batch;
}

double label_entropy(double p)
{
    return p <= 0 || p >= 1 ? 0 : -p * log(p) - (1 - p) * log(1 - p);
}
