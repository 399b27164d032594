/* optim.h - AdamW (decoupled weight decay) over flat memory, and the global gradient norm.
 *
 * m, v, grad, value are flat arrays laid out like params->values. `active` lists the ranges that have a
 * gradient in this objective: others neither move nor decay. All sums in a fixed order. */
#pragma once

#include <stdbool.h>

#include "nn/param.h"

struct adamw {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t step;               /* updates done; starts at 0 */
    float *m, *v;               /* flat, params->numel floats each */
    int64_t numel;
};

struct adamw_range { int64_t begin, end; double lr_scale, weight_decay; };

int adamw_init(struct adamw *a, int64_t numel);             /* -ENOMEM; moments zero; betas .9/.999, eps 1e-8 */
void adamw_release(struct adamw *a);
/* One update of the ranges with grad * grad_scale. */
void adamw_step(struct adamw *a, float *value, const float *grad, float grad_scale, const struct adamw_range *ranges, int n);
/* Of the update number a->step: what the kernels need for one range (nn/cpu/kernels.h has their order). */
void adamw_constants(const struct adamw *a, const struct adamw_range *range, float grad_scale, float ret[9]);
/* Square root of the sum of squares over the ranges, in double, in order; NaN or inf if any element is. */
double gradient_norm(const float *grad, const struct adamw_range *ranges, int n);
