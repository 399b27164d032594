/* openvla_oft_act.c - acting: one pass, then every slot of the chunk is answered at once. */
#include <errno.h>
#include <math.h>

#include "base/philox.h"
#include "nn/models/openvla_oft.h"
#include "nn/models/openvla_session.h"

/* Sequences of a pass: activations stay in a CPU's caches, a device wants many rows at once; any number gives the same bits. */
enum { HERE = 2, THERE = 16 };

struct context {
    const struct openvla *model;
    int first, n;
    bool full;
    struct tensor *hidden, *logits, *actions, *log_scale, *value;
};

static int act_pass(struct openvla_session *s, void *arg)
{
    struct context *c = arg;
    const struct openvla_config *config = &c->model->config;
    struct openvla_pass pass;
    struct tensor *answers;
    int r = openvla_forward_tail(c->model, &s->tape, s->items + c->first, c->n, &pass);

    if (r < 0)
        return r;
    c->logits = c->actions = c->log_scale = c->value = NULL;
    answers = oft_answers(c->model, &s->tape, &pass, c->n);
    c->hidden = op_gather(&s->tape, pass.hidden, pass.first, c->n);
    if (config->value_width && !config->value_inputs)
        c->value = openvla_value(c->model, &s->tape, c->hidden, NULL, true);
    if (config->oft.kind == OFT_TOKENS)
        c->logits = openvla_logits(c->model, &s->tape, answers, !c->full);
    else
        c->actions = oft_actions(c->model, &s->tape, answers);
    if (config->oft.kind == OFT_LAPLACE)
        c->log_scale = oft_log_scale(c->model, &s->tape, answers);
    return s->tape.error ? s->tape.error : c->logits || c->actions ? 0 : -EINVAL;
}

static float uniform_of(const struct oft_item *item, int slot)
{
    struct philox random = philox_at(item->seed, PHILOX_SAMPLE, item->episode, item->step, item->sample << 16 | (uint32_t)slot);

    return philox_uniform(&random);
}

static void answer_ids(const struct openvla_config *c, const struct oft_item *item, float *logits, int64_t cols, int slots,
                       struct oft_result *ret)
{
    int32_t first = item->full ? 0 : c->vocab - OPENVLA_ACTION_BINS;

    for (int i = 0; i < slots; i++) {
        float uniform = uniform_of(item, i), entropy;
        int32_t column;

        sample_rows(logits + i * cols, 1, cols, &item->temperature, &uniform, &column, &ret->logp[i], &entropy);
        ret->tokens[i] = first + column;
        ret->action[i] = openvla_decode(c, ret->tokens[i]);
        ret->entropy += entropy / (float)slots;
    }
}

static void answer_numbers(const struct oft_item *item, const float *middle, const float *log_scale, int slots,
                           struct oft_result *ret)
{
    float log_temperature = item->temperature > 0.0f ? (float)log((double)item->temperature) : 0.0f;

    for (int i = 0; i < slots; i++) {
        float x = middle[i];

        if (log_scale) {
            float scale = log_scale[i] + log_temperature;

            if (item->temperature > 0.0f)
                x = laplace_draw(uniform_of(item, i), x, scale);
            ret->logp[i] = laplace_logp(x, middle[i], scale);
            ret->entropy += laplace_entropy(scale) / (float)slots;
        }
        memcpy(&ret->tokens[i], &x, sizeof(x));
        ret->action[i] = (double)x;
    }
}

/* What a pass made, on the host. */
struct read { float *logits; const float *hidden, *actions, *log_scale, *value; };

static int read_results(struct openvla_session *s, const struct context *c, struct read *ret)
{
    struct tape *t = &s->tape;

    *ret = (struct read) {
        .hidden = tape_values(t, c->hidden),
        .logits = c->logits ? (float *)tape_values(t, c->logits) : NULL,        /* overwritten: nobody reads them again */
        .actions = c->actions ? tape_values(t, c->actions) : NULL,
        .log_scale = c->log_scale ? tape_values(t, c->log_scale) : NULL, .value = c->value ? tape_values(t, c->value) : NULL,
    };
    return t->error;
}

int oft_act(const struct openvla *model, struct openvla_session *s, const struct oft_item *items, int n,
            struct oft_result *results)
{
    const struct openvla_config *config = &model->config;
    struct context c = {.model = model};
    int slots = oft_slots(config), at_once, r;
    size_t width = (size_t)config->hidden;
    struct read read;

    if (n < 1 || n > s->max_batch || config->hidden != s->config.hidden || config->oft.kind == OFT_NONE || slots > OFT_MAX_SLOTS)
        return -EINVAL;
    for (int i = 0; i < n; i++) {
        s->items[i] = (struct openvla_item){.n_images = items[i].n_images,
                                            .prompt = items[i].prompt,
                                            .n_prompt = items[i].n_prompt,
                                            .slots = slots,
                                            .proprio = items[i].proprio};
        memcpy(s->items[i].images, items[i].images, sizeof(items[i].images));
    }
    r = session_attach(s, model);
    if (r < 0)
        return r;
    at_once = s->tape.on ? THERE : HERE;
    memset(results, 0, (size_t)n * sizeof(*results));
    for (c.first = 0; c.first < n; c.first += c.n) {
        c.full = items[c.first].full;
        for (c.n = 1; c.n < at_once && c.first + c.n < n && items[c.first + c.n].full == c.full;)
            c.n++;
        r = session_run(s, act_pass, &c);
        if (r < 0)
            return r;
        r = read_results(s, &c, &read);
        if (r < 0)
            return r;
        memcpy(s->hidden + (size_t)c.first * width, read.hidden, (size_t)c.n * width * sizeof *s->hidden);
        for (int i = 0; i < c.n; i++) {
            struct oft_result *result = &results[c.first + i];

            if (read.value)
                result->value = read.value[i];
            if (c.logits)
                answer_ids(config, &items[c.first + i], read.logits + (int64_t)i * slots * c.logits->cols, c.logits->cols, slots,
                           result);
            else
                answer_numbers(&items[c.first + i], read.actions + (int64_t)i * slots,
                               read.log_scale ? read.log_scale + (int64_t)i * slots : NULL, slots, result);
        }
    }
    return 0;
}
