/* ppo_reference.c - an iteration's reference numbers: recalled where they are known, asked for where not. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "train/policy_rows.h"
#include "train/ppo_batch.h"

size_t reference_floats(const struct dataset *data, enum kl_mode kl)
{
    if (kl == KL_NONE)
        return 0;
    return (size_t)data->width * (kl == KL_EXACT ? (size_t)policy_ref_width(data) : 1);
}

int reference_pass(const struct openvla *reference, bool plain, struct shards *shards, const struct dataset *data,
                   const struct step_ref *steps, int n, enum kl_mode kl, double temperature, float *ret)
{
    struct policy_pass out = {.plain = plain};

    if (kl == KL_EXACT)
        out.log_probs = ret;
    else
        out.logp = ret;
    return pass_policy(reference, shards, data, steps, n, temperature, &out);
}

/* Decisions of an episode follow one another in b->steps, all of them or none. */
static int decisions_from(const struct ppo_batch *b, int first)
{
    int end = first;

    while (end < b->n && b->steps[end].episode == b->steps[first].episode)
        end++;
    return end - first;
}

/* Fill in what is known; which[] gets the decisions that are not. */
static int recall(const struct ppo_batch *b, size_t floats, float *ret, int *which)
{
    const struct reference_recall *from = b->objective->recall;
    int n = 0;

    for (int i = 0, count; i < b->n; i += count) {
        count = decisions_from(b, i);
        if (from && from->take(from->arg, b->data->list[b->steps[i].episode].id, (size_t)count * floats,
                               ret + (size_t)i * floats))
            continue;
        for (int k = 0; k < count; k++)
            which[n++] = i + k;
    }
    return n;
}

static int ask(const struct ppo_batch *b, struct trainer *trainer, const struct openvla *reference, size_t floats,
               const int *which, int n, float *ret)
{
    _cleanup_free_ struct step_ref *steps = malloc((size_t)MAX(n, 1) * sizeof *steps);
    _cleanup_free_ float *apart = n < b->n ? malloc((size_t)MAX(n, 1) * floats * sizeof *apart) : NULL;
    float *to = n < b->n ? apart : ret;
    int r;

    if (!steps || !to)
        return -ENOMEM;
    for (int i = 0; i < n; i++)
        steps[i] = b->steps[which[i]];
    r = reference_pass(reference, reference == trainer->model, trainer->shards, b->data, steps, n, b->config->kl,
                       b->config->temperature, to);
    for (int i = 0; i < n && r >= 0 && to != ret; i++)
        memcpy(ret + (size_t)which[i] * floats, to + (size_t)i * floats, floats * sizeof *ret);
    return r;
}

int ppo_batch_reference(struct ppo_batch *b, struct trainer *trainer, const struct openvla *reference, struct error *error)
{
    size_t floats = reference_floats(b->data, b->config->kl);
    _cleanup_free_ int *which = malloc((size_t)MAX(b->n, 1) * sizeof *which);
    float *numbers;
    int n, r;

    if (b->config->kl == KL_NONE)
        return 0;
    if (!reference)
        return error_set(error, EINVAL, "there is no reference policy to keep near to");
    numbers = malloc((size_t)MAX(b->n, 1) * floats * sizeof *numbers);
    if (!which || !numbers) {
        free(numbers);
        return error_set(error, ENOMEM, "out of memory for the reference's log-probabilities");
    }
    *(b->config->kl == KL_EXACT ? &b->ref_log_probs : &b->ref_logp) = numbers;
    n = recall(b, floats, numbers, which);
    r = n ? ask(b, trainer, reference, floats, which, n, numbers) : 0;
    return r < 0 ? error_set(error, -r, "the reference's pass failed: %s", error_text(NULL, r)) : 0;
}
