#include "nn/lora_join.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nn/gemm_pack.h"

/* The first names the group; the order is that in which models keep them. */
static const char *const groups[][LORA_JOIN_MOST] = {{"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}};

static bool may_join(const struct param *a, const struct param *b)
{
    return b && b->lora.a && b->linear && b->numel / b->dim[0] == a->numel / a->dim[0] && b->lora.scale == a->lora.scale;
}

/* All of the group that `first` begins, by name. */
static int members(const struct params *params, const struct param *first, const char *const names[LORA_JOIN_MOST],
                   const struct param *ret[LORA_JOIN_MOST])
{
    size_t length = strlen(first->name), tail = strlen(names[0]) + strlen(".weight");
    char name[300];
    int n = 0;

    if (length <= tail || length > 256 || strncmp(first->name + length - tail, names[0], strlen(names[0])) ||
        first->name[length - tail - 1] != '.')
        return 0;
    for (; n < LORA_JOIN_MOST && names[n]; n++) {
        snprintf(name, sizeof(name), "%.*s%s.weight", (int)(length - tail), first->name, names[n]);
        ret[n] = param_find(params, name);
        if (!may_join(first, ret[n]))
            return 0;
    }
    return n;
}

static int join(struct params *params, const struct param *const *weights, int n)
{
    struct lora_join **list = realloc(params->joins, (size_t)(params->n_joins + 1) * sizeof(*list)), *one;

    if (!list)
        return -ENOMEM;
    params->joins = list;
    one = calloc(1, sizeof(*one));
    if (!one)
        return -ENOMEM;
    one->n = n;
    one->a = (struct param) {.name = "joined A", .ndim = 2, .linear = true, .frozen = true};
    one->a.dim[1] = weights[0]->lora.a->numel / weights[0]->lora.a->dim[0];
    for (int i = 0; i < n; i++) {
        one->weight[i] = weights[i];
        one->a.dim[0] += weights[i]->lora.a->dim[0];
        param_find(params, weights[i]->name)->lora.join = one;
    }
    one->a.numel = one->a.dim[0] * one->a.dim[1];
    params->joins[params->n_joins++] = one;
    return 0;
}

int lora_join_all(struct params *params)
{
    const struct param *weights[LORA_JOIN_MOST];
    int r = 0;

    lora_join_free(params);
    for (int i = 0; i < params->count && r >= 0; i++)
        for (size_t g = 0; g < ARRAY_SIZE(groups) && r >= 0; g++) {
            int n = params->list[i]->lora.a ? members(params, params->list[i], groups[g], weights) : 0;

            r = n > 1 ? join(params, weights, n) : 0;
        }
    if (r < 0)
        lora_join_free(params);
    return r;
}

static int pack(struct lora_join *join)
{
    int64_t in = join->a.dim[1], at = 0;
    _cleanup_free_ float *rows = malloc((size_t)join->a.numel * sizeof(*rows));

    join->a.fast = join->weight[0]->lora.a->fast;
    if (!join->a.forward)
        join->a.forward = gemm_pack_new(in, join->a.dim[0], join->a.fast);
    if (!rows || !join->a.forward)
        return -ENOMEM;
    for (int i = 0; i < join->n; i++) {
        const struct param *a = join->weight[i]->lora.a;

        memcpy(rows + at, a->value, (size_t)a->numel * sizeof(*rows));
        at += a->numel;
    }
    gemm_pack_fill(join->a.forward, rows, true);
    return 0;
}

int lora_join_pack(struct params *params, bool serving)
{
    int r = 0;

    for (int i = 0; i < params->n_joins && r >= 0; i++) {
        struct lora_join *join = params->joins[i];

        if (!serving || join->a.fast != join->weight[0]->lora.a->fast)
            join->a.forward = gemm_pack_free(join->a.forward);
        r = serving ? pack(join) : 0;
    }
    return r;
}

static bool is_in(const struct lora_join *join, const struct param *weight)
{
    for (int i = 0; i < join->n; i++)
        if (join->weight[i] == weight)
            return true;
    return false;
}

const struct lora_join *lora_join_of(const struct param *const *weights, int n, bool there)
{
    const struct lora_join *join = weights[0]->lora.join;

    if (!join || join->n != n || !(there ? join->a.on_f32 || join->a.on_bf16 : join->a.forward != NULL))
        return NULL;
    for (int i = 0; i < n; i++)
        if (!is_in(join, weights[i]))
            return NULL;
    return join;
}

void lora_join_free(struct params *params)
{
    for (int i = 0; i < params->count; i++)
        params->list[i]->lora.join = NULL;
    for (int i = 0; i < params->n_joins; i++) {
        gemm_pack_free(params->joins[i]->a.forward);
        free(params->joins[i]);
    }
    free(params->joins);
    params->joins = NULL;
    params->n_joins = 0;
}
