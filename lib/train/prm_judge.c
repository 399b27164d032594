/* How well a reward model tells success from failure, at equal times and at the end, task by task. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "train/objective.h"
#include "train/passes.h"

struct judge {
    const struct dataset *data;
    const int *episodes; int n;
    const float *score;         /* of all frames of all these episodes */
    const int *offset;          /* [n] where an episode's frames begin */
    double *x, *y;              /* scratch, [longest list] */
    bool *positive;
};

static const struct train_episode *episode_of(const struct judge *j, int i)
{
    return &j->data->list[j->episodes[i]];
}

/* AUC over the task's episodes that are still going on after frame t; t < 0: each at its last frame. NaN: one class is empty. */
static int auc_at(const struct judge *j, int task, int t, double *ret)
{
    int n = 0;

    for (int i = 0; i < j->n; i++) {
        const struct train_episode *episode = episode_of(j, i);

        if (episode->task != task || t > episode->steps)
            continue;
        j->x[n] = (double)j->score[j->offset[i] + (t < 0 ? episode->steps : t)];
        j->positive[n++] = episode->success;
    }
    return auc(j->x, j->positive, n, ret);
}

static int compare_int(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* 0: the task has no success. */
static int median_success_length(const struct judge *j, int task, int *scratch)
{
    int n = 0;

    for (int i = 0; i < j->n; i++)
        if (episode_of(j, i)->task == task && episode_of(j, i)->success)
            scratch[n++] = episode_of(j, i)->steps;
    qsort(scratch, (size_t)n, sizeof *scratch, compare_int);
    return n ? scratch[n / 2] : 0;
}

static int time_correlation(const struct judge *j, double *ret)
{
    double sum = 0;
    int n = 0;

    for (int i = 0; i < j->n; i++) {
        const struct train_episode *episode = episode_of(j, i);
        double r;
        int result;

        if (!episode->success)
            continue;
        for (int t = 0; t <= episode->steps; t++) {
            j->x[t] = (double)j->score[j->offset[i] + t];
            j->y[t] = t;
        }
        result = rank_correlation(j->x, j->y, episode->steps + 1, &r);
        if (result < 0)
            return result;
        sum += r;
        n++;
    }
    *ret = n ? sum / n : 0;
    return 0;
}

static void last_means(const struct judge *j, struct prm_judgement *ret)
{
    double sum[2] = {0};
    int n[2] = {0};

    for (int i = 0; i < j->n; i++) {
        const struct train_episode *episode = episode_of(j, i);

        sum[episode->success] += (double)j->score[j->offset[i] + episode->steps];
        n[episode->success]++;
    }
    ret->failure_last = n[0] ? sum[0] / n[0] : 0;
    ret->success_last = n[1] ? sum[1] / n[1] : 0;
}

static int judge_tasks(const struct judge *j, int *scratch, struct prm_judgement *ret)
{
    double *field[] = {&ret->auc_quarter, &ret->auc_mid, &ret->auc_three_quarters, &ret->auc_last};
    int counted[4] = {0};

    for (int task = 0; task < j->data->n_tasks; task++) {
        int median = median_success_length(j, task, scratch), at[] = {median / 4, median / 2, median * 3 / 4, -1};

        for (int k = 0; k < 4 && median; k++) {
            double value;
            int r = auc_at(j, task, at[k], &value);

            if (r < 0)
                return r;
            if (isnan(value))
                continue;
            *field[k] += value;
            counted[k]++;
        }
    }
    for (int k = 0; k < 4; k++)
        *field[k] = counted[k] ? *field[k] / counted[k] : 0;     /* nothing to tell apart: no merit */
    ret->tasks = counted[3];
    return 0;
}

int prm_judge(const struct openvla *model, struct shards *shards, const struct dataset *data, const int *episodes, int n,
              const uint8_t *blank, struct prm_judgement *ret)
{
    struct prm_judgement judgement = {.episodes = n};
    _cleanup_free_ int *offset = malloc((size_t)MAX(n, 1) * sizeof *offset);
    _cleanup_free_ int *scratch = malloc((size_t)MAX(n, 1) * sizeof *scratch);
    _cleanup_free_ struct step_ref *frames = NULL;
    _cleanup_free_ float *score = NULL;
    _cleanup_free_ double *x = NULL, *y = NULL;
    _cleanup_free_ bool *positive = NULL;
    int total = 0, at = 0, r;

    if (!offset || !scratch)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        offset[i] = total;
        total += data->list[episodes[i]].steps + 1;
    }
    frames = calloc((size_t)MAX(total, 1), sizeof *frames);
    score = malloc((size_t)MAX(total, 1) * sizeof *score);
    x = malloc((size_t)MAX(total, 1) * sizeof *x);
    y = malloc((size_t)MAX(total, 1) * sizeof *y);
    positive = malloc((size_t)MAX(total, 1) * sizeof *positive);
    if (!frames || !score || !x || !y || !positive)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        for (int t = 0; t <= data->list[episodes[i]].steps; t++)
            frames[at++] = (struct step_ref) {episodes[i], t};
    r = pass_reward(model, shards, data, frames, total, blank, score);
    if (r >= 0) {
        struct judge j = {data, episodes, n, score, offset, x, y, positive};

        last_means(&j, &judgement);
        r = judge_tasks(&j, scratch, &judgement);
        if (r >= 0)
            r = time_correlation(&j, &judgement.time_correlation);
    }
    if (r < 0)
        return r;
    *ret = judgement;
    return 0;
}
