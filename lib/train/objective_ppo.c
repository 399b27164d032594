/* Proximal policy optimisation: minibatches of steps, a clipped ratio per action, KL to where the stage began. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/losses.h"
#include "train/policy_rows.h"
#include "train/ppo_batch.h"

enum { WARMUP_EPOCHS = 3 };     /* a critic that knows nothing yet gets this many times value_epochs */

struct ppo_call {
    const struct ppo_batch *batch;
    const struct openvla *model;
    const int *order; int n;    /* steps of this minibatch */
    bool joint;                 /* the value loss reaches the trunk: computed in the same pass */
    struct ppo_sums sums[SHARDS];
    float *logp;                /* [SHARDS][logp_room] log-probs per token, wanted of the first update; else NULL. Each shard's
                                 * samples in its own room */
    int logp_room;
};

/* What the losses of one shard read and write, in tape memory. An entry is what has a ratio: an action, or one token of a
 * chunk. */
struct shard_arrays {
    struct step_ref *steps;     /* (n) */
    float *ref;                 /* (n*width, policy_ref_width) exact, (n*width) k1, k2, k3 */
    double *logp, *logp_old, *advantage, *importance, *dlogp;   /* (entries) */
    double *dtoken;             /* (n*width) */
};

static int shard_arrays(struct tape *tape, const struct ppo_call *call, int first, int n, struct shard_arrays *ret)
{
    const struct ppo_batch *b = call->batch;
    size_t per_token = b->ref_log_probs ? (size_t)policy_ref_width(b->data) : 1;
    size_t width = (size_t)b->data->width, tokens = (size_t)n * width, entries = (size_t)(n * b->ratios);
    const float *reference = b->ref_log_probs ? b->ref_log_probs : b->ref_logp;
    struct shard_arrays a = {
        .steps = tape_alloc(tape, (size_t)n * sizeof *a.steps), .ref = tape_alloc(tape, tokens * per_token * sizeof *a.ref),
        .logp = tape_alloc(tape, entries * 5 * sizeof *a.logp), .dtoken = tape_alloc(tape, tokens * sizeof *a.dtoken),
    };

    if (!a.steps || !a.ref || !a.logp || !a.dtoken)
        return tape->error;
    a.logp_old = a.logp + entries;
    a.advantage = a.logp + 2 * entries;
    a.importance = a.logp + 3 * entries;
    a.dlogp = a.logp + 4 * entries;
    memset(a.dtoken, 0, tokens * sizeof *a.dtoken);
    for (int i = 0; i < n; i++) {
        int at = call->order[first + i];

        a.steps[i] = b->steps[at];
        if (reference)
            memcpy(a.ref + (size_t)i * width * per_token, reference + (size_t)at * width * per_token,
                   width * per_token * sizeof *a.ref);
    }
    *ret = a;
    return 0;
}

/* One ratio per action: its tokens' log-probs are summed. */
static int action_entries(const struct ppo_call *call, const struct policy_rows *rows, int first, int n, struct shard_arrays *a)
{
    const struct ppo_batch *b = call->batch;

    for (int i = 0; i < n; i++) {
        int at = call->order[first + i];

        a->logp[i] = 0;
        for (int k = 0; k < rows->count[i]; k++)
            a->logp[i] += (double)rows->stats->logp[i * rows->width + k];
        a->logp_old[i] = b->logp_old[at];
        a->advantage[i] = b->advantage[at];
        a->importance[i] = b->importance[at];
    }
    return n;
}

/* One ratio per recorded token; a decision's tokens share its weight. */
static int token_entries(const struct ppo_call *call, const struct policy_rows *rows, int first, int n, struct shard_arrays *a)
{
    const struct ppo_batch *b = call->batch;
    int entries = 0;

    for (int i = 0; i < n; i++) {
        int at = call->order[first + i];

        for (int k = 0; k < rows->count[i]; k++, entries++) {
            a->logp[entries] = (double)rows->stats->logp[i * rows->width + k];
            a->logp_old[entries] = b->logp_old[at * b->ratios + k];
            a->advantage[entries] = b->advantage[at];
            a->importance[entries] = b->importance[at * b->ratios + k] / rows->count[i];
        }
    }
    return entries;
}

/* All policy losses of a shard: gradients into stats, sums into the shard's record. */
static void policy_losses(const struct ppo_call *call, struct shard_arrays *a, const struct policy_rows *rows, int first, int n,
                          struct ppo_sums *sums)
{
    const struct ppo_batch *b = call->batch;
    const struct rl_config *config = b->config;
    struct ppo_clip clip = {.low = config->clip_low, .high = config->clip_high, .dual = config->clip_dual};
    struct token_stats *stats = rows->stats;
    int entries = b->by_token ? token_entries(call, rows, first, n, a) : action_entries(call, rows, first, n, a), entry = 0;

