/* openvla_act.c - acting: one pass over the prompts fills the caches, then one row per sequence and token.
 *
 * A row's numbers do not depend on the rows beside it, and a decoded row equals the row that training computes for the same
 * ids (ops.h promises it of attention, everything else is row by row): the learner finds the actor's log-probs again. */
#include <errno.h>
#include <math.h>

#include "base/philox.h"
#include "nn/models/openvla_session.h"

struct context {
    const struct openvla *model;
    int first, n;                       /* sequences of this chunk; of all */
    bool action_only;
    struct act_pass *pass;
};

/* A device wants many rows at once, a CPU's caches few. */
static int prefill_chunk(const struct openvla_session *s) { return s->tape.on ? 16 : OPENVLA_PREFILL_CHUNK; }

static int tape_result(const struct tape *tape, const void *last)
{
    return tape->error ? tape->error : last ? 0 : -EINVAL;
}

/* Prompts of one chunk: fills their slots of the caches, leaves each one's last hidden state in the session. */
static int prompt_pass(struct openvla_session *s, void *arg)
{
    struct context *c = arg;
    int n = MIN(c->n - c->first, prefill_chunk(s)), width = c->model->config.hidden, layers = c->model->config.layers, r;
    const float *last;
    struct kv_cache *cache = tape_alloc(&s->tape, (size_t)layers * sizeof(*cache));
    int64_t before;
    struct openvla_pass pass;

    if (!cache)
        return tape_result(&s->tape, NULL);
    for (int i = 0; i < layers; i++) {
        cache[i] = s->cache[i];
        before = (int64_t)c->first * cache[i].capacity * cache[i].width * (int64_t)tape_element(&s->tape);
        cache[i].k = (float *)((char *)cache[i].k + before);
        cache[i].v = (float *)((char *)cache[i].v + before);
        cache[i].slots -= c->first;
    }
    r = openvla_forward_cached(c->model, &s->tape, s->items + c->first, n, cache, &pass);
    if (r < 0)
        return r;
    if (s->tape.planning)
        return tape_result(&s->tape, pass.hidden);
    last = tape_values(&s->tape, pass.hidden);      /* one row of each sequence and what follows it: a few */
    for (int i = 0; i < n && last; i++)
        memcpy(s->hidden + (c->first + i) * width, last + pass.first[i] * width, (size_t)width * sizeof(float));
    return tape_result(&s->tape, last);
}

static int prefill_pass(struct openvla_session *s, void *arg)
{
    struct context *c = arg;
    const struct openvla_config *config = &c->model->config;
    struct act_pass *out = c->pass;
    struct tensor *last = tape_input(&s->tape, s->hidden, c->n, config->hidden);

    *out = (struct act_pass) {.rows = s->active, .slot = s->slot};
    if (config->value_width && !config->value_inputs) {
        out->value = openvla_value(c->model, &s->tape, last, NULL, true);
        if (!out->value)
            return tape_result(&s->tape, NULL);
    }
    if (!s->active)
        return tape_result(&s->tape, last);
    if (s->active < c->n)
        last = op_gather(&s->tape, last, s->slot, s->active);
    out->logits = openvla_logits(c->model, &s->tape, last, c->action_only);
    return tape_result(&s->tape, out->logits);
}

static int act_tokens(const struct openvla_config *config, const struct act_item *item)
{
    return config->action_dims + item->ended;
}

int openvla_prefill(const struct openvla *model, struct openvla_session *s, const struct act_item *items, int n, bool action_only,
                    struct act_pass *ret)
{
    struct context c = {.model = model, .n = n, .action_only = action_only, .pass = ret};
    int longest = 0, r;

    if (n < 1 || n > s->max_batch || model->config.hidden != s->config.hidden || model->config.layers != s->config.layers)
        return -EINVAL;
    r = session_attach(s, model);
    if (r < 0)
        return r;
    s->active = 0;
    for (int i = 0; i < n; i++) {
        s->items[i] =
            (struct openvla_item){.n_images = items[i].n_images, .prompt = items[i].prompt, .n_prompt = items[i].n_prompt};
        memcpy(s->items[i].images, items[i].images, sizeof(items[i].images));
        longest = MAX(longest, items[i].n_images * model->config.patches + items[i].n_prompt + act_tokens(&model->config,
                &items[i]));
        if (!items[i].value_only)
            s->slot[s->active++] = i;
    }
    r = session_reserve_kv(s, longest);
    for (c.first = 0; c.first < n && r >= 0; c.first += prefill_chunk(s))
        r = session_run(s, prompt_pass, &c);
    for (int i = 0; i < n; i++)
        s->length[i] = items[i].n_images * model->config.patches + items[i].n_prompt;
    return r < 0 ? r : session_run(s, prefill_pass, &c);
}

static int step_pass(struct openvla_session *s, void *arg)
{
    struct context *c = arg;
    struct tensor *x = op_embedding(&s->tape, c->model->w->embedding, s->token, s->active);

    x = openvla_llama_step(c->model, &s->tape, x, s->slot, s->position, s->cache);
    c->pass->logits = openvla_logits(c->model, &s->tape, x, c->action_only);
    return tape_result(&s->tape, c->pass->logits);
}

int openvla_step(const struct openvla *model, struct openvla_session *s, const int32_t *token, bool action_only,
                 struct act_pass *ret)
{
    struct context c = {.model = model, .action_only = action_only, .pass = ret};
    int r;

