#include "nn/param.h"

#include <errno.h>
#include <string.h>

#include "nn/cpu/kernels.h"
#include "nn/device/mirror.h"
#include "nn/gemm_pack.h"
#include "nn/lora_join.h"

static int64_t padded(int64_t numel, int64_t multiple)
{
    return (numel + multiple - 1) / multiple * multiple;
}

struct param *param_add(struct params *params, const char *name, int ndim, const int64_t *dim, bool linear)
{
    struct param **list, *param;

    if (param_find(params, name))
        return NULL;
    list = realloc(params->list, (size_t)(params->count + 1) * sizeof(*list));
    if (!list)
        return NULL;
    params->list = list;
    param = calloc(1, sizeof(*param));
    if (!param)
        return NULL;
    param->name = strdup(name);
    if (!param->name) {
        free(param);
        return NULL;
    }
    param->ndim = ndim;
    param->numel = 1;
    for (int i = 0; i < ndim; i++) {
        param->dim[i] = dim[i];
        param->numel *= dim[i];
    }
    param->linear = linear;
    param->fast = params->fast;
    param->offset = params->numel;
    params->numel += padded(param->numel, 16);
    list[params->count++] = param;
    return param;
}

struct param *param_find(const struct params *params, const char *name)
{
    for (int i = 0; i < params->count; i++)
        if (strcmp(params->list[i]->name, name) == 0)
            return params->list[i];
    return NULL;
}

static float *new_arena(const struct params *params)
{
    size_t bytes = (size_t)params->numel * sizeof(float);
    void *values = NULL;

    if (posix_memalign(&values, 64, bytes ? bytes : 64))
        return NULL;
    return memset(values, 0, bytes);
}

static void use_arena(struct params *params, float *values)
{
    free(params->values);
    params->values = values;
    for (int i = 0; i < params->count; i++)
        params->list[i]->value = params->list[i]->half ? NULL : params->values + params->list[i]->offset;
}

/* Matrices kept as bf16 leave the arena: the others move up. */
static int allocate_halves(struct params *params)
{
    int64_t floats = 0, halves = 0;
    void *memory = NULL;
    bool any = false;

    for (int i = 0; i < params->count; i++) {
        const struct param *p = params->list[i];

        any |= p->half;
        halves += p->half && !p->bf16 ? padded(p->numel, 32) : 0;
    }
    if (!any)
        return 0;
    if (halves && posix_memalign(&memory, 64, (size_t)halves * sizeof(uint16_t)))
        return -ENOMEM;
    free(params->halves);
    params->halves = memory;
    halves = 0;
    for (int i = 0; i < params->count; i++) {
        struct param *p = params->list[i];

        if (p->half) {
            p->frozen = true;
            if (p->bf16)
                continue;
            p->bf16 = params->halves + halves;
            halves += padded(p->numel, 32);
        } else {
            p->offset = floats;
            floats += padded(p->numel, 16);
        }
    }
    params->numel = floats;
    return 0;
}

int params_allocate(struct params *params)
{
    float *values;
    int r = allocate_halves(params);

    if (r < 0)
        return r;
    values = new_arena(params);
    if (!values)
        return -ENOMEM;
    use_arena(params, values);
    return 0;
}

int params_grow(struct params *params, int64_t held)
{
    float *values = new_arena(params);

    if (!values)
        return -ENOMEM;
    if (held > 0)
        memcpy(values, params->values, (size_t)held * sizeof(*values));
    use_arena(params, values);
    return 0;
}

void param_read(const struct param *param, int64_t first, int64_t n, float *ret)
{
    if (param->half)
        cpu_kernels()->widen(ret, param->bf16 + first, n);
    else
        memcpy(ret, param->value + first, (size_t)n * sizeof(*ret));
}

static struct param *param_free(struct param *p)
{
    gemm_pack_free(p->forward);
    gemm_pack_free(p->backward);
    free(p->name);
    free(p);
    return NULL;
}

