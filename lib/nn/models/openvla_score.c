/* openvla_score.c - progress in [0,1] of items under the reward head. */
#include <errno.h>
#include <math.h>

#include "nn/models/openvla_session.h"

enum { CHUNK = 16 };           /* sequences per pass: activations stay in the caches; any number gives the same bits */

struct context { const struct openvla *model; int first, n; const float *logit; };

static int score_pass(struct openvla_session *s, void *arg)
{
    struct context *c = arg;
    struct openvla_pass pass;
    struct tensor *logit;
    int r;

    r = openvla_forward_tail(c->model, &s->tape, s->items + c->first, c->n, &pass);
    if (r < 0)
        return r;
    logit = openvla_reward(c->model, &s->tape, op_gather(&s->tape, pass.hidden, pass.first, c->n));
    c->logit = logit && !s->tape.planning ? tape_values(&s->tape, logit) : NULL;
    return s->tape.error ? s->tape.error : logit ? 0 : -EINVAL;
}

int openvla_score(const struct openvla *model, struct openvla_session *s, const struct score_item *items, int n,
                  float *ret_progress)
{
    struct context c = {.model = model};
    int r = 0;

    if (n < 1 || n > s->max_batch || model->config.hidden != s->config.hidden)
        return -EINVAL;
    if (!model->config.reward_width)
        return -ENOTSUP;
    r = session_attach(s, model);
    if (r < 0)
        return r;
    for (int i = 0; i < n; i++) {
        s->items[i] =
            (struct openvla_item){.n_images = items[i].n_images, .prompt = items[i].prompt, .n_prompt = items[i].n_prompt};
        memcpy(s->items[i].images, items[i].images, sizeof(items[i].images));
    }
    for (c.first = 0; c.first < n && r >= 0; c.first += CHUNK) {
        c.n = MIN(n - c.first, CHUNK);
        r = session_run(s, score_pass, &c);
        for (int i = 0; i < c.n && r >= 0; i++)
            ret_progress[c.first + i] = (float)(1.0 / (1.0 + exp(-(double)c.logit[i])));
    }
    return r;
}
