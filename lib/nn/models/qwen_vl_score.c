/* qwen_vl_score.c - progress of many prompts, a few per pass. */
#include <errno.h>
#include <math.h>

#include "nn/models/qwen_vl_internal.h"

/* Prompts of a pass, which share their pictures: activations stay in a CPU's caches, a device wants many rows at once; any number
 * gives the same bits. */
enum { HERE = 8, THERE = QWEN_SCORES_THERE };

struct qwen_session { struct tape tape; };

struct context { const struct qwen_vl *model; const struct qwen_item *items; int n; struct tensor *out; };

int qwen_session_new(struct qwen_session **ret)
{
    struct qwen_session *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    tape_init(&s->tape, false);
    *ret = s;
    return 0;
}

struct qwen_session *qwen_session_free(struct qwen_session *s)
{
    if (!s)
        return NULL;
    tape_release(&s->tape);
    free(s);
    return NULL;
}

static int score_pass(struct tape *tape, void *arg)
{
    struct context *c = arg;
    const struct qwen_vl_config *config = &c->model->config;
    int32_t words[] = {config->yes_id, config->no_id};
    struct qwen_pass pass;
    int r = qwen_vl_forward(c->model, tape, c->items, c->n, &pass);

    if (r < 0)
        return r;
    c->out =
        config->reward_width ? qwen_vl_reward(c->model, tape, pass.last) : qwen_vl_logits(c->model, tape, pass.last, words, 2);
    return tape->error ? tape->error : c->out ? 0 : -EINVAL;
}

static float progress_of(const float *out, int64_t cols, int i)
{
    double x = cols == 1 ? (double)out[i] : (double)out[2 * i] - (double)out[2 * i + 1];

    return (float)(1.0 / (1.0 + exp(-x)));
}

int qwen_vl_score(const struct qwen_vl *model, struct qwen_session *s, const struct qwen_item *items, int n, float *ret_progress)
{
    struct context c = {.model = model};
    const float *out;
    int r = 0;

    if (!model->config.reward_width && (model->config.yes_id < 0 || model->config.no_id < 0))
        return -ENOTSUP;
    r = tape_attach(&s->tape, &model->params);
    for (int first = 0; first < n && r >= 0; first += c.n) {
        c.items = items + first;
        c.n = MIN(n - first, s->tape.on ? THERE : HERE);
        r = tape_run(&s->tape, score_pass, &c);
        out = r < 0 ? NULL : tape_values(&s->tape, c.out);
        if (r >= 0 && !out)
            r = s->tape.error;
        for (int i = 0; i < c.n && r >= 0; i++)
            ret_progress[first + i] = progress_of(out, c.out->cols, i);
    }
    return r;
}
