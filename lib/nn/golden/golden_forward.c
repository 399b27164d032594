/* golden_forward.c - every intermediate of the forward pass, greedy generation with the cache, log-probabilities. */
#include <errno.h>
#include <math.h>

#include "nn/golden/golden_internal.h"

struct forward { struct golden *g; struct openvla_item *item; int n; struct openvla_pass pass; struct tensor *logits; };

static int forward_pass(struct tape *tape, void *arg)
{
    struct forward *f = arg;
    int r = openvla_forward(f->g->model, tape, f->item, f->n, &f->pass);

    if (r < 0)
        return r;
    f->logits = openvla_logits(f->g->model, tape, f->pass.hidden, false);
    return f->logits ? 0 : tape->error;
}

/* x as the host sees it: itself, or what it is on its device. */
static struct tensor on_host(struct tape *tape, const struct tensor *x)
{
    struct tensor copy = *x;

    copy.x = (float *)(uintptr_t)tape_values(tape, x);
    return copy;
}

/* Rows of x from the file's first position on. */
static int compare_from(struct golden *g, int sample, const char *what, struct tape *tape, const struct tensor *there)
{
    const struct tensor here = on_host(tape, there), *x = &here;
    char name[64], file[32];
    int64_t first;

    snprintf(file, sizeof(file), "forward_%s", g->dtype);
    snprintf(name, sizeof(name), "s%d.%s", sample, what);
    if (!golden_has(g, file, name) && strcmp(g->dtype, "fp32"))
        return 0;               /* only some are kept; what the manifest has and nothing looked at is a failure in the end */
    if (!x->x)
        return error_set(g->error, -tape->error, "%s: cannot be fetched from its device", name);
    first = json_integer_value(json_object_get(golden_entry(g, file, name), "first_position"));
    return golden_compare(g, file, name, x->x + first * x->cols, (x->rows - first) * x->cols);
}

/* Log-sum-exp and every 37th logit at every position. */
static int compare_all_positions(struct golden *g, int sample, struct tape *tape, const struct tensor *there)
{
    const struct tensor here = on_host(tape, there), *logits = &here;
    int64_t kept = (logits->cols + 36) / 37;
    _cleanup_free_ float *lse = calloc((size_t)logits->rows, sizeof(*lse)),
                         *some = calloc((size_t)(logits->rows * kept), sizeof(*some));
    char name[64];
    int r;

    if (!lse || !some || !logits->x)
        return error_set(g->error, ENOMEM, "out of memory");
    for (int64_t i = 0; i < logits->rows; i++) {
        const float *row = logits->x + i * logits->cols;
        double sum = 0, max = (double)row[0];

        for (int64_t c = 0; c < logits->cols; c++)
            max = fmax(max, (double)row[c]);
        for (int64_t c = 0; c < logits->cols; c++)
            sum += exp((double)row[c] - max);
        lse[i] = (float)(max + log(sum));
        for (int64_t k = 0; k < kept; k++)
            some[i * kept + k] = row[k * 37];
    }
    snprintf(name, sizeof(name), "s%d.logits_lse", sample);
    r = golden_compare(g, "forward_fp32", name, lse, logits->rows);
    snprintf(name, sizeof(name), "s%d.logits_s37", sample);
    return r < 0 ? r : golden_compare(g, "forward_fp32", name, some, logits->rows * kept);
}

int golden_check_forward(struct golden *g)
{
    static const char *const groups[] = {"dino", "siglip", "projector", "hidden", "final_norm", "logits"};
    struct openvla_item items[GOLDEN_SAMPLES];
    struct forward run[GOLDEN_SAMPLES];
    struct tape tape[GOLDEN_SAMPLES];
    int r = 0;

    golden_items(g, items);
    for (int s = 0; s < GOLDEN_SAMPLES; s++) {
        tape_init(&tape[s], false);
        run[s] = (struct forward) {.g = g, .item = &items[s], .n = 1};
        if (r >= 0)
            r = tape_attach(&tape[s], &g->model->params);
        if (r >= 0)
            r = tape_run(&tape[s], forward_pass, &run[s]);
    }
    for (size_t group = 0; group < ARRAY_SIZE(groups) && r >= 0; group++) {
        golden_begin(g);
        for (int s = 0; s < GOLDEN_SAMPLES && r >= 0; s++) {
            const struct openvla_pass *p = &run[s].pass;
            const struct tensor *single[] = {p->dino, p->siglip, p->projector, NULL, p->hidden, run[s].logits};

            for (int k = 0; group == 3 && k <= g->model->config.layers && r >= 0; k++) {
                char name[32];

                snprintf(name, sizeof(name), "hidden.%d", k);
                r = compare_from(g, s, name, &tape[s], p->layer[k]);
            }
            if (group != 3)
                r = compare_from(g, s, groups[group], &tape[s], single[group]);
            if (group == 5 && r >= 0 && !strcmp(g->dtype, "fp32"))
                r = compare_all_positions(g, s, &tape[s], run[s].logits);
        }
        golden_end(g, groups[group]);
    }
    for (int s = 0; s < GOLDEN_SAMPLES; s++)
        tape_release(&tape[s]);
    return r;
}

