#include "tests/harness/small_net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/ops.h"

void small_net_make(struct small_net *net)
{
    const int64_t matrix[2] = {SMALL_WIDTH, SMALL_WIDTH}, vector[1] = {SMALL_WIDTH};
    char name[40];

    memset(net, 0, sizeof *net);
    for (int i = 0; i < SMALL_LAYERS; i++) {
        snprintf(name, sizeof name, "norm.%d", i);
        net->norm[i] = param_add(&net->params, name, 1, vector, false);
        snprintf(name, sizeof name, "weight.%d", i);
        net->weight[i] = param_add(&net->params, name, 2, matrix, true);
        snprintf(name, sizeof name, "bias.%d", i);
        net->bias[i] = param_add(&net->params, name, 1, vector, false);
    }
    assert_int_equal(params_allocate(&net->params), 0);
    for (int i = 0; i < net->params.count; i++) {
        const struct param *p = net->params.list[i];

        for (int64_t k = 0; k < p->numel; k++)
            p->value[k] = (float)((p->offset + k) * 2654435761u % 1000) / 1000 - .3f;
        net->ranges[net->n_ranges++] = (struct adamw_range) {.begin = p->offset, .end = p->offset + p->numel};
    }
    assert_int_equal(params_pack(&net->params, true), 0);
}

void small_net_release(struct small_net *net) { params_free(&net->params); }

int small_net_pass(const struct small_net *net, struct tape *tape, int first, int last,
                   void (*on_return)(struct tape *tape, void *context), void *context)
{
    size_t n = (size_t)((last - first) * SMALL_WIDTH);
    float *input = tape_alloc(tape, n * sizeof *input), *g = tape_alloc(tape, n * sizeof *g);
    struct tensor *x;

    if (!input || !g)
        return tape->error;
    for (size_t i = 0; i < n; i++) {
        input[i] = (float)(((size_t)(first * SMALL_WIDTH) + i) * 40503 % 997) / 997 - .5f;
        g[i] = (float)(i % 7) - 3;
    }
    if (on_return)
        tape_record(tape, NULL, on_return, context);
    x = tape_input(tape, input, last - first, SMALL_WIDTH);
    for (int i = 0; i < SMALL_LAYERS && x; i++) {
        x = op_linear(tape, op_rmsnorm(tape, x, net->norm[i], 1e-6f), net->weight[i], net->bias[i]);
        if (i == 2)
            x = op_linear(tape, x, net->weight[0], NULL);       /* the first weight is used again in the middle */
    }
    if (!x || (!tape->planning && tape_set_gradient(tape, x, g) < 0))
        return tape->error;
    tape_backward(tape);
    return tape->error;
}
