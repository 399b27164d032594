#include "nn/optim.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "nn/cpu/kernels.h"

int adamw_init(struct adamw *a, int64_t numel)
{
    size_t bytes = (size_t)(numel > 0 ? numel : 16) * sizeof(float);
    _cleanup_free_ void *m = NULL;
    void *v = NULL;

    if (posix_memalign(&m, 64, bytes) || posix_memalign(&v, 64, bytes))
        return -ENOMEM;
    memset(m, 0, bytes);
    memset(v, 0, bytes);
    *a = (struct adamw) {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .m = TAKE_PTR(m), .v = v, .numel = numel};
    return 0;
}

void adamw_release(struct adamw *a)
{
    free(a->m);
    free(a->v);
    *a = (struct adamw) {0};
}

void adamw_constants(const struct adamw *a, const struct adamw_range *range, float grad_scale, float ret[9])
{
    double bias1 = 1.0 - pow(a->beta1, (double)a->step), bias2 = 1.0 - pow(a->beta2, (double)a->step),
           lr = a->lr * range->lr_scale;
    const float constants[9] = {
        (float)a->beta1, (float)(1.0 - a->beta1), (float)a->beta2, (float)(1.0 - a->beta2), (float)(lr / bias1),
        (float)(1.0 / sqrt(bias2)), (float)a->eps, (float)(lr * range->weight_decay), grad_scale,
    };

    memcpy(ret, constants, sizeof(constants));
}

void adamw_step(struct adamw *a, float *value, const float *grad, float grad_scale, const struct adamw_range *ranges, int n)
{
    a->step++;
    for (int i = 0; i < n; i++) {
        const struct adamw_range *r = &ranges[i];
        float constants[9];

        adamw_constants(a, r, grad_scale, constants);
        cpu_kernels()->adamw(value + r->begin, a->m + r->begin, a->v + r->begin, grad + r->begin, r->end - r->begin, constants);
    }
}

double gradient_norm(const float *grad, const struct adamw_range *ranges, int n)
{
    double sum = 0.0;

    for (int i = 0; i < n; i++)
        for (int64_t j = ranges[i].begin; j < ranges[i].end; j++)
            sum += (double)grad[j] * grad[j];
    return sqrt(sum);
}