    ppo_policy_loss(&clip, a->logp, a->logp_old, a->advantage, a->importance, entries, call->n, a->dlogp, sums);
    for (int i = 0; i < n; i++) {
        /* Where a decision's tokens are averaged, its divergence and its entropy are, too: a chunk would be held to the reference
         * as many times harder as it has tokens. */
        int at = i * rows->width, over = b->by_token ? rows->count[i] : 1;
        double kl_coef = config->kl_coef / over, entropy_coef = config->entropy_coef / over;

        if (b->ref_logp)
            kl_loss(config->kl, stats->logp + at, a->ref + at, rows->count[i], call->n, kl_coef, a->dtoken + at, sums);
        for (int k = 0; k < rows->count[i]; k++) {
            stats->dlogp[at + k] = (float)(a->dlogp[b->by_token ? entry++ : i] + a->dtoken[at + k]);
            stats->dentropy[at + k] = (float)(-entropy_coef / call->n);
            sums->entropy += (double)stats->entropy[at + k];
            sums->entropy_loss -= entropy_coef * (double)stats->entropy[at + k] / call->n;
            if (!b->ref_log_probs)
                continue;
            stats->dkl[at + k] = (float)(kl_coef / call->n);
            sums->kl_loss += kl_coef * (double)stats->kl[at + k] / call->n;
            sums->ref_kl += (double)stats->kl[at + k];
        }
        sums->tokens += rows->count[i];
        sums->decisions++;
    }
}

static int ppo_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    struct ppo_call *call = arg;
    const struct ppo_batch *b = call->batch;
    int n = last - first, r;
    struct shard_arrays a = {0};
    struct policy_rows rows;

    call->sums[shard] = (struct ppo_sums) {0};
    r = shard_arrays(tape, call, first, n, &a);
    if (r >= 0)
        r = policy_rows(call->model, tape, b->data, a.steps, n, true, (float)b->config->temperature,
                        b->ref_log_probs ? a.ref : NULL, &rows);
    if (r < 0)
        return r;
    for (int i = first; i < last && call->logp; i++) {
        int of = shard_with(call->n, i);

        memcpy(call->logp + of * call->logp_room + (i - shard_begin(call->n, of)) * rows.width,
               rows.stats->logp + (i - first) * rows.width, (size_t)rows.width * sizeof(float));
    }
    policy_losses(call, &a, &rows, first, n, &call->sums[shard]);
    if (call->joint) {
        struct tensor *hidden = gather_action_rows(tape, &rows.pass, n, 1);

        r = ppo_value_loss(b, call->model, tape, hidden, call->order + first, n, call->n, &call->sums[shard]);
        if (r < 0)
            return r;
    }
    tape_backward(tape);
    return 0;
}

/* Divergence is told and braked per action, also where the ratios are of tokens. */
static double actions_of(const struct ppo_batch *b, const struct ppo_sums *sums)
{
    return (double)MAX(sums->tokens, 1) / b->data->token_dims;
}

/* The running means that a result reports, over the minibatches so far. */
static void report(struct ppo_result *ret, const struct ppo_batch *b, const struct ppo_sums *total, double norm, double lr)
{
    double steps = (double)MAX(total->steps, 1), tokens = (double)MAX(total->tokens, 1), count = (double)MAX(ret->updates, 1);
    double decisions = (double)MAX(total->decisions, 1);

    ret->policy_loss = total->policy_loss / count;
    ret->kl_loss = total->kl_loss / count;
    ret->ratio_mean = total->ratio / steps;
    ret->ratio_max = total->ratio_max;
    ret->clip_fraction = (double)total->clipped / steps;
    ret->approx_kl = total->approx_kl / actions_of(b, total);
    ret->ref_kl = total->ref_kl / actions_of(b, total);
    ret->importance_mean = total->importance / decisions;
    ret->entropy = total->entropy / tokens;
    ret->loss = ret->policy_loss + ret->kl_loss + total->entropy_loss / count;
    ret->gradient_norm += (norm - ret->gradient_norm) / count;
    ret->lr = lr;
}

static int update_once(struct trainer *trainer, struct ppo_call *call, const struct rl_config *config, double *ret_norm,
                       double *ret_lr)
{
    int64_t step = trainer->parts[TRAIN_TRUNK].adamw.step;
    double lr = config->lr * (step < config->lr_ramp ? (double)(step + 1) / config->lr_ramp : 1), norm[2] = {0};
    struct update update[] = {
        {.lr = lr, .weight_decay = config->weight_decay, .clip = config->clip, .beta2 = config->beta2},
        {.lr = config->value_lr, .clip = config->clip},
    };
    int r = trainer_update(trainer, (enum trainer_part[]) {TRAIN_TRUNK, TRAIN_VALUE}, update, call->joint ? 2 : 1, call->n,
                           ppo_shard, call, norm);

    if (r >= 0)
        r = shards_share(trainer->shards, call->sums, sizeof *call->sums);
    *ret_norm = norm[0];
    *ret_lr = lr;
    return r;
}

