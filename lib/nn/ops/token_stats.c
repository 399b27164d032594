/* token_stats.c - log-probability, entropy and KL of tempered logits, and the way back to the logits. */
#include "nn/ops/op.h"

struct token_context {
    struct token_stats stats;           /* first: the caller holds a pointer to it */
    struct tensor *logits;
    const int32_t *target;
    const float *ref;
    float inverse_temperature;
    float *on_device;                   /* (3, rows): logp, entropy, kl there */
};

/* On a device the three statistics come back to the host; the log-probabilities stay (tape_read gets them). */
static void stats_on(struct tape *t, struct token_context *c)
{
    struct token_stats *s = &c->stats;
    const struct tensor *logits = c->logits;
    const float *ref = tape_send(t, c->ref, s->rows * logits->cols), *read;
    const int32_t *target = send_ints(t, c->target, s->rows);

    if (t->error || !target)
        return;
    ON(t, token_stats, type_of(t), s->log_probs, c->on_device, c->on_device + s->rows, c->on_device + 2 * s->rows, logits->x,
       target, ref, c->inverse_temperature, s->rows, logits->cols);
    read = tape_read(t, c->on_device, 3 * s->rows);
    if (read)
        memcpy(s->logp, read, (size_t)(3 * s->rows) * sizeof(*read));       /* logp, entropy and kl lie in a row */
}

static void token_stats_backward(struct tape *tape, void *context)
{
    const struct token_context *c = context;
    const struct token_stats *s = &c->stats;
    int64_t cols = c->logits->cols;
    float *dlogits = c->logits->wants ? tape_gradient(tape, c->logits) : NULL;

    if (tape->on) {
        const float *numbers = tape_send(tape, s->dlogp, 3 * s->rows), *ref = tape_send(tape, c->ref, s->rows * cols);
        const int32_t *target = send_ints(tape, c->target, s->rows);

        if (dlogits && numbers && target && !tape->error)
            ON(tape, token_stats_backward, type_of(tape), dlogits, s->log_probs, ref, target, numbers, c->on_device + s->rows,
               c->on_device + 2 * s->rows, c->inverse_temperature, s->rows, cols);
        return;
    }

    for (int64_t i = 0; dlogits && i < s->rows; i++) {
        float gradients[3] = {s->dlogp[i], s->dentropy[i], s->dkl[i]}, stats[2] = {s->entropy[i], s->kl[i]};

        if (gradients[0] == 0.0f && gradients[1] == 0.0f && gradients[2] == 0.0f)
            continue;
        cpu_kernels()->token_stats_backward(dlogits + i * cols, s->log_probs + i * cols, c->ref ? c->ref + i * cols : NULL, cols,
                                            c->target[i], stats, gradients, c->inverse_temperature);
    }
}

struct token_stats *op_token_stats(struct tape *t, struct tensor *logits, const int32_t *target, float temperature,
                                   const float *ref_logp)
{
    struct token_context *c;
    int32_t *kept;
    int64_t rows, cols;
    float *numbers;

    if (!logits)
        return NULL;
    rows = logits->rows;
    cols = logits->cols;
    if (!(temperature > 0.0f))
        return op_fail(t, -EINVAL);
    c = tape_alloc(t, sizeof(*c));
    kept = tape_alloc(t, (size_t)rows * sizeof(*kept));
    numbers = tape_alloc(t, (size_t)rows * 6 * sizeof(float));
    if (!c || !kept || !numbers)
        return NULL;
    memset(numbers, 0, (size_t)rows * 6 * sizeof(float));
    *c = (struct token_context) {
        .stats = {
            .rows = rows, .logp = numbers, .entropy = numbers + rows, .kl = numbers + 2 * rows, .dlogp = numbers + 3 * rows,
            .dentropy = numbers + 4 * rows, .dkl = numbers + 5 * rows, .log_probs = tape_numbers(t, rows * cols),
            .there = t->on != NULL,
        },
        .logits = logits, .target = kept, .ref = ref_logp, .inverse_temperature = 1.0f / temperature,
    };
    c->on_device = t->on ? tape_numbers(t, 3 * rows) : NULL;
    tape_record(t, NULL, token_stats_backward, c);
    if (t->error || t->planning)
        return t->error ? NULL : &c->stats;
    for (int64_t i = 0; i < rows; i++) {
        float *log_probs = c->stats.log_probs + i * cols;

        if (target[i] < 0 || target[i] >= cols)
            return op_fail(t, -EINVAL);
        kept[i] = target[i];
        if (t->on)
            continue;
        cpu_kernels()->log_softmax(log_probs, logits->x + i * cols, c->inverse_temperature, cols);
        cpu_kernels()->token_stats(log_probs, ref_logp ? ref_logp + i * cols : NULL, cols, &c->stats.entropy[i], &c->stats.kl[i]);
        c->stats.logp[i] = log_probs[target[i]];
    }
    if (t->on)
        stats_on(t, c);
    return t->error ? NULL : &c->stats;
}

const float *token_log_probs(struct tape *t, const struct token_stats *stats, int64_t cols)
{
    return stats->there ? tape_read(t, stats->log_probs, stats->rows * cols) : stats->log_probs;
}
