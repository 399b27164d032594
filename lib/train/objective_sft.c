/* Supervised fine-tuning: at each frame, the K action ids and the end of the sequence, over the whole vocabulary. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "image/augment.h"
#include "train/objective.h"
#include "train/passes.h"
#include "train/sft_chunk.h"

struct sft_call {
    const struct openvla *model;
    const struct dataset *data;
    const struct step_ref *steps;       /* of this minibatch */
    int n;
    uint64_t augment_seed;      /* of the stage */
    int64_t number;             /* of the first sample of the minibatch in the stage; -1: pictures as they are */
    double loss[SHARDS];        /* parts of the minibatch's mean */
};

/* Each sample's pictures, changed by what its number and the camera's draw. (n, images); *ret NULL: as recorded. */
static int augment(struct tape *tape, const struct sft_call *call, int first, int n, const uint8_t *const **ret)
{
    const struct openvla_config *c = &call->model->config;
    int images = call->data->images;
    const uint8_t **pictures;
    uint8_t *bytes;
    int r = 0;

    *ret = NULL;
    if (call->number < 0)
        return 0;
    pictures = tape_alloc(tape, (size_t)(n * images) * sizeof *pictures);
    bytes = tape_alloc(tape, (size_t)(n * images) * call->data->frame_size);
    if (!pictures || !bytes)
        return tape->error;
    for (int i = 0; i < n * images && r >= 0; i++) {
        int sample = first + i / images, camera = i % images;
        struct philox random = philox_at(call->augment_seed, PHILOX_AUGMENT, (uint64_t)(call->number + sample), (uint32_t)camera,
                                         0);
        const uint8_t *picture = dataset_frame(call->data, call->steps[sample]) + (size_t)camera * call->data->frame_size;

        r = augment_picture(&augment_openvla, &random, picture, c->image_height, c->image_width,
                            bytes + (size_t)i * call->data->frame_size);
        pictures[i] = bytes + (size_t)i * call->data->frame_size;
    }
    *ret = pictures;
    return r;
}

static int chunk_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    struct sft_call *call = arg;
    const uint8_t *const *pictures;
    int64_t count = 0;
    double loss = 0;
    int r = augment(tape, call, first, last - first, &pictures);

    for (int i = 0; i < call->n; i++)
        count += sft_chunk_labels(call->data, call->steps[i]);
    if (r >= 0)
        r = sft_chunk(call->model, tape, call->data, call->steps + first, last - first, pictures, count, &loss);
    if (r < 0)
        return r;
    call->loss[shard] = loss;
    tape_backward(tape);
    return 0;
}

static int sft_shard(struct tape *tape, int shard, int first, int last, void *arg)
{
    struct sft_call *call = arg;
    int n = last - first, dims = call->data->action_dims, rows = dims + 1;
    struct openvla_item *items = tape_alloc(tape, (size_t)n * sizeof *items);
    int32_t *target = tape_alloc(tape, (size_t)(n * rows) * sizeof *target);
    struct openvla_pass pass;
    struct token_stats *stats;
    const uint8_t *const *pictures;
    double loss = 0;
    int r;

    if (!items || !target)
        return tape->error;
    r = augment(tape, call, first, n, &pictures);
    if (r < 0)
        return r;
    for (int i = 0; i < n; i++) {
        items[i] = dataset_policy_item(call->data, call->steps[first + i], dims);
        items[i].augmented = pictures != NULL;
        if (pictures)
            items[i].images[0] = pictures[i];
        for (int k = 0; k < rows; k++)
            target[i * rows + k] = k < dims ? items[i].actions[k] : call->model->config.eos_id;
    }
    r = openvla_forward_tail(call->model, tape, items, n, &pass);
    if (r < 0)
        return r;
    stats = op_token_stats(tape, openvla_logits(call->model, tape, gather_action_rows(tape, &pass, n, rows), false), target, 1,
                           NULL);
    if (!stats)
        return tape->error ? tape->error : -ENOMEM;
    for (int i = 0; i < n * rows; i++) {
        loss -= (double)stats->logp[i];
        stats->dlogp[i] = -1.0f / (float)(call->n * rows);
    }
    call->loss[shard] = loss / (call->n * rows);
    tape_backward(tape);
    return 0;
}

