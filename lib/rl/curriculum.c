#include "rl/curriculum.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/philox.h"

#define TAU .25                 /* width of the frontier, in success rate */
#define UNIFORM_SHARE .1        /* no task is ever forgotten */
#define DECAY .9                /* per iteration, of what older episodes count */
#define LEVEL_SHARE .7          /* of the draws, from the current level */
#define LEVEL_PASS .7           /* mean success rate that opens the next level */

int curriculum_init(struct curriculum *c, enum curriculum_mode mode, const int *level_of, int tasks)
{
    if (tasks < 1 || tasks > CURRICULUM_MAX_TASKS)
        return -EINVAL;
    *c = (struct curriculum) {.mode = mode, .tasks = tasks};
    for (int j = 0; j < tasks; j++) {
        c->level_of[j] = level_of ? level_of[j] : 0;
        c->level = j == 0 ? c->level_of[0] : MIN(c->level, c->level_of[j]);
    }
    return 0;
}

double curriculum_success(const struct curriculum *c, int task)
{
    return (1 + c->wins[task]) / (2 + c->tries[task]);
}

static void level_weights(const struct curriculum *c, double *ret_p)
{
    int here = 0, upto = 0;

    for (int j = 0; j < c->tasks; j++) {
        here += c->level_of[j] == c->level;
        upto += c->level_of[j] <= c->level;
    }
    for (int j = 0; j < c->tasks; j++)
        ret_p[j] = (c->level_of[j] == c->level ? LEVEL_SHARE / here : 0) +
                   (c->level_of[j] <= c->level ? (1 - LEVEL_SHARE) / upto : 0);
}

void curriculum_weights(const struct curriculum *c, double *ret_p)
{
    double sum = 0;

    if (c->mode == CURRICULUM_LEVELS) {
        level_weights(c, ret_p);
        return;
    }
    for (int j = 0; j < c->tasks; j++) {
        double s = curriculum_success(c, j);

        ret_p[j] = c->mode == CURRICULUM_FRONTIER_CENTRED ? exp(-fabs(s - .5) / TAU) :
                   c->mode == CURRICULUM_FRONTIER ? exp((.5 - s) / TAU) : 1;
        sum += ret_p[j];
    }
    for (int j = 0; j < c->tasks; j++) {
        ret_p[j] /= sum;
        if (c->mode == CURRICULUM_FRONTIER_CENTRED)
            ret_p[j] = (1 - UNIFORM_SHARE) * ret_p[j] + UNIFORM_SHARE / c->tasks;
    }
}

int curriculum_draw(const struct curriculum *c, uint64_t seed, uint64_t iteration, uint32_t index)
{
    struct philox random = philox_at(seed, PHILOX_CURRICULUM, iteration, index, 0);
    double p[CURRICULUM_MAX_TASKS], left = philox_uniform53(&random);
    int last = 0;

    if (c->mode == CURRICULUM_FIXED)
        return (int)(index % (uint32_t)c->tasks);
    curriculum_weights(c, p);
    for (int j = 0; j < c->tasks; j++) {
        if (p[j] <= 0)
            continue;
        last = j;               /* rounding may leave a crumb after the last task */
        if (left < p[j])
            break;
        left -= p[j];
    }
    return last;
}

/* The next level that has a task; the same one at the top. */
static int level_above(const struct curriculum *c)
{
    int next = c->level;

    for (int j = 0; j < c->tasks; j++)
        if (c->level_of[j] > c->level && (next == c->level || c->level_of[j] < next))
            next = c->level_of[j];
    return next;
}

static bool climb(struct curriculum *c, double rate)
{
    double sum = 0;
    int next = level_above(c);

    if (c->in_history == CURRICULUM_HISTORY)
        memmove(c->history, c->history + 1, --c->in_history * sizeof *c->history);
    c->history[c->in_history++] = rate;
    for (int i = 0; i < c->in_history; i++)
        sum += c->history[i];
    if (c->in_history < CURRICULUM_HISTORY || sum / CURRICULUM_HISTORY <= LEVEL_PASS || next == c->level)
        return false;
    c->level = next;
    c->in_history = 0;
    memset(c->history, 0, sizeof c->history);
    return true;
}

bool curriculum_record(struct curriculum *c, const int *attempts, const int *successes)
{
    int64_t tries = 0, wins = 0;

    for (int j = 0; j < c->tasks; j++) {
        c->tries[j] = c->tries[j] * DECAY + attempts[j];
        c->wins[j] = c->wins[j] * DECAY + successes[j];
        tries += attempts[j];
        wins += successes[j];
    }
    return tries > 0 && climb(c, (double)wins / (double)tries);
}

int curriculum_write(const struct curriculum *c, struct strbuf *out)
{
    strbuf_addf(out, "curriculum 1 %d %d %d %d", c->mode, c->tasks, c->level, c->in_history);
    for (int j = 0; j < c->tasks; j++)
        strbuf_addf(out, " %d %a %a", c->level_of[j], c->tries[j], c->wins[j]);
    for (int i = 0; i < c->in_history; i++)
        strbuf_addf(out, " %a", c->history[i]);
    return out->failed ? -ENOMEM : 0;
}

static int bad(struct error *error, const char *what)
{
    return error_set(error, EINVAL, "curriculum state: %s", what);
}

int curriculum_parse(const char *text, struct curriculum *ret, struct error *error)
{
    struct curriculum c = {0};
    int mode, at = 0, n = 0;

    if (sscanf(text, "curriculum 1 %d %d %d %d%n", &mode, &c.tasks, &c.level, &c.in_history, &at) != 4)
        return bad(error, "not a version 1 line");
    if (mode < CURRICULUM_UNIFORM || mode > CURRICULUM_FIXED || c.tasks < 1 || c.tasks > CURRICULUM_MAX_TASKS ||
        c.in_history < 0 || c.in_history > CURRICULUM_HISTORY)
        return bad(error, "mode, tasks or history out of range");
    c.mode = (enum curriculum_mode)mode;
    for (int j = 0; j < c.tasks; j++, at += n)
        if (sscanf(text + at, " %d %la %la%n", &c.level_of[j], &c.tries[j], &c.wins[j], &n) != 3 || !isfinite(c.tries[j]) ||
            !isfinite(c.wins[j]))
            return bad(error, "cut short in the tasks");
    for (int i = 0; i < c.in_history; i++, at += n)
        if (sscanf(text + at, " %la%n", &c.history[i], &n) != 1 || !isfinite(c.history[i]))
            return bad(error, "cut short in the history");
    *ret = c;
    return 0;
}