/* ---- generation ------------------------------------------------------------------------------------------ */

/* Highest logit (the first of equals) and its distance to the second best. */
static int32_t best(const float *row, int64_t n, float *ret_margin)
{
    int64_t at = 0;
    float second = -INFINITY;

    for (int64_t i = 1; i < n; i++)
        if (row[i] > row[at])
            at = i;
    for (int64_t i = 0; i < n; i++)
        second = i != at && row[i] > second ? row[i] : second;
    *ret_margin = row[at] - second;
    return (int32_t)at;
}

/* Un-normalised under dataset_statistics.json and under config.json's own, which it replaces. */
static int compare_actions(struct golden *g, const int32_t ids[GOLDEN_SAMPLES][GOLDEN_TOKENS])
{
    double normalised[GOLDEN_SAMPLES][GOLDEN_TOKENS], actions[GOLDEN_SAMPLES][GOLDEN_TOKENS],
        base_actions[GOLDEN_SAMPLES][GOLDEN_TOKENS];
    const struct action_stats *stats = openvla_stats(g->model, "synth_pick");
    _cleanup_json_ json_t *config = NULL;
    struct action_stats *base = NULL;
    int n_base = 0, r;
    char name[64];

    r = hf_json(g->model->dir, "config.json", &config, g->error);
    if (r >= 0)
        r = openvla_read_stats(json_object_get(config, "norm_stats"), &base, &n_base, g->error);
    if (r < 0)
        return r;
    golden_expect(g, !openvla_stats(g->model, "synth_base") && n_base == 1, "dataset_statistics.json replaces norm_stats");
    for (int s = 0; s < GOLDEN_SAMPLES && stats && n_base == 1; s++) {
        for (int t = 0; t < GOLDEN_TOKENS; t++)
            normalised[s][t] = openvla_decode(&g->model->config, ids[s][t]);
        openvla_unnormalise(stats, normalised[s], actions[s]);
        openvla_unnormalise(base, normalised[s], base_actions[s]);
    }
    openvla_free_stats(base, n_base);
    if (!stats || n_base != 1)
        return error_set(g->error, EINVAL, "%s: no statistics synth_pick and synth_base", g->model->dir);
    r = golden_compare_double(g, "generate", golden_name(g, "normalized", name), &normalised[0][0],
                                  (int64_t)GOLDEN_SAMPLES * GOLDEN_TOKENS);
    if (r >= 0)
        r = golden_compare_double(g, "generate", golden_name(g, "actions", name), &actions[0][0],
                                  (int64_t)GOLDEN_SAMPLES * GOLDEN_TOKENS);
    return r < 0 ? r
                 : golden_compare_double(g, "generate", golden_name(g, "actions_base", name), &base_actions[0][0],
                                         (int64_t)GOLDEN_SAMPLES * GOLDEN_TOKENS);
}

/* Greedy over the whole vocabulary, all samples in one batch. step_logits: [sample][token][vocab]. */
static int generate(struct golden *g, struct openvla_session *session, const struct act_item *items,
                    int32_t ids[GOLDEN_SAMPLES][GOLDEN_TOKENS], float margin[GOLDEN_SAMPLES][GOLDEN_TOKENS], float *step_logits)
{
    int64_t vocab = g->model->config.vocab_padded;
    struct act_pass pass;
    int32_t next[GOLDEN_SAMPLES];
    int r;

    for (int t = 0; t < GOLDEN_TOKENS; t++) {
        r = t == 0 ? openvla_prefill(g->model, session, items, GOLDEN_SAMPLES, false, &pass)
                   : openvla_step(g->model, session, next, false, &pass);
        if (r < 0)
            return r;
        for (int s = 0; s < GOLDEN_SAMPLES; s++) {
            const float *row = pass.logits->x + s * vocab;

            memcpy(step_logits + (s * GOLDEN_TOKENS + t) * vocab, row, (size_t)vocab * sizeof(*row));
            ids[s][t] = best(row, vocab, &margin[s][t]);
            next[s] = ids[s][t] = golden_undecided(g, "generate", "ids", "margin", s * GOLDEN_TOKENS + t, ids[s][t]);
        }
    }
    return 0;
}

