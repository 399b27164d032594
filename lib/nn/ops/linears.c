/* linears.c - weights that read the same x: A matrices of their adapters joined (nn/lora_join.h); on a device, when nothing
 * learns, one product for all.
 *
 * Decoding a few rows is bound by reading weights, and loses most at the launches in between. */
#include "nn/lora_join.h"
#include "nn/ops/linear.h"

/* Bytes from each of three addresses to the next, as elements; 0: they lie otherwise than one behind the other, evenly. */
static int64_t apart(const void *first, const void *second, const void *last, int n, enum device_type type)
{
    ptrdiff_t step = (const char *)second - (const char *)first;

    return step > 0 && (const char *)last - (const char *)first == (n - 1) * step && step % (ptrdiff_t)device_element(type) == 0
               ? step / (ptrdiff_t)device_element(type)
               : 0;
}

/* n products of one shape, as one where weights and results lie evenly: a launch instead of n, which is what decoding a few rows
 * takes longest for. Every number is a chain of its own, as it is alone; only of a library in strict numerics that is not
 * known. */
static void products_on(struct tape *t, const struct linear *c, int n, bool add)
{
    struct device_gemm one[LORA_JOIN_MOST], *g = &one[0];
    bool even = n > 1 && !(t->on->device->strict && t->half);

    for (int i = 0; i < n; i++) {
        one[i] = linear_gemm(t, &c[i], add);
        even = even && !one[i].bias && one[i].n == g->n && one[i].k == g->k && one[i].b_type == g->b_type &&
            one[i].alpha == g->alpha;
    }
    if (even) {
        g->batch = n;
        g->a_apart = c[1].column - c[0].column;
        g->b_apart = apart(g->b, one[1].b, one[n - 1].b, n, g->b_type);
        g->c_apart = apart(g->c, one[1].c, one[n - 1].c, n, g->c_type);
        even = g->b_apart && g->c_apart && c[n - 1].column - c[0].column == (n - 1) * g->a_apart;
    }
    if (even) {
        linear_gemm_on(t, *g);
        return;
    }
    g->batch = 0;
    for (int i = 0; i < n; i++)
        linear_gemm_on(t, one[i]);
}

/* y[i] += h B_i^T, or = on a device and `first`, with the columns of h that are B_i's, which are scaled already. */
static bool add_joined(struct tape *t, struct tensor *h, const struct lora_join *join, bool first, struct tensor *const *y)
{
    struct linear up[LORA_JOIN_MOST];
    int64_t column = 0;

    for (int i = 0; i < join->n; i++) {
        const struct param *b = join->weight[i]->lora.b;

        up[i] = (struct linear) {.x = h, .y = y[i], .weight = b, .column = column, .in = b->numel / b->dim[0], .times = 1.0f};
        column += up[i].in;
        if (b->dim[0] != y[i]->cols || column > h->cols)
            return op_fail(t, -EINVAL);
    }
    for (int i = 0; i < join->n && !t->on; i++) {
        float *scratch = tape_scratch(t, linear_scratch(up[i].weight, h->rows, up[i].in, 0, y[i]->cols));

        if (!t->error && !t->planning && !up[i].weight->forward)
            op_fail(t, -EINVAL);
        else if (!t->error && !t->planning)
            linear_product(&up[i], true, scratch);
    }
    if (t->on && !t->error && !t->planning)
        products_on(t, up, join->n, !first);
    return !t->error;
}

/* On a device, when nothing learns: results one behind the other, so that one product can make them all. A dry run counts the
 * same. join: with what its adapters make of x, which is h. */
