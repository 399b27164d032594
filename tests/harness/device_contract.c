#include "tests/harness/device_contract.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "nn/device/device.h"
#include "train/passes.h"

enum { MOST = 64, LEARNER_ROWS = 4 };

void contract_prompts_release(struct contract_prompt *prompts, int n)
{
    for (int i = 0; i < n; i++) {
        free(prompts[i].ids);
        prompts[i].ids = NULL;
    }
}

int contract_prompts(const struct openvla *model, const char *const *instructions, int n, struct contract_prompt *ret)
{
    int r = 0;

    for (int i = 0; i < n; i++)
        ret[i].ids = NULL;
    for (int i = 0; i < n && r >= 0; i++)
        r = openvla_prompt(model, instructions[i], &ret[i].ids, &ret[i].n);
    if (r < 0)
        contract_prompts_release(ret, n);
    return r;
}

struct asked {
    const struct openvla *model;
    const struct act_item *items;
    const struct act_result *results;
    float temperature;
    int first, n;               /* of this pass */
    const float *value;         /* on the host, until the next pass */
    const struct token_stats *stats;
};

static int learner_pass(struct tape *tape, void *arg)
{
    struct asked *a = arg;
    const struct openvla_config *c = &a->model->config;
    int dims = c->action_dims, r;
    struct openvla_item *items = tape_alloc(tape, (size_t)a->n * sizeof(*items));
    int32_t *target = tape_alloc(tape, (size_t)(a->n * dims) * sizeof(*target));
    struct openvla_pass pass;
    struct tensor *value;

    if (!items || !target)
        return tape->error;
    for (int i = 0; i < a->n; i++) {
        const struct act_item *item = &a->items[a->first + i];
        const struct act_result *result = &a->results[a->first + i];

        items[i] = (struct openvla_item) {.images = {item->images[0]}, .n_images = 1, .prompt = item->prompt,
                                          .n_prompt = item->n_prompt, .actions = result->tokens, .n_actions = dims - 1};
        for (int k = 0; k < dims; k++)
            target[i * dims + k] = result->tokens[k] - (c->vocab - OPENVLA_ACTION_BINS);
    }
    r = openvla_forward_tail(a->model, tape, items, a->n, &pass);
    if (r < 0)
        return r;
    a->stats = op_token_stats(tape, openvla_logits(a->model, tape, gather_action_rows(tape, &pass, a->n, dims), true), target,
                              a->temperature, NULL);
    value = openvla_value(a->model, tape, gather_action_rows(tape, &pass, a->n, 1), NULL, true);
    if (!a->stats || !value)
        return tape->error ? tape->error : -EINVAL;
    a->value = tape_values(tape, value);
    return tape->error;
}

static void compare(const struct asked *a, struct contract_gap *gap)
{
    int dims = a->model->config.action_dims;

    for (int i = 0; i < a->n; i++) {
        const struct act_result *result = &a->results[a->first + i];

        for (int k = 0; k < dims; k++) {
            double d = (double)a->stats->logp[i * dims + k] - (double)result->logp[k], ratio = exp(d);

            gap->mean += fabs(d);
            gap->most = isnan(d) ? INFINITY : fmax(gap->most, fabs(d));
            gap->ratio_mean += ratio;
            gap->ratio_most = fabs(ratio - 1) > fabs(gap->ratio_most - 1) ? ratio : gap->ratio_most;
            gap->entropy += (double)a->stats->entropy[i * dims + k];
            gap->tokens++;
        }
        gap->value = fmax(gap->value, fabs((double)a->value[i] - (double)result->value));
    }
}

static int learn(struct asked *a, int b, struct contract_gap *gap)
{
    struct tape tape;
    int r;

    tape_init(&tape, true);
    tape.recycle = true;
    r = tape_attach(&tape, &a->model->params);
    for (a->first = 0; a->first < b && r >= 0; a->first += a->n) {
        a->n = MIN(LEARNER_ROWS, b - a->first);
        r = tape_run(&tape, learner_pass, a);
        if (r >= 0)
            compare(a, gap);
    }
    tape_release(&tape);
    return r;
}

int device_contract_between(const struct openvla *actor, const struct openvla *model, struct openvla_session *session,
                            const struct contract_prompt *prompts,
                            int n_prompts, int b, float temperature, int round, struct contract_gap *ret)
{
    size_t bytes = (size_t)model->config.image_height * (size_t)model->config.image_width * 3;
    _cleanup_free_ uint8_t *pixels = malloc((size_t)b * bytes);
    _cleanup_free_ struct act_result *results = calloc((size_t)b, sizeof(*results));
    struct philox random = philox_at(11, PHILOX_TEST, (uint64_t)round, (uint32_t)b, 0);
    struct act_item items[MOST] = {0};
    struct contract_gap gap = {.ratio_most = 1};
    struct asked asked = {.model = model, .items = items, .results = results, .temperature = temperature};
    int r;

    if (b < 1 || b > MOST || !model->config.value_width || model->config.value_inputs)
        return -EINVAL;
    if (!pixels || !results)
        return -ENOMEM;
    for (size_t i = 0; i < (size_t)b * bytes; i++)
        pixels[i] = i % 64 ? pixels[i - 1] : (uint8_t)philox_u32(&random);
    for (int i = 0; i < b; i++)
        items[i] = (struct act_item) {.images = {pixels + (size_t)i * bytes}, .n_images = 1, .prompt = prompts[i % n_prompts].ids,
                                      .n_prompt = prompts[i % n_prompts].n, .temperature = temperature, .seed = 5,
                                      .episode = (uint64_t)i, .step = (uint32_t)round};
    r = openvla_act(actor, session, items, b, results);
    if (r >= 0)
        r = learn(&asked, b, &gap);
    if (r < 0)
        return r;
    gap.mean /= gap.tokens;
    gap.ratio_mean /= gap.tokens;
    gap.entropy /= gap.tokens;
    *ret = gap;
    return 0;
}

double contract_expected(const struct openvla_config *config, const struct contract_gap *gap)
{
    double spread = sqrt(2 * fmax(0, log(OPENVLA_ACTION_BINS) - gap->entropy));

    return .67 * .0037 * sqrt(config->layers) * spread;
}

int device_contract(const struct openvla *model, struct openvla_session *session, const struct contract_prompt *prompts,
                    int n_prompts, int b, float temperature, int round, struct contract_gap *ret)
{
    return device_contract_between(model, model, session, prompts, n_prompts, b, temperature, round, ret);
}