/* The first update runs the policy as it was when it acted: its log-probs are held against the actor's. */
static int first_update(struct trainer *trainer, struct ppo_batch *b, struct ppo_call *call, double *ret_norm, double *ret_lr)
{
    int r;
    _cleanup_free_ float *logp = NULL;

    call->logp_room = (call->n + SHARDS - 1) / SHARDS * b->data->width;
    logp = call->logp = calloc((size_t)(SHARDS * call->logp_room), sizeof *logp);
    if (!logp)
        return -ENOMEM;
    r = update_once(trainer, call, b->config, ret_norm, ret_lr);
    if (r >= 0)
        r = shards_share(trainer->shards, logp, (size_t)call->logp_room * sizeof *logp);
    for (int s = 0; s < SHARDS && r >= 0; s++) {
        int first = shard_begin(call->n, s);

        ppo_batch_compare(b, call->order + first, shard_begin(call->n, s + 1) - first, logp + s * call->logp_room);
    }
    call->logp = NULL;
    return r;
}

static int policy_epochs(struct trainer *trainer, struct ppo_batch *b, struct ppo_result *ret, struct error *error)
{
    const struct objective *objective = b->objective;
    const struct rl_config *config = b->config;
    _cleanup_free_ int *order = malloc((size_t)MAX(b->n, 1) * sizeof *order);
    int count = minibatches(b->n, config->minibatch);
    struct kl_brake brake = {0};
    struct ppo_sums total = {0};

    if (!order)
        return error_set(error, ENOMEM, "out of memory");
    if (!train_tell(objective->watch, "rl", 0, (int64_t)count * config->epochs, NAN))
        return error_set(error, ECANCELED, "stopped before its first update");
    for (int epoch = 0; epoch < config->epochs && !ret->braked && b->n; epoch++) {
        shuffled(order, b->n, objective->seed, objective->stage << 32 | objective->iteration, (uint32_t)epoch + 10);
        for (int i = 0; i < count && !ret->braked; i++) {
            int first = minibatch_at(b->n, count, i), n = minibatch_at(b->n, count, i + 1) - first, r;
            struct ppo_call call = {.batch = b, .model = trainer->model, .order = order + first, .n = n,
                                    .joint = b->critic && !config->value_detach};
            struct ppo_sums here = {0};
            double norm, lr;

            if (config->max_updates > 0 && ret->updates >= config->max_updates)
                return 0;
            r = ret->updates || b->n_gap ? update_once(trainer, &call, config, &norm, &lr)
                                         : first_update(trainer, b, &call, &norm, &lr);
            if (r < 0)
                return error_set(error, -r, "update %" PRId64 " failed: %s", ret->updates, error_text(NULL, r));
            for (int s = 0; s < SHARDS; s++)
                ppo_sums_add(&here, &call.sums[s]);
            ppo_sums_add(&total, &here);
            ret->updates++;
            report(ret, b, &total, norm, lr);
            if (call.joint)
                ret->value_loss = here.value_loss;
            ret->braked = kl_brake_push(&brake, here.approx_kl / actions_of(b, &here), config->target_kl);
            if (!train_tell(objective->watch, "rl", ret->updates, (int64_t)count * config->epochs, here.policy_loss))
                return error_set(error, ECANCELED, "stopped at update %" PRId64, ret->updates);
        }
    }
    return 0;
}

int objective_ppo(struct trainer *trainer, const struct openvla *reference, const struct dataset *data,
                  const struct rl_config *config, const struct objective *objective, struct ppo_result *ret, struct error *error)
{
    _cleanup_(ppo_batch_freep) struct ppo_batch *b = NULL;
    struct ppo_result result = {.warmup = (int64_t)objective->iteration < config->critic_warmup};
    int r;

    r = ppo_batch_new(data, config, objective, &b, error);
    if (r < 0)
        return r;
    if (b->critic && (!trainer->parts[TRAIN_VALUE].n || trainer->model->config.value_inputs != b->n_extra))
        return error_set(error, EINVAL, "the model's value head takes %d extra inputs, the settings ask for %d",
                         trainer->model->config.value_inputs, b->n_extra);
    result.warmup = result.warmup && b->critic;
    r = ppo_batch_observe(b, trainer, result.warmup, error);
    if (r >= 0 && config->kl == KL_K1_REWARD)
        r = ppo_batch_reference(b, trainer, reference, error);
    if (r >= 0)
        r = ppo_batch_advantages(b, trainer, &result, error);
    if (r >= 0 && b->critic && (config->value_detach || result.warmup))
        r = ppo_batch_critic(b, trainer, config->value_epochs * (result.warmup ? WARMUP_EPOCHS : 1), &result, error);
    if (r >= 0 && !result.warmup && config->kl != KL_K1_REWARD)
        r = ppo_batch_reference(b, trainer, reference, error);
    if (r >= 0 && !result.warmup)
        r = policy_epochs(trainer, b, &result, error);
    if (r < 0)
        return r;
    ppo_batch_gap(b, &result);
    if (config->kl == KL_K1_REWARD)
        result.ref_kl = b->kl_taken;
    result.loss += result.value_loss;
    result.skipped = trainer->skipped;
    *ret = result;
    return 0;
}
