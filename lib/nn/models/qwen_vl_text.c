/* qwen_vl_text.c - Qwen2: Llama's block with biases on q, k, v, grouped queries and M-RoPE. */
#include "nn/models/qwen_vl_internal.h"

struct rows {
    struct spans all, tail;             /* tail: the sequences' last rows, one each */
    const int32_t *last;
    const float *table, *tail_table;
};

/* Of x + what the attention of the layer says. */
static struct tensor *mlp(const struct qwen_vl *model, struct tape *tape, struct tensor *x, struct tensor *attention,
                          const struct qwen_layer *l)
{
    struct tensor *h = op_residual_rmsnorm(tape, x, attention, l->norm2, model->config.rms_eps, &x), *both[2];

    if (!op_linears(tape, h, (const struct linear_use[]) {{l->up, NULL}, {l->gate, NULL}}, 2, both))
        return NULL;
    h = op_swiglu(tape, both[1], both[0]);
    return op_residual(tape, x, op_linear(tape, h, l->down, NULL), NULL);
}

/* tail: only the last rows ask and go on. */
static struct tensor *layer_forward(const struct qwen_vl *model, struct tape *tape, struct tensor *x, const struct qwen_layer *l,
                                    const struct rows *rows, bool tail)
{
    const struct qwen_vl_config *c = &model->config;
    size_t mark = tape_mark(tape);
    struct tensor *h = op_rmsnorm(tape, x, l->norm1, c->rms_eps), *q, *k, *v, *kvq[3];
    const struct linear_use uses[] = {{l->k.weight, l->k.bias}, {l->v.weight, l->v.bias}, {l->q.weight, l->q.bias}};

    if (!op_linears(tape, h, uses, tail ? 2 : 3, kvq))
        return NULL;
    k = op_rope_table(tape, kvq[0], rows->table, c->kv_heads, c->head_dim);
    v = kvq[1];
    if (tail) {
        q = op_linear(tape, op_gather(tape, h, rows->last, rows->tail.n), l->q.weight, l->q.bias);
        q = op_rope_table(tape, q, rows->tail_table, c->heads, c->head_dim);
        h = op_attention_tail(tape, q, k, v, rows->all, rows->tail, c->heads);
        x = op_gather(tape, x, rows->last, rows->tail.n);
    } else {
        q = op_rope_table(tape, kvq[2], rows->table, c->heads, c->head_dim);
        h = op_attention(tape, q, k, v, rows->all, c->heads, ATTENTION_CAUSAL);
    }
    return tape_keep(tape, mark, mlp(model, tape, x, op_linear(tape, h, l->o, NULL), l));
}

struct tensor *qwen_text(const struct qwen_vl *model, struct tape *tape, struct tensor *x, const struct qwen_layout *l, bool tail,
                         struct tensor **layer)
{
    const struct qwen_vl_config *c = &model->config;
    struct rows rows = {
        .all = {l->n, l->start}, .tail = {l->n, l->ones}, .last = l->last,
        .table = qwen_text_table(c, tape, l->position, NULL, l->rows),
        .tail_table = tail ? qwen_text_table(c, tape, l->position, l->last, l->n) : NULL,
    };

    if (layer)
        layer[0] = x;
    for (int i = 0; i < c->layers; i++) {
        x = layer_forward(model, tape, x, &model->w->layers[i], &rows, tail && i == c->layers - 1);
        if (layer)
            layer[i + 1] = x;
    }
    return op_rmsnorm(tape, x, model->w->norm, c->rms_eps);
}
