/* prm_forward.c - one pass over all prompts: everything between, logits, scores of both kinds, and scores that do not depend on
 * company. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "nn/golden/prm_internal.h"

enum { PIECE = 1024 };          /* ids of the vocabulary at a time */

struct forward {
    struct prm_check *p;
    struct qwen_pass pass;
    struct tensor *logit;       /* of the reward head */
    struct tensor **logits; int n_logits;       /* of the vocabulary, PIECE by PIECE */
    const char *prefix;         /* "" or "lora." */
};

static int run(struct tape *tape, void *arg)
{
    struct forward *f = arg;
    const struct qwen_vl *model = f->p->model;
    int r = qwen_vl_forward_full(model, tape, f->p->items, f->p->n, &f->pass);

    if (r < 0)
        return r;
    f->logit = qwen_vl_reward(model, tape, f->pass.last);
    f->n_logits = (model->config.vocab + PIECE - 1) / PIECE;
    f->logits = tape_alloc(tape, (size_t)f->n_logits * sizeof(*f->logits));
    for (int i = 0; f->logits && i < f->n_logits; i++) {
        int32_t ids[PIECE];
        int n = MIN(PIECE, model->config.vocab - i * PIECE);

        for (int k = 0; k < n; k++)
            ids[k] = i * PIECE + k;
        f->logits[i] = qwen_vl_logits(model, tape, f->pass.last, ids, n);
    }
    return tape->error;
}

static void compare(struct prm_check *p, const struct safetensors *file, const char *name, const struct tensor *x)
{
    if (safetensors_find(file, name))
        prm_tensor(p, file, name, x->x, x->rows * x->cols, PRM_REL_L2, prm_forward_limit(p, name));
}

static void compare_numbered(struct prm_check *p, const struct safetensors *file, const char *prefix, struct tensor **x, int n)
{
    for (int i = 0; i < n; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s.%d", prefix, i);
        compare(p, file, name, x[i]);
    }
}

static float sigmoid(float x)
{
    return (float)(1.0 / (1.0 + exp(-(double)x)));
}

/* (n, vocab) out of the pieces. */
static void compare_logits(struct prm_check *p, const struct safetensors *file, const struct forward *f)
{
    const struct qwen_vl_config *c = &p->model->config;
    _cleanup_free_ float *all = calloc((size_t)p->n * (size_t)c->vocab + 1, sizeof(*all));
    _cleanup_free_ float *answer = calloc((size_t)p->n + 1, sizeof(*answer));

    if (!all || !answer)
        return;
    for (int i = 0; i < f->n_logits; i++)
        for (int k = 0; k < p->n; k++)
            memcpy(all + (size_t)k * (size_t)c->vocab + (size_t)i * PIECE, f->logits[i]->x + k * f->logits[i]->cols,
                   (size_t)f->logits[i]->cols * sizeof(*all));
    prm_tensor(p, file, "llm.logits_last", all, (int64_t)p->n * c->vocab, PRM_REL_L2,
               prm_forward_limit(p, "llm.logits_last"));
    if (c->yes_id < 0 || c->no_id < 0) {
        prm_skip(p, "generative.score", "the tokenizer has no words Yes and No");
        return;
    }
    for (int k = 0; k < p->n; k++)
        answer[k] =
            sigmoid(all[(size_t)k * (size_t)c->vocab + (size_t)c->yes_id] - all[(size_t)k * (size_t)c->vocab + (size_t)c->no_id]);
    prm_tensor(p, file, "generative.score", answer, p->n, PRM_ABS, prm_tolerance(p, "score_abs"));
}

static void compare_reward(struct prm_check *p, const struct safetensors *file, const struct forward *f)
{
    static const char *const names[] = {"reward.pooled", "reward.logit", "reward.score"};
    _cleanup_free_ float *progress = calloc((size_t)p->n + 1, sizeof(*progress));
    char name[3][32];

    if (!progress)
        return;
    for (int i = 0; i < p->n; i++)
        progress[i] = sigmoid(f->logit->x[i]);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        snprintf(name[i], sizeof(name[i]), "%s%s", f->prefix, names[i]);
    compare(p, file, name[0], f->pass.last);
    compare(p, file, name[1], f->logit);
    prm_tensor(p, file, name[2], progress, p->n, PRM_ABS, prm_tolerance(p, "score_abs"));
}

/* Each prompt alone, and all together, by the path that serves: the same bits. */
static int check_company(struct prm_check *p, const struct tensor *logit)
{
    _cleanup_(qwen_session_freep) struct qwen_session *session = NULL;
    _cleanup_free_ float *all = calloc((size_t)p->n + 1, sizeof(*all));
    int wrong = 0, r = all ? qwen_session_new(&session) : -ENOMEM;

    if (r >= 0)
        r = qwen_vl_score(p->model, session, p->items, p->n, all);
    for (int i = 0; i < p->n && r >= 0; i++) {
        float alone;

        r = qwen_vl_score(p->model, session, &p->items[i], 1, &alone);
        wrong += alone != all[i] || fabs((double)alone - (double)sigmoid(logit->x[i])) > 1e-6;
    }
    if (r >= 0)
        prm_count(p, "score alone = score in company, to the bit", p->n, wrong, "a score");
    return r;
}

static int run_tail(struct tape *tape, void *arg)
{
    struct forward *f = arg;
    int r = qwen_vl_forward(f->p->model, tape, f->p->items, f->p->n, &f->pass);

    if (r < 0)
        return r;
    f->logit = qwen_vl_reward(f->p->model, tape, f->pass.last);
    return tape->error;
}

static struct safetensors *open_forward(struct prm_check *p)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/forward_fp32.safetensors", p->name);
    return prm_open(p, path);
}

int prm_forward_adapted(struct prm_check *p)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    struct forward f = {.p = p, .prefix = "lora."};
    struct tape tape;
    int r;

    file = open_forward(p);
    if (!file)
        return -EINVAL;
    tape_init(&tape, false);
    r = tape_run(&tape, run_tail, &f);
    if (r >= 0)
        compare_reward(p, file, &f);
    tape_release(&tape);
    return r < 0 ? error_set(p->error, -r, "%s: the pass with adapters failed: %s", p->name, strerror(-r)) : 0;
}

int prm_check_forward(struct prm_check *p)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    struct forward f = {.p = p, .prefix = ""};
    struct tape tape;
    int r;

    file = open_forward(p);
    if (!file)
        return -EINVAL;
    tape_init(&tape, true);     /* keeps everything between */
    r = tape_run(&tape, run, &f);
    if (r >= 0) {
        compare(p, file, "vision.patch_embed", f.pass.patches);
        compare_numbered(p, file, "vision.block", f.pass.block, p->model->config.vision.depth);
        compare(p, file, "vision.merger_out", f.pass.merged);
        compare(p, file, "vision.image_embeds", f.pass.embeds);
        compare(p, file, "llm.inputs_embeds", f.pass.layer[0]);
        compare_numbered(p, file, "llm.layer", f.pass.layer + 1, p->model->config.layers);
        compare(p, file, "llm.last_hidden_state", f.pass.hidden);
        compare_logits(p, file, &f);
        compare_reward(p, file, &f);
        r = check_company(p, f.logit);
    }
    tape_release(&tape);
    return r < 0 ? error_set(p->error, -r, "%s: the forward pass failed: %s", p->name, strerror(-r)) : 0;
}