/* The minibatch of one step: consecutive pieces of a fresh permutation per pass over the frames. */
static void draw(const struct objective *objective, const struct step_ref *all, int n_all, int *order, int64_t *round,
                 int64_t step, int batch, struct step_ref *ret)
{
    for (int i = 0; i < batch; i++) {
        int64_t at = step * batch + i;

        if (at / n_all != *round) {
            *round = at / n_all;
            shuffled(order, n_all, objective->seed, objective->stage << 32 | (uint64_t)*round, 1);
        }
        ret[i] = all[order[at % n_all]];
    }
}

/* There is something to imitate, and this policy can. */
static int check_data(const struct dataset *data, int frames, int batch, struct error *error)
{
    if (!frames || batch < 1)
        return error_set(error, EINVAL, "there is nothing to imitate (0 frames); run a demos stage first");
    if (data->outside * 4 > data->labels)       /* of its own data 2 % are */
        return error_set(error, EINVAL,
                         "%.0f %% of the demonstrations' numbers lie outside what the policy's dataset_statistics.json says "
                         "of its data, so it could not act like them: it is of another data set; put the demonstrations' own into "
                         "policy.init",
                         100.0 * (double)data->outside / (double)data->labels);
    return 0;
}

int objective_sft(struct trainer *trainer, const struct dataset *data, const struct sft_config *config,
                  const struct objective *objective, struct sft_result *ret, struct error *error)
{
    _cleanup_free_ struct step_ref *all = NULL, *batch = NULL;
    _cleanup_free_ int *order = NULL;
    struct sft_result result = {.first_loss = NAN};
    bool one_pass = trainer->model->config.oft.kind != OFT_NONE;
    int n_all = 0, r;
    int64_t round = -1, first = (int64_t)objective->iteration * config->commit_every;
    int64_t end = config->commit_every > 0 ? MIN(first + config->commit_every, (int64_t)config->steps) : config->steps;

    r = dataset_steps(data, NULL, NULL, &all, &n_all);
    if (r < 0)
        return error_set(error, -r, "too many frames or no memory for them");
    r = check_data(data, n_all, config->batch, error);
    if (r < 0)
        return r;
    r = openvla_set_pictures(trainer->model, data->image_chain,
                             config->augment ? augment_openvla.area : trainer->model->config.center_crop, error);
    if (r < 0)
        return r;
    order = malloc((size_t)n_all * sizeof *order);
    batch = malloc((size_t)config->batch * sizeof *batch);
    if (!order || !batch)
        return error_set(error, ENOMEM, "out of memory");

    result.frames = n_all;
    if (!train_tell(objective->watch, "sft", first, config->steps, NAN))
        return error_set(error, ECANCELED, "stopped before update %lld", (long long)first);
    for (int64_t step = first; step < end; step++) {
        struct sft_call call = {.model = trainer->model, .data = data, .steps = batch, .n = config->batch,
                                .augment_seed = objective->seed * 0x9E3779B97F4A7C15u ^ objective->stage,
                                .number = config->augment ? step * config->batch : -1};
        struct update update = {
            .lr = lr_cosine(config->lr, config->lr_end, step, config->warmup, config->steps),
            .weight_decay = config->weight_decay, .clip = config->clip, .beta2 = config->beta2,
        };
        double loss = 0;

        draw(objective, all, n_all, order, &round, step, config->batch, batch);
        r = trainer_update(trainer, (enum trainer_part[]) {TRAIN_TRUNK}, &update, 1, config->batch,
                           one_pass ? chunk_shard : sft_shard, &call, &result.gradient_norm);
        if (r >= 0)
            r = shards_share(trainer->shards, call.loss, sizeof *call.loss);
        if (r < 0)
            return error_set(error, -r, "update %lld failed: %s", (long long)step, error_text(NULL, r));
        for (int i = 0; i < SHARDS; i++)
            loss += call.loss[i];
        result.updates++;
        result.first_loss = result.updates > 1 ? result.first_loss : loss;
        result.last_loss += (loss - result.last_loss) / (double)MIN(result.updates, 20);
        if (!train_tell(objective->watch, "sft", step + 1, config->steps, result.last_loss))
            return error_set(error, ECANCELED, "stopped at update %lld", (long long)step);
    }
    result.skipped = trainer->skipped;
    *ret = result;
    return 0;
}
