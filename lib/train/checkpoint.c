#include "train/checkpoint.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "nn/device/device.h"
#include "nn/models/openvla_adapter.h"
#include "nn/safetensors.h"
#include "train/trainer_device.h"

#define MASTERS "trunk.masters"
enum { SCALARS = 16, FORMAT = 1 };

static const char *const part_names[TRAIN_PARTS] = {"trunk", "value_head", "reward_head"};

/* Integers up to 2^53 are exact in a double; ids of stages and versions are far below. */
static void scalars_of(const struct trainer *t, double *ret)
{
    double x[SCALARS] = {
        FORMAT, (double)t->parts[TRAIN_TRUNK].adamw.step, (double)t->parts[TRAIN_VALUE].adamw.step,
        (double)t->parts[TRAIN_REWARD].adamw.step,
        t->returns.count, t->returns.mean, t->returns.m2, (double)t->skipped, (double)t->stage, (double)t->reference,
    };

    memcpy(ret, x, sizeof x);
}

int checkpoint_save(struct trainer *t, const char *dir, struct error *error)
{
    char path[4096], names[TRAIN_PARTS][2][32];
    double scalars[SCALARS];
    struct st_write tensors[2 + 2 * TRAIN_PARTS];
    int n = 0, r = trainer_fetch(t);

    if (r < 0)
        return error_set(error, -r, "%s: what was trained cannot be fetched from %s: %s", dir, t->params->device->name,
                         device_error_text(t->params->device, r));
    if (t->reward)
        r = t->reward->base ? qwen_vl_save_trained(t->reward, dir, error) : qwen_vl_save(t->reward, dir, NULL, error);
    else
        r = t->model->lora ? openvla_adapter_save(t->model, dir, error)
                           : openvla_save(t->model, dir, t->masters ? "BF16" : "F32", error);
    if (r < 0)
        return r;
    scalars_of(t, scalars);
    tensors[n++] = (struct st_write) {.name = "scalars", .dtype = DTYPE_F64, .ndim = 1, .dim = {SCALARS}, .raw = scalars};
    for (int i = 0; i < TRAIN_PARTS; i++) {
        const struct part *part = &t->parts[i];

        if (!part->n)
            continue;
        snprintf(names[i][0], sizeof names[i][0], "%s.m", part_names[i]);
        snprintf(names[i][1], sizeof names[i][1], "%s.v", part_names[i]);
        tensors[n++] = (struct st_write) {.name = names[i][0], .dtype = DTYPE_F32, .ndim = 1, .dim = {part->end - part->begin},
                                          .values = part->adamw.m};
        tensors[n++] = (struct st_write) {.name = names[i][1], .dtype = DTYPE_F32, .ndim = 1, .dim = {part->end - part->begin},
                                          .values = part->adamw.v};
    }
    if (t->masters)
        tensors[n++] = (struct st_write) {.name = MASTERS, .dtype = DTYPE_F32, .ndim = 1,
                                          .dim = {t->parts[TRAIN_TRUNK].end - t->parts[TRAIN_TRUNK].begin}, .values = t->masters};
    if (snprintf(path, sizeof path, "%s/" CHECKPOINT_STATE, dir) >= (int)sizeof path)
        return error_set(error, ENAMETOOLONG, "%s: path too long", dir);
    return safetensors_write(path, tensors, n, error);
}

/* The state of a part is wanted only if it was saved with the same size: heads come and go between stages. */
static int find_moments(const struct safetensors *file, const struct part *part, int which, const struct st_tensor *ret[2],
                        const char *path, struct error *error)
{
    static const char *const suffix[] = {"m", "v"};
    char name[32];

    for (int j = 0; j < 2; j++) {
        snprintf(name, sizeof name, "%s.%s", part_names[which], suffix[j]);
        ret[j] = part->n ? safetensors_find(file, name) : NULL;
        if (ret[j] && (ret[j]->dtype != DTYPE_F32 || ret[j]->numel != part->end - part->begin))
            return error_set(error, EBADMSG, "%s: %s has %lld numbers, the model's part has %lld", path, name,
                             (long long)ret[j]->numel, (long long)(part->end - part->begin));
    }
    return 0;
}

/* 1: there is none. */
static int open_state(const char *dir, char path[4096], struct safetensors **ret, double x[SCALARS], struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    const struct st_tensor *scalars;
    int r;

    if (snprintf(path, 4096, "%s/" CHECKPOINT_STATE, dir) >= 4096)
        return error_set(error, ENAMETOOLONG, "%s: path too long", dir);
    if (access(path, F_OK) < 0)
        return 1;
    r = safetensors_open(path, &file, error);
    if (r < 0)
        return r;
    scalars = safetensors_find(file, "scalars");
    if (!scalars || scalars->dtype != DTYPE_F64 || scalars->bytes != SCALARS * sizeof *x)
        return error_set(error, EBADMSG, "%s: the tensor `scalars` is missing or of another size", path);
    memcpy(x, scalars->data, SCALARS * sizeof *x);
    for (int i = 0; i < SCALARS; i++)
        if (!isfinite(x[i]))
            return error_set(error, EBADMSG, "%s: scalars[%d] is not a number", path, i);
    if (x[0] != FORMAT)
        return error_set(error, EBADMSG, "%s: format %g, this build reads %d", path, x[0], FORMAT);
    *ret = TAKE_PTR(file);
    return 0;
}

int checkpoint_reference(const char *dir, uint64_t stage, uint64_t *ret, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    double x[SCALARS];
    char path[4096];
    int r = open_state(dir, path, &file, x, error);

    if (r != 0)
        return r;
    if (x[8] != (double)stage)
        return 1;
    *ret = (uint64_t)x[9];
    return 0;
}

int checkpoint_load_state(struct trainer *t, const char *dir, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    const struct st_tensor *moments[TRAIN_PARTS][2], *masters;
    char path[4096];
    double x[SCALARS];
    int r = open_state(dir, path, &file, x, error);

    if (r != 0)
        return r;
    for (int i = 0; i < TRAIN_PARTS; i++) {
        r = find_moments(file, &t->parts[i], i, moments[i], path, error);
        if (r < 0)
            return r;
    }
    masters = t->masters ? safetensors_find(file, MASTERS) : NULL;
    if (t->masters && (!masters || masters->dtype != DTYPE_F32 ||
                       masters->numel != t->parts[TRAIN_TRUNK].end - t->parts[TRAIN_TRUNK].begin))
        return error_set(error, EBADMSG, "%s: the tensor " MASTERS " is missing or of another size: the version was not trained "
                         "with policy.weights: bf16", path);
    for (int i = 0; i < TRAIN_PARTS; i++)
        if (moments[i][0] && moments[i][1]) {
            trainer_device_renew(t->there, true, false);
            memcpy(t->parts[i].adamw.m, moments[i][0]->data, moments[i][0]->bytes);
            memcpy(t->parts[i].adamw.v, moments[i][1]->data, moments[i][1]->bytes);
            t->parts[i].adamw.step = (int64_t)x[1 + i];
        }
    t->returns = (struct running) {.count = x[4], .mean = x[5], .m2 = x[6]};
    t->skipped = (int64_t)x[7];
    t->stage = (uint64_t)x[8];
    t->reference = (uint64_t)x[9];
    if (!masters)
        return 0;
    memcpy(t->masters, masters->data, masters->bytes);
    r = trainer_masters_moved(t);
    return r < 0 ? error_set(error, -r, "%s: out of memory", path) : 0;
}
