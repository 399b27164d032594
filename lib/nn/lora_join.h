/* lora_join.h - the A matrices of weights that read the same input, one below the other: one product gives all their x A^T.
 *
 * For serving alone: q, k, v of a layer, and its gate and up, when all of them have adapters of equal scale. A row of A is a
 * column of the product and one chain of its own over ascending k, so that nothing changes to the bit where the own kernels
 * multiply. A model that trains multiplies by each A: its gradient is laid out as they lie.
 *
 *   lora_join_all when adapters are registered -> params_pack makes and renews the joined forms -> ops/linears.c uses those that
 *   are there
 */
#pragma once

#include "nn/param.h"

enum { LORA_JOIN_MOST = 3 };

struct lora_join {
    const struct param *weight[LORA_JOIN_MOST]; /* in the order in which models keep them */
    int n;
    struct param a;             /* [sum of ranks][in]; forward, on_f32 or on_bf16 where there is such a form, all NULL when not */
};

/* Find the groups among the weights that have adapters. -ENOMEM: there are none then, which is no harm. */
int lora_join_all(struct params *params);
/* The form that products on this CPU want of what A matrices are now; serving: without it, none. -ENOMEM. */
int lora_join_pack(struct params *params, bool serving);
/* The group that is just these weights, in any order, and has a form for products on this CPU, or there; NULL. */
const struct lora_join *lora_join_of(const struct param *const *weights, int n, bool there);
void lora_join_free(struct params *params);
