/* openvla_synth.c - the sizes there are, and the weights of one, drawn piece by piece as the writer asks for them. */
#include "nn/models/openvla_synth.h"

#include <errno.h>

#include "nn/models/openvla_internal.h"

static const struct openvla_size sizes[] = {
    {"openvla-7b", "OpenVLA-7B's tensors: 982, 7,541,237,184 parameters, 15.08 GB in BF16", 224, 14,
     {{1024, 24, 16, 4096, 5}, {1152, 27, 16, 4304, 0}}, 4096, 32, 32, 11008, 32000, 29871},
    {"openvla-1b", "the same towers, 16 layers of hidden 2048: 1,690,365,824 parameters", 224, 14,
     {{1024, 24, 16, 4096, 5}, {1152, 27, 16, 4304, 0}}, 2048, 16, 16, 5504, 32000, 29871},
    {"tiny", "a few hundred thousand parameters, for tests", 64, 16,
     {{48, 2, 3, 192, 5}, {64, 3, 4, 239, 0}}, 64, 2, 4, 176, 1024, 600},
};

const struct openvla_size *openvla_size_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        if (!strcmp(name, sizes[i].name))
            return &sizes[i];
    return NULL;
}

const struct openvla_size *openvla_sizes(int *ret_n)
{
    *ret_n = ARRAY_SIZE(sizes);
    return sizes;
}

/* One tensor being drawn: its generator goes on from chunk to chunk. */
struct drawn { const struct param *param; uint8_t kind; uint64_t seed; struct openvla_init init; };

static int draw(void *context, int64_t first, int64_t n, float *ret)
{
    struct drawn *drawn = context;

    if (first == 0)
        openvla_init_begin(drawn->param, drawn->kind, drawn->seed, &drawn->init);
    openvla_init_next(&drawn->init, ret, n);
    return 0;
}

static int write_weights(const struct openvla *model, const char *dir, enum dtype dtype, uint64_t seed, int64_t shard_bytes,
                         struct openvla_synthesis *ret, struct error *error)
{
    int n = model->w->trunk;
    _cleanup_free_ struct st_write *list = calloc((size_t)n, sizeof(*list));
    _cleanup_free_ struct drawn *drawn = calloc((size_t)n, sizeof(*drawn));

    if (!list || !drawn)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < n; i++) {
        const struct param *param = model->params.list[i];

        drawn[i] = (struct drawn) {.param = param, .kind = model->w->init[i], .seed = seed};
        list[i] = (struct st_write){.name = param->name, .dtype = dtype, .ndim = param->ndim, .fill = draw, .context = &drawn[i]};
        memcpy(list[i].dim, param->dim, sizeof(param->dim));
        ret->parameters += param->numel;
        ret->bytes += (int64_t)st_write_bytes(&list[i]);
    }
    ret->tensors = n;
    return hf_weights_write(dir, list, n, shard_bytes, NULL, error);
}

int openvla_synth(const struct openvla_size *size, const char *dir, enum dtype dtype, uint64_t seed, int64_t shard_bytes,
                  struct openvla_synthesis *ret, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    struct openvla_synthesis done = {0};
    int r = openvla_synth_files(size, dir, dtype, error);

    if (r >= 0)
        r = openvla_plan(dir, &model, error);
    if (r >= 0)
        r = write_weights(model, dir, dtype, seed, shard_bytes, &done, error);
    if (r < 0)
        return r;
    *ret = done;
    return 0;
}