int golden_check_generate(struct golden *g)
{
    int64_t vocab = g->model->config.vocab_padded, n = (int64_t)GOLDEN_SAMPLES * GOLDEN_TOKENS;
    _cleanup_(openvla_session_freep) struct openvla_session *session = NULL;
    _cleanup_free_ float *step_logits = calloc((size_t)(n * vocab), sizeof(*step_logits));
    struct act_item items[GOLDEN_SAMPLES];
    struct act_result results[GOLDEN_SAMPLES];
    int32_t ids[GOLDEN_SAMPLES][GOLDEN_TOKENS];
    float margin[GOLDEN_SAMPLES][GOLDEN_TOKENS];
    char name[64];
    int r;

    golden_begin(g);
    if (!step_logits || openvla_session_new(&g->model->config, GOLDEN_SAMPLES, &session) < 0)
        return error_set(g->error, ENOMEM, "out of memory");
    for (int s = 0; s < GOLDEN_SAMPLES; s++)
        items[s] = (struct act_item) {.images = {g->image[s]}, .n_images = 1, .prompt = g->prompt[s], .n_prompt = g->n_prompt[s]};
    r = generate(g, session, items, ids, margin, step_logits);
    if (r >= 0)
        r = golden_compare_int(g, "generate", golden_name(g, "ids", name), &ids[0][0], n);
    if (r >= 0)
        r = golden_compare_margin(g, "generate", golden_name(g, "margin", name), &margin[0][0], n);
    if (r >= 0)
        r = golden_compare(g, "generate", golden_name(g, "step_logits", name), step_logits, n * vocab);
    if (r >= 0)
        r = compare_actions(g, ids);
    if (r >= 0)
        r = openvla_act(g->model, session, items, GOLDEN_SAMPLES, results);     /* temperature 0: over the 256 action ids */
    for (int s = 0; s < GOLDEN_SAMPLES && r >= 0 && !strcmp(g->dtype, "fp32"); s++)
        golden_expect(g, !memcmp(results[s].tokens, ids[s], sizeof(ids[s])), "openvla_act, greedy");
    golden_end(g, "generate");
    return r;
}

/* ---- log-probabilities --------------------------------------------------------------------------------------- */

struct logprobs {
    struct golden *g;
    float temperature;
    struct token_stats *full, *act, *eos;
};

static int logprobs_pass(struct tape *tape, void *arg)
{
    struct logprobs *l = arg;
    const struct openvla *model = l->g->model;
    int32_t rows[GOLDEN_SAMPLES * GOLDEN_TOKENS], full[ARRAY_SIZE(rows)], act[ARRAY_SIZE(rows)], eos_row[GOLDEN_SAMPLES],
        eos[GOLDEN_SAMPLES];
    struct openvla_item items[GOLDEN_SAMPLES];
    struct openvla_pass pass;
    struct tensor *hidden, *last;
    int r;

    golden_items(l->g, items);
    r = openvla_forward(model, tape, items, GOLDEN_SAMPLES, &pass);
    if (r < 0)
        return r;
    for (int s = 0; s < GOLDEN_SAMPLES; s++) {
        for (int t = 0; t < GOLDEN_TOKENS; t++) {
            rows[s * GOLDEN_TOKENS + t] = pass.first[s] + t;
            full[s * GOLDEN_TOKENS + t] = l->g->actions[s][t];
            act[s * GOLDEN_TOKENS + t] = l->g->actions[s][t] - (model->config.vocab - OPENVLA_ACTION_BINS);
        }
        eos_row[s] = pass.first[s] + GOLDEN_TOKENS;
        eos[s] = model->config.eos_id;
    }
    hidden = op_gather(tape, pass.hidden, rows, ARRAY_SIZE(rows));
    last = op_gather(tape, pass.hidden, eos_row, GOLDEN_SAMPLES);
    l->full = op_token_stats(tape, openvla_logits(model, tape, hidden, false), full, l->temperature, NULL);
    l->act = op_token_stats(tape, openvla_logits(model, tape, hidden, true), act, l->temperature, NULL);
    l->eos = op_token_stats(tape, openvla_logits(model, tape, last, false), eos, l->temperature, NULL);
    return tape->error;
}

int golden_check_logprobs(struct golden *g)
{
    static const struct { float value; const char *text; } temperatures[] = {{1.0f, "1.0"}, {1.5f, "1.5"}};
    const int64_t n = (int64_t)GOLDEN_SAMPLES * GOLDEN_TOKENS;
    int r = 0;

    golden_begin(g);
    for (size_t i = 0; i < ARRAY_SIZE(temperatures) && r >= 0; i++) {
        struct logprobs l = {.g = g, .temperature = temperatures[i].value};
        struct tape tape;

        tape_init(&tape, false);
        r = tape_run(&tape, logprobs_pass, &l);
        if (r >= 0) {
            const struct { const char *name; const float *x; int64_t n; } all[] = {
                {"logp_full", l.full->logp, n}, {"entropy_full", l.full->entropy, n}, {"logp_act", l.act->logp, n},
                {"entropy_act", l.act->entropy, n}, {"logp_eos", l.eos->logp, GOLDEN_SAMPLES},
            };

            for (size_t k = 0; k < ARRAY_SIZE(all) && r >= 0; k++) {
                char name[64];

                snprintf(name, sizeof(name), "%s.%s_T%s", g->dtype, all[k].name, temperatures[i].text);
                r = golden_compare(g, "logprobs", name, all[k].x, all[k].n);
            }
        }
        tape_release(&tape);
    }
    golden_end(g, "logprobs");
    return r;
}
