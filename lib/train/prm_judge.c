/* How well a reward model tells success from failure, at equal times and at the end, task by task. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "train/objective.h"
#include "rl/stats.h"
#include "train/passes.h"
#include "train/prm_data.h"

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
    ret->successes = n[1];
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

enum { BINS = 10 };

/* Score against label over all frames; label is scratch for one episode's. */
static void frame_errors(const struct judge *j, enum label_mode mode, float *label, struct prm_judgement *ret)
{
    double scores[BINS] = {0}, labels[BINS] = {0}, bce = 0;
    int64_t frames = 0;

    for (int i = 0; i < j->n; i++) {
        const struct train_episode *episode = episode_of(j, i);

        prm_data_labels(j->data, episode, mode, label);
        for (int t = 0; t <= episode->steps; t++, frames++) {
            double p = (double)j->score[j->offset[i] + t], y = (double)label[t], held = CLAMP(p, 1e-7, 1 - 1e-7);
            int bin = MIN(BINS - 1, (int)(p * BINS));

            scores[bin] += p;
            labels[bin] += y;
            bce += -y * log(held) - (1 - y) * log(1 - held) - label_entropy(y);
        }
    }
    ret->bce = frames ? bce / (double)frames : 0;
    for (int b = 0; b < BINS && frames; b++)
        ret->calibration += fabs(scores[b] - labels[b]) / (double)frames;
}

/* Where each episode's frames begin; returns how many there are. */
static int lay_out(const struct dataset *data, const int *episodes, int n, int *ret_offset)
{
    int total = 0;

    for (int i = 0; i < n; i++) {
        ret_offset[i] = total;
        total += data->list[episodes[i]].steps + 1;
    }
    return total;
}

int prm_judge_scores(const struct dataset *data, enum label_mode labels, const int *episodes, int n, const float *score,
                     struct prm_judgement *ret)
{
    struct prm_judgement judgement = {.episodes = n};
    _cleanup_free_ int *offset = malloc((size_t)MAX(n, 1) * sizeof *offset);
    _cleanup_free_ int *scratch = malloc((size_t)MAX(n, 1) * sizeof *scratch);
    _cleanup_free_ double *x = NULL, *y = NULL;
    _cleanup_free_ float *label = NULL;
    _cleanup_free_ bool *positive = NULL;
    struct judge j = {data, episodes, n, score, offset, NULL, NULL, NULL};
    size_t total;
    int frames, r;

    if (!offset || !scratch)
        return -ENOMEM;
    frames = lay_out(data, episodes, n, offset);
    for (int i = 0; i < frames; i++)
        if (!(score[i] >= 0 && score[i] <= 1))      /* a NaN, too: they number bins */
            return -EDOM;
    total = (size_t)MAX(frames, 1);
    j.x = x = malloc(total * sizeof *x);
    j.y = y = malloc(total * sizeof *y);
    label = malloc(total * sizeof *label);
    j.positive = positive = malloc(total * sizeof *positive);
    if (!x || !y || !label || !positive)
        return -ENOMEM;
    last_means(&j, &judgement);
    frame_errors(&j, labels, label, &judgement);
    r = judge_tasks(&j, scratch, &judgement);
    if (r >= 0)
        r = time_correlation(&j, &judgement.time_correlation);
    if (r < 0)
        return r;
    *ret = judgement;
    return 0;
}

/* All steps of these episodes, in order, last ones included. The caller frees. */
static struct step_ref *steps_of(const struct dataset *data, const int *episodes, int n, int *ret_total)
{
    _cleanup_free_ int *offset = malloc((size_t)MAX(n, 1) * sizeof *offset);
    struct step_ref *steps;
    int at = 0;

    if (!offset)
        return NULL;
    *ret_total = lay_out(data, episodes, n, offset);
    steps = calloc((size_t)MAX(*ret_total, 1), sizeof *steps);
    for (int i = 0; i < n && steps; i++)
        for (int t = 0; t <= data->list[episodes[i]].steps; t++)
            steps[at++] = (struct step_ref) {episodes[i], t};
    return steps;
}

/* Scores of all these steps, by what was last seen at each. */
static int score_steps(const struct openvla *model, struct shards *shards, const struct dataset *data,
                       const struct step_ref *steps, int n, const uint8_t *blank, float *ret)
{
    _cleanup_free_ struct step_ref *drawn = calloc((size_t)MAX(n, 1), sizeof *drawn);
    _cleanup_free_ float *score = calloc((size_t)MAX(n, 1), sizeof *score);
    int n_drawn = 0, r;

    if (!drawn || !score)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        if (dataset_is_observed(data, steps[i]))
            drawn[n_drawn++] = steps[i];
    r = pass_reward(model, shards, data, drawn, n_drawn, blank, score);
    if (r < 0)
        return r;
    for (int i = 0, seen = -1; i < n; i++) {
        seen += dataset_is_observed(data, steps[i]);
        ret[i] = score[seen];
    }
    return 0;
}

int prm_judge(const struct openvla *model, struct shards *shards, const struct dataset *data, enum label_mode labels,
              const int *episodes, int n, const uint8_t *blank, struct prm_judgement *ret)
{
    int total = 0, r;
    _cleanup_free_ struct step_ref *steps = steps_of(data, episodes, n, &total);
    _cleanup_free_ float *score = malloc((size_t)MAX(total, 1) * sizeof *score);

    if (!steps || !score)
        return -ENOMEM;
    r = score_steps(model, shards, data, steps, total, blank, score);
    return r < 0 ? r : prm_judge_scores(data, labels, episodes, n, score, ret);
}

int prm_judge_clock(const struct dataset *data, enum label_mode labels, const int *episodes, int n, struct prm_judgement *ret)
{
    int total = 0;
    _cleanup_free_ struct step_ref *steps = steps_of(data, episodes, n, &total);
    _cleanup_free_ float *score = malloc((size_t)MAX(total, 1) * sizeof *score);

    if (!steps || !score)
        return -ENOMEM;
    for (int i = 0; i < total; i++)
        score[i] = MIN(1.f, (float)steps[i].step / (float)MAX(data->list[steps[i].episode].max_steps, 1));   /* a demonstration may be longer */
    return prm_judge_scores(data, labels, episodes, n, score, ret);
}