int params_drop_adapters(struct params *params)
{
    struct params kept = {0};
    float *values;
    int n = 0;

    for (int i = 0; i < params->count; i++)
        kept.numel += params->list[i]->adapter || params->list[i]->half ? 0 : padded(params->list[i]->numel, 16);
    values = new_arena(&kept);
    if (!values)
        return -ENOMEM;
    lora_join_free(params);
    kept.numel = 0;
    for (int i = 0; i < params->count; i++) {
        struct param *p = params->list[i];

        if (p->adapter) {
            param_free(p);
            continue;
        }
        p->lora = (struct lora) {0};
        params->list[n++] = p;
        if (p->half)
            continue;
        p->offset = kept.numel;
        memcpy(values + p->offset, p->value, (size_t)p->numel * sizeof(*values));
        kept.numel += padded(p->numel, 16);
    }
    params->count = n;
    params->numel = kept.numel;
    use_arena(params, values);
    return 0;
}

void param_changed(struct param *param)
{
    param->forward = gemm_pack_free(param->forward);
    param->backward = gemm_pack_free(param->backward);
}

bool params_use_fast(struct params *params)
{
    if (!cpu_kernels()->gemm_bf16 && !params->device && !device_process())
        return false;
    params->fast = true;
    for (int i = 0; i < params->count; i++) {
        params->list[i]->fast = true;
        param_changed(params->list[i]);
    }
    return true;
}

void params_use_device(struct params *params, struct device *device, bool half)
{
    params->mirror = mirror_free(params->mirror);
    device_ref(device);
    device_unref(params->device);
    params->device = device;
    params->device_half = half;
    for (int i = 0; i < params->count; i++)
        params->list[i]->on_f32 = params->list[i]->on_bf16 = NULL;
    for (int i = 0; i < params->n_joins; i++)
        params->joins[i]->a.on_f32 = params->joins[i]->a.on_bf16 = NULL;
}

void params_use_process_device(struct params *params)
{
    if (device_process() && params->device != device_process())
        params_use_device(params, device_process(), params->fast || params_are_half(params));
    if (params->device)
        params->device->strict = !params->fast;
}

bool params_are_half(const struct params *params)
{
    for (int i = 0; i < params->count; i++)
        if (params->list[i]->half)
            return true;
    return false;
}

int params_pack(struct params *params, bool training)
{
    return params_pack_span(params, training, 0, params->numel);
}

int params_pack_span(struct params *params, bool training, int64_t begin, int64_t end)
{
    if (params->device)
        return mirror_update(params, begin, MIN(end, params->numel), !training);
    for (int i = 0; i < params->count; i++) {
        struct param *p = params->list[i];
        int64_t out = p->dim[0], in = out ? p->numel / out : 0;

        if (!p->linear || p->half || p->offset < begin || p->offset >= end)
            continue;
        if (p->frozen && p->forward && (p->backward || !training)) {
            if (!training)
                p->backward = gemm_pack_free(p->backward);
            continue;
        }
        if (!p->forward)
            p->forward = gemm_pack_new(in, out, p->fast);
        if (training && !p->backward)
            p->backward = gemm_pack_new(out, in, p->fast);
        if (!p->forward || (training && !p->backward))
            return -ENOMEM;
        gemm_pack_fill(p->forward, p->value, true);
        if (training)
            gemm_pack_fill(p->backward, p->value, false);
        else
            p->backward = gemm_pack_free(p->backward);      /* it would be of an older version */
    }
    return lora_join_pack(params, !training);
}

struct params *params_free(struct params *params)
{
    if (!params)
        return NULL;
    params_use_device(params, NULL, false);
    lora_join_free(params);
    for (int i = 0; i < params->count; i++)
        param_free(params->list[i]);
    free(params->list);
    free(params->values);
    free(params->halves);
    *params = (struct params) {0};
    return NULL;
}