    for (int i = 0; i < s->active; i++) {
        s->token[i] = token[i];
        s->position[i] = s->length[s->slot[i]];
        if (s->position[i] >= s->capacity || token[i] < 0 || token[i] >= model->config.vocab_padded)
            return -EINVAL;
    }
    *ret = (struct act_pass) {.rows = s->active, .slot = s->slot};
    r = session_step(s, model, action_only, step_pass, &c, &ret->logits);
    for (int i = 0; i < s->active && r >= 0; i++)
        s->length[s->slot[i]]++;
    return r;
}

/* KL(p || q) of the softmaxes over n logits, in double. */
static double divergence(const float *p, const float *q, int n)
{
    double top_p = (double)p[0], top_q = (double)q[0], sum_p = 0, sum_q = 0, kl = 0;

    for (int i = 1; i < n; i++) {
        top_p = fmax(top_p, (double)p[i]);
        top_q = fmax(top_q, (double)q[i]);
    }
    for (int i = 0; i < n; i++) {
        sum_p += exp((double)p[i] - top_p);
        sum_q += exp((double)q[i] - top_q);
    }
    for (int i = 0; i < n; i++) {
        double log_p = (double)p[i] - top_p - log(sum_p);

        kl += exp(log_p) * (log_p - ((double)q[i] - top_q - log(sum_q)));
    }
    return kl;
}

/* Which row of the pass is of sequence `item`; it is there: shadows come after whom they follow. */
static int row_of(const struct act_pass *pass, int item)
{
    int row = 0;

    while (row + 1 < pass->rows && pass->slot[row] != item)
        row++;
    return row;
}

/* Before anything is sampled: sampling may change the logits. */
static void compare_shadows(const struct openvla *model, const struct act_pass *pass, const float *logits,
                            const struct act_item *items, struct act_result *results)
{
    int64_t cols = pass->logits->cols, first = cols > OPENVLA_ACTION_BINS ? model->config.vocab - OPENVLA_ACTION_BINS : 0;

    for (int i = 0; i < pass->rows; i++) {
        int of = items[pass->slot[i]].shadow_of - 1;

        if (of >= 0)
            results[of].confidence += (float)divergence(logits + row_of(pass, of) * cols + first, logits + i * cols + first,
                                                        OPENVLA_ACTION_BINS);
    }
}

/* Draw token number `token` of every acting sequence that has so many: from the 256 action ids, or with item.full from the
 * vocabulary. */
static void sample(const struct openvla *model, struct openvla_session *s, const struct act_pass *pass, float *all,
                   const struct act_item *items, int token, struct act_result *results)
{
    const struct openvla_config *c = &model->config;
    int32_t first = c->vocab - OPENVLA_ACTION_BINS;

    for (int i = 0; i < pass->rows; i++) {
        const struct act_item *item = &items[pass->slot[i]];
        struct act_result *result = &results[pass->slot[i]];
        struct philox random =
            philox_at(item->seed, PHILOX_SAMPLE, item->episode, item->step, item->sample << 16 | (uint32_t)token);
        float *logits = all + i * pass->logits->cols, uniform = philox_uniform(&random), entropy;
        bool all_columns = pass->logits->cols > OPENVLA_ACTION_BINS;
        int32_t column;

        if (token >= act_tokens(c, item))
            continue;
        if (item->shadow_of) {
            s->token[i] = result->tokens[token] = results[item->shadow_of - 1].tokens[token];
            continue;
        }
        if (item->full || !all_columns)
            sample_rows(logits, 1, pass->logits->cols, &item->temperature, &uniform, &column, &result->logp[token], &entropy);
        else
            sample_rows(logits + first, 1, OPENVLA_ACTION_BINS, &item->temperature, &uniform, &column, &result->logp[token],
                        &entropy);
        s->token[i] = item->full ? column : first + column;
        result->tokens[token] = s->token[i];
        result->entropy += entropy / (float)act_tokens(c, item);
    }
}

int openvla_act(const struct openvla *model, struct openvla_session *s, const struct act_item *items, int n,
                struct act_result *results)
{
    struct act_pass pass;
    const float *value = NULL;
    float *logits;
    bool action_only = true;
    int tokens = 0, r;

    for (int i = 0; i < n; i++) {
        if (items[i].ended && !items[i].full)
            return -EINVAL; /* the end token is none of the 256 */
        action_only = action_only && !items[i].full;
        tokens = MAX(tokens, act_tokens(&model->config, &items[i]));
    }
    r = openvla_prefill(model, s, items, n, action_only, &pass);
    if (r < 0)
        return r;
    memset(results, 0, (size_t)n * sizeof(*results));
    if (pass.value) {
        value = tape_values(&s->tape, pass.value);
        if (!value)
            return s->tape.error;
    }
    for (int i = 0; value && i < n; i++)
        results[i].value = value[i];
    for (int token = 0; pass.rows && token < tokens; token++) {
        if (token > 0) {
            r = openvla_step(model, s, s->token, action_only, &pass);
            if (r < 0)
                return r;
        }
        logits = (float *)tape_values(&s->tape, pass.logits);   /* overwritten by sampling: nobody reads them again */
        if (!logits)
            return s->tape.error;
        if (token < model->config.action_dims)
            compare_shadows(model, &pass, logits, items, results);
        sample(model, s, &pass, logits, items, token, results);
    }
    return 0;
}

const float *openvla_act_hidden(const struct openvla_session *s, int i)
{
    return s->hidden + (size_t)i * (size_t)s->config.hidden;
}