static bool linears_on(struct tape *t, struct tensor *x, const struct lora_join *join, struct tensor *h,
                       const struct linear_use *use, int n, struct tensor **ret)
{
    bool later = join && linear_comes_later(t, use[0].weight);
    struct linear c[LORA_JOIN_MOST];

    for (int i = 0; i < n; i++) {
        const struct param *w = use[i].weight;

        if (w->numel != w->dim[0] * x->cols || (use[i].bias && use[i].bias->numel != w->dim[0]))
            return op_fail(t, -EINVAL);
        ret[i] = tape_tensor(t, x->rows, w->dim[0]);
        if (!ret[i])
            return false;
        c[i] = (struct linear) {.x = x, .y = ret[i], .weight = w, .bias = use[i].bias, .times = 1.0f};
    }
    if (later && !add_joined(t, h, join, true, ret))
        return false;
    if (!t->planning)
        products_on(t, c, n, later);
    return !t->error && (!join || later || add_joined(t, h, join, false, ret));
}

static bool joined(struct tape *t, struct tensor *x, const struct lora_join *join, const struct linear_use *use,
                   struct tensor **ret)
{
    float scale = use[0].weight->lora.scale;
    struct tensor *h = linear_times(t, x, &join->a, NULL, scale);

    if (!h)
        return false;
    if (t->on)
        return linears_on(t, x, join, h, use, join->n, ret);
    if (!t->planning)
        cpu_kernels()->scale(h->x, scale, h->rows * h->cols);
    for (int i = 0; i < join->n; i++) {
        ret[i] = linear_times(t, x, use[i].weight, use[i].bias, 1.0f);
        if (!ret[i])
            return false;
    }
    return add_joined(t, h, join, false, ret);
}

/* Where a weight comes: in the group, or on the device. */
static uintptr_t place(const struct lora_join *join, const struct param *weight)
{
    for (int i = 0; join && i < join->n; i++)
        if (join->weight[i] == weight)
            return (uintptr_t)i;
    return (uintptr_t)(weight->on_bf16 ? weight->on_bf16 : (const void *)weight->on_f32);
}

/* Nothing learns. Weights are taken in the order in which they lie, for that is how one product can take them all. */
static bool served(struct tape *t, struct tensor *x, const struct lora_join *join, const struct linear_use *use, int n,
                   struct tensor **ret)
{
    struct linear_use sorted[LORA_JOIN_MOST];
    struct tensor *made[LORA_JOIN_MOST] = {NULL};
    int from[LORA_JOIN_MOST];
    bool ok;

    for (int i = 0; i < n; i++) {
        int at = i;

        for (; at > 0 && place(join, use[i].weight) < place(join, sorted[at - 1].weight); at--) {
            sorted[at] = sorted[at - 1];
            from[at] = from[at - 1];
        }
        sorted[at] = use[i];
        from[at] = i;
    }
    ok = join ? joined(t, x, join, sorted, made) : linears_on(t, x, NULL, NULL, sorted, n, made);
    for (int i = 0; i < n && ok; i++) {
        ret[from[i]] = join ? made[i] : linear_adapt(t, x, sorted[i].weight, 0, made[i]);
        ok = ret[from[i]] != NULL;
    }
    return ok;
}

bool op_linears(struct tape *t, struct tensor *x, const struct linear_use *use, int n, struct tensor **ret)
{
    /* what is computed twice gives the same bits twice */
    bool serving = n <= LORA_JOIN_MOST && !t->training && !t->recompute, later = false;
    const struct param *weights[LORA_JOIN_MOST] = {NULL};
    const struct lora_join *join = NULL;

    if (!x)
        return false;
    for (int i = 0; i < n && serving; i++)
        weights[i] = use[i].weight;
    if (serving && !t->plain)
        join = lora_join_of(weights, n, t->on != NULL);
    for (int i = 0; i < n; i++)
        later = later || linear_comes_later(t, use[i].weight);
    if (join || (serving && t->on && !later))
        return served(t, x, join, use, n, ret);
    for (int i = 0; i < n; i++) {
        ret[i] = op_linear(t, x, use[i].weight, use[i].bias);
        if (!ret[i])
            return false;
    }
    return true;
}
