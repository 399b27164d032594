#include "nn/device/dnn_graph.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"

enum { VIRTUAL_FROM = 100, MOST_OPS = 40, ENGINES = 8, OLDEST = 90600 };

int dnn_calls_open(const char *path, struct dnn_calls *ret, void **ret_library, char *why, size_t why_size)
{
    static const size_t broken[] = {91000, 91001}; /* attention is switched off there */
    struct dnn_calls c;
    const struct {
        const char *name;
        void **to;
    } symbols[] = {
        {"cudnnGetVersion", (void **)&c.version},
        {"cudnnCreate", (void **)&c.create},
        {"cudnnDestroy", (void **)&c.destroy},
        {"cudnnSetStream", (void **)&c.set_stream},
        {"cudnnBackendCreateDescriptor", (void **)&c.descriptor_new},
        {"cudnnBackendDestroyDescriptor", (void **)&c.descriptor_free},
        {"cudnnBackendSetAttribute", (void **)&c.set},
        {"cudnnBackendGetAttribute", (void **)&c.get},
        {"cudnnBackendFinalize", (void **)&c.finalize},
        {"cudnnBackendExecute", (void **)&c.execute},
        {"cudnnGetErrorString", (void **)&c.error_string},
        {"cudnnGetLastErrorString", (void **)&c.last_error},
    };
    const char *name = path ? path : "libcudnn.so.9";
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    size_t version;

    if (!library) {
        snprintf(why, why_size, "%s cannot be opened: %s", name, dlerror());
        return -ENOENT;
    }
    for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
        *symbols[i].to = dlsym(library, symbols[i].name);
        if (!*symbols[i].to) {
            snprintf(why, why_size, "%s has no function %s", name, symbols[i].name);
            dlclose(library);
            return -ENOSYS;
        }
    }
    version = c.version();
    for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
        if (version < OLDEST || version == broken[i]) {
            snprintf(why, why_size, "%s is version %zu: attention needs %d or later, and not %zu to %zu", name, version, OLDEST,
                     broken[0], broken[1]);
            dlclose(library);
            return -ENOSYS;
        }
    *ret = c;
    *ret_library = library;
    return 0;
}

/* ---- building: after the first failure nothing is called any more -------------------------------------------------------- */

struct builder {
    const struct dnn_calls *calls;
    const struct dnn_key *key;
    struct dnn_graph *graph;
    void *ops[MOST_OPS];
    int64_t next;       /* id of the next tensor that is never stored */
    int r;
};

static void check(struct builder *b, int status, const char *what)
{
    char words[160] = "";

    if (b->r < 0 || status == CUDNN_STATUS_SUCCESS)
        return;
    b->r = -EINVAL;
    b->calls->last_error(words, sizeof(words));
    snprintf(b->graph->why, sizeof(b->graph->why), "cuDNN: %s: %s %s", what, b->calls->error_string(status), words);
}

static void *descriptor(struct builder *b, int type)
{
    void *d = NULL;

    if (b->r < 0)
        return NULL;
    if (b->graph->parts == DNN_PARTS) {
        b->r = -EINVAL;
        return NULL;
    }
    check(b, b->calls->descriptor_new(type, &d), "a descriptor");
    if (d)
        b->graph->part[b->graph->parts++] = d;
    return d;
}

static void set(struct builder *b, void *d, int name, int type, int64_t n, const void *values, const char *what)
{
    if (b->r >= 0)
        check(b, b->calls->set(d, name, type, n, values), what);
}

static void set_descriptor(struct builder *b, void *d, int name, void *value)
{
    set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, (const void *)&value, "an operand");
}

static void finalize(struct builder *b, void *d, const char *what)
{
    if (b->r >= 0)
        check(b, b->calls->finalize(d), what);
}

struct shape {
    int64_t dim[4], stride[4];
};

/* id < 0: not stored. by_value: a number of the host. */
static void *tensor(struct builder *b, int id, cudnnDataType_t type, struct shape shape, bool by_value)
{
    void *d = descriptor(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t align = 16, uid = id >= 0 ? id + 1 : b->next++;
    bool yes = true;

    set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, "an id");
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, "a type");
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, shape.dim, "a shape");
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, shape.stride, "strides");
    set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align, "an alignment");
    if (id < 0)
        set(b, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes, "a virtual tensor");
    else
        b->graph->uses[id] = true;
    if (by_value)
        set(b, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes, "a scalar");
    finalize(b, d, "a tensor");
    return d;
}

static void *number(struct builder *b, int id)
{
    return tensor(b, id, CUDNN_DATA_FLOAT, (struct shape){{1, 1, 1, 1}, {1, 1, 1, 1}}, true);
}

static void operation(struct builder *b, void *d, const char *what)
{
    finalize(b, d, what);
    if (b->r >= 0 && b->graph->ops < MOST_OPS)
        b->ops[b->graph->ops++] = d;
}

static void *multiply(struct builder *b, void *x, void *y, void *to)
{
    void *how = descriptor(b, CUDNN_BACKEND_MATMUL_DESCRIPTOR), *d = descriptor(b, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;

    set(b, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, "a product");
    finalize(b, how, "a product");
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, x);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, y);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, to);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    operation(b, d, "a product");
    return to;
}

/* y = mode(x, z, mask); z, mask may be NULL. axis: of GEN_INDEX, else -1. */
static void *pointwise(struct builder *b, cudnnPointwiseMode_t mode, int64_t axis, void *x, void *z, void *mask, void *y)
{
    void *how = descriptor(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR),
         *d = descriptor(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    cudnnDataType_t type = mode == CUDNN_POINTWISE_CMP_GE ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT;

    set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, "a function");
    set(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type, "a function");
    if (axis >= 0)
        set(b, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis, "an axis");
    finalize(b, how, "a function");
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (z)
        set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, z);
    if (mask)
        set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, mask);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    operation(b, d, "a function");
    return y;
}

static void *reduce(struct builder *b, cudnnReduceTensorOp_t op, void *x, void *y)
{
    void *how = descriptor(b, CUDNN_BACKEND_REDUCTION_DESCRIPTOR),
         *d = descriptor(b, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;

    set(b, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &op, "a sum");
    set(b, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, "a sum");
    finalize(b, how, "a sum");
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    operation(b, d, "a sum");
    return y;
}

static void *reshape(struct builder *b, void *x, void *y)
{
    void *d = descriptor(b, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);

    set_descriptor(b, d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_descriptor(b, d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    operation(b, d, "a transposition");
    return y;
}

/* ---- shapes: (sequence, head, row, column) ------------------------------------------------------------------------------- */

static struct shape rows_of(const struct dnn_key *k, int64_t heads, int64_t rows, int64_t stride)
{
    return (struct shape){{k->n, heads, rows, k->dim}, {rows * stride, k->dim, stride, 1}};
}

static struct shape transposed(struct shape s)
{
    return (struct shape){{s.dim[0], s.dim[1], s.dim[3], s.dim[2]}, {s.stride[0], s.stride[1], s.stride[3], s.stride[2]}};
}

static struct shape scores_of(const struct dnn_key *k)
{
    return (struct shape){{k->n, k->heads, k->asking, k->keys},
                          {k->heads * k->asking * k->keys, k->asking * k->keys, k->keys, 1}};
}

/* One number per head and row (struct device_attention's lse). */
static struct shape per_row(const struct dnn_key *k)
{
    return (struct shape){{k->n, k->heads, k->asking, 1}, {k->heads * k->asking, k->asking, 1, 1}};
}

static void *scores(struct builder *b, cudnnDataType_t type) { return tensor(b, -1, type, scores_of(b->key), false); }
static void *row_numbers(struct builder *b) { return tensor(b, -1, CUDNN_DATA_FLOAT, per_row(b->key), false); }

static void *mask(struct builder *b, void *x)
{
    void *row, *column, *seen;

    if (!b->key->causal)
        return x;
    row = pointwise(b, CUDNN_POINTWISE_GEN_INDEX, 2, x, NULL, NULL, scores(b, CUDNN_DATA_INT32));
    column = pointwise(b, CUDNN_POINTWISE_GEN_INDEX, 3, x, NULL, NULL, scores(b, CUDNN_DATA_INT32));
    seen = pointwise(b, CUDNN_POINTWISE_CMP_GE, -1, row, column, NULL, scores(b, CUDNN_DATA_BOOLEAN));
    return pointwise(b, CUDNN_POINTWISE_BINARY_SELECT, -1, x, number(b, DNN_MASKED), seen, scores(b, CUDNN_DATA_FLOAT));
}

/* ---- the two graphs ------------------------------------------------------------------------------------------------------- */

static void forward(struct builder *b)
{
    const struct dnn_key *k = b->key;
    int64_t kv = k->heads / k->group;
    void *q = tensor(b, DNN_Q, CUDNN_DATA_BFLOAT16, rows_of(k, k->heads, k->asking, k->q_stride), false);
    void *kt = tensor(b, DNN_K, CUDNN_DATA_BFLOAT16, transposed(rows_of(k, kv, k->keys, k->kv_stride)), false);
    void *v = tensor(b, DNN_V, CUDNN_DATA_BFLOAT16, rows_of(k, kv, k->keys, k->kv_stride), false);
    void *s = multiply(b, q, kt, scores(b, CUDNN_DATA_FLOAT)), *most, *e, *sum, *log, *p;

    s = pointwise(b, CUDNN_POINTWISE_MUL, -1, s, number(b, DNN_SCALE), NULL, scores(b, CUDNN_DATA_FLOAT));
    s = mask(b, s);
    most = reduce(b, CUDNN_REDUCE_TENSOR_MAX, s, row_numbers(b));
    e = pointwise(b, CUDNN_POINTWISE_SUB, -1, s, most, NULL, scores(b, CUDNN_DATA_FLOAT));
    e = pointwise(b, CUDNN_POINTWISE_EXP, -1, e, NULL, NULL, scores(b, CUDNN_DATA_FLOAT));
    sum = reduce(b, CUDNN_REDUCE_TENSOR_ADD, e, row_numbers(b));
    /* also where it is not wanted: without it the engines do not know the graph for attention */
    log = pointwise(b, CUDNN_POINTWISE_LOG, -1, sum, NULL, NULL, row_numbers(b));
    pointwise(b, CUDNN_POINTWISE_ADD, -1, most, log, NULL,
              tensor(b, k->stats ? DNN_LSE : -1, CUDNN_DATA_FLOAT, per_row(k), false));
    p = pointwise(b, CUDNN_POINTWISE_DIV, -1, e, sum, NULL, scores(b, CUDNN_DATA_BFLOAT16));
    multiply(b, p, v, tensor(b, DNN_OUT, CUDNN_DATA_BFLOAT16, rows_of(k, k->heads, k->asking, k->out_stride), false));
}

/* P^T or dS^T times rows of queries: one gradient of all heads, then summed over each group. */
static void to_keys(struct builder *b, void *p, void *rows, int id)
{
    const struct dnn_key *k = b->key;
    struct shape dense = {{k->n, k->heads, k->keys, k->dim}, {k->heads * k->keys * k->dim, k->keys * k->dim, k->dim, 1}};
    void *pt = reshape(b, p, tensor(b, -1, CUDNN_DATA_BFLOAT16, transposed(scores_of(k)), false));
    void *grad = tensor(b, id, CUDNN_DATA_BFLOAT16, rows_of(k, k->heads / k->group, k->keys, k->dkv_stride), false);

    if (k->group == 1)
        multiply(b, pt, rows, grad);
    else
        reduce(b, CUDNN_REDUCE_TENSOR_ADD, multiply(b, pt, rows, tensor(b, -1, CUDNN_DATA_BFLOAT16, dense, false)), grad);
}

static void backward(struct builder *b)
{
    const struct dnn_key *k = b->key;
    struct shape queries = rows_of(k, k->heads, k->asking, k->q_stride), outs = rows_of(k, k->heads, k->asking, k->out_stride);
    struct shape keys = rows_of(k, k->heads / k->group, k->keys, k->kv_stride);
    void *q = tensor(b, DNN_Q, CUDNN_DATA_BFLOAT16, queries, false);
    void *kt = tensor(b, DNN_K, CUDNN_DATA_BFLOAT16, transposed(keys), false);
    void *vt = tensor(b, DNN_V, CUDNN_DATA_BFLOAT16, transposed(keys), false);
    void *out = tensor(b, DNN_OUT, CUDNN_DATA_BFLOAT16, outs, false),
        *dout = tensor(b, DNN_DOUT, CUDNN_DATA_BFLOAT16, outs, false);
    void *lse = tensor(b, DNN_LSE, CUDNN_DATA_FLOAT, per_row(k), false), *scale = number(b, DNN_SCALE), *x, *sum, *p, *ds;

    x = pointwise(b, CUDNN_POINTWISE_MUL, -1, dout, out, NULL, tensor(b, -1, CUDNN_DATA_FLOAT, outs, false));
    x = reduce(b, CUDNN_REDUCE_TENSOR_ADD, x, row_numbers(b));
    sum = pointwise(b, CUDNN_POINTWISE_MUL, -1, x, number(b, DNN_ONE), NULL,
                    tensor(b, DNN_SUM, CUDNN_DATA_FLOAT, per_row(k), false));

    x = multiply(b, q, kt, scores(b, CUDNN_DATA_FLOAT));
    x = pointwise(b, CUDNN_POINTWISE_MUL, -1, x, scale, NULL, scores(b, CUDNN_DATA_FLOAT));
    x = mask(b, pointwise(b, CUDNN_POINTWISE_SUB, -1, x, lse, NULL, scores(b, CUDNN_DATA_FLOAT)));
    p = pointwise(b, CUDNN_POINTWISE_EXP, -1, x, NULL, NULL, scores(b, CUDNN_DATA_FLOAT));
    to_keys(b, p, dout, DNN_DV);

    x = multiply(b, dout, vt, scores(b, CUDNN_DATA_FLOAT));
    x = pointwise(b, CUDNN_POINTWISE_SUB, -1, x, sum, NULL, scores(b, CUDNN_DATA_FLOAT));
    x = pointwise(b, CUDNN_POINTWISE_MUL, -1, x, p, NULL, scores(b, CUDNN_DATA_FLOAT));
    ds = pointwise(b, CUDNN_POINTWISE_MUL, -1, x, scale, NULL, scores(b, CUDNN_DATA_FLOAT));
    to_keys(b, ds, q, DNN_DK);
    x = reshape(b, kt, tensor(b, -1, CUDNN_DATA_BFLOAT16, keys, false));
    multiply(b, ds, x, tensor(b, DNN_DQ, CUDNN_DATA_BFLOAT16, rows_of(k, k->heads, k->asking, k->dq_stride), false));
}

int dnn_graph_build(const struct dnn_calls *calls, void *handle, const struct dnn_key *key, struct dnn_graph *ret)
{
    struct builder b = {.calls = calls, .key = key, .graph = ret, .next = VIRTUAL_FROM};

    memset(ret, 0, sizeof(*ret));
    if (key->backward)
        backward(&b);
    else
        forward(&b);
    ret->graph = descriptor(&b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (handle)
        set(&b, ret->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, (const void *)&handle, "a handle");
    set(&b, ret->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, ret->ops, (const void *)b.ops,
        "operations");
    finalize(&b, ret->graph, "the graph");
    return b.r;
}

void dnn_graph_release(const struct dnn_calls *calls, struct dnn_graph *graph)
{
    while (graph->parts > 0)
        calls->descriptor_free(graph->part[--graph->parts]);
    graph->graph = NULL;
}

/* ---- plans ---------------------------------------------------------------------------------------------------------------- */

static void *take(const struct dnn_calls *c, int type)
{
    void *d = NULL;

    return c->descriptor_new(type, &d) == CUDNN_STATUS_SUCCESS ? d : NULL;
}

static void drop(const struct dnn_calls *c, void *d)
{
    if (d)
        c->descriptor_free(d);
}

int dnn_describe_device(const struct dnn_calls *c, const char *json, void **ret_device, char *why, size_t why_size)
{
    void *device = take(c, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    char words[160] = "";

    if (device && c->set(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1,
                         json) == CUDNN_STATUS_SUCCESS &&
        c->finalize(device) == CUDNN_STATUS_SUCCESS) {
        *ret_device = device;
        return 0;
    }
    c->last_error(words, sizeof(words));
    snprintf(why, why_size, "cuDNN does not know a device by this: %s", words);
    drop(c, device);
    return -EINVAL;
}

static bool for_device(const struct dnn_calls *c, void *d, void *device, int name)
{
    return !device || c->set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, (const void *)&device) == CUDNN_STATUS_SUCCESS;
}

static void *plan_of(const struct dnn_calls *c, void *handle, void *device, void *config, size_t *ret_workspace)
{
    void *plan = take(c, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    int64_t workspace = 0, n;

    if (plan && (!handle || c->set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                   (const void *)&handle) == CUDNN_STATUS_SUCCESS) &&
        for_device(c, plan, device, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP) &&
        c->set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
               (const void *)&config) == CUDNN_STATUS_SUCCESS &&
        c->finalize(plan) == CUDNN_STATUS_SUCCESS &&
        c->get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &workspace) == CUDNN_STATUS_SUCCESS) {
        *ret_workspace = (size_t)workspace;
        return plan;
    }
    drop(c, plan);
    return NULL;
}

/* The first of config[n] whose plan works in `most` bytes, or NULL. *least: what those work in that are over it. */
static void *first_plan(const struct dnn_calls *c, void *handle, void *device, void *const *config, int64_t n, size_t most,
                        size_t *ret_workspace, size_t *least)
{
    for (int64_t i = 0; i < n; i++) {
        void *plan = plan_of(c, handle, device, config[i], ret_workspace);

        if (plan && *ret_workspace <= most)
            return plan;
        if (plan)
            *least = MIN(*least, *ret_workspace);
        drop(c, plan);
    }
    return NULL;
}

int dnn_plan_build(const struct dnn_calls *c, void *handle, void *device, const struct dnn_graph *graph, size_t most,
                   void **ret_plan, size_t *ret_workspace, char *why, size_t why_size)
{
    void *heuristics = take(c, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR), *config[ENGINES] = {NULL}, *plan = NULL;
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    char words[160] = "";
    size_t least = SIZE_MAX;
    int64_t n = 0;

    for (int i = 0; i < ENGINES; i++)
        config[i] = take(c, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (heuristics &&
        c->set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
               (const void *)&graph->graph) == CUDNN_STATUS_SUCCESS &&
        c->set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode) == CUDNN_STATUS_SUCCESS &&
        for_device(c, heuristics, device, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP) && c->finalize(heuristics) == CUDNN_STATUS_SUCCESS &&
        c->get(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, ENGINES, &n,
               (void *)config) == CUDNN_STATUS_SUCCESS)
        plan = first_plan(c, handle, device, config, MIN(n, (int64_t)ENGINES), most, ret_workspace, &least);
    if (!plan && least != SIZE_MAX) {
        snprintf(why, why_size, "cuDNN's plans work in %zu KiB and more, %zu are the most", least >> 10, most >> 10);
    } else if (!plan) {
        c->last_error(words, sizeof(words));
        snprintf(why, why_size, "cuDNN has no plan among %lld: %s", (long long)n, words);
    }
    for (int i = 0; i < ENGINES; i++)
        drop(c, config[i]);
    drop(c, heuristics);
    if (!plan)
        return -ENOTSUP;
    *ret_plan = plan;
    return 0;
}

int dnn_plan_run(const struct dnn_calls *c, void *handle, void *plan, void *const pointer[DNN_TENSORS],
                 const bool uses[DNN_TENSORS], void *workspace)
{
    void *pack = take(c, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR), *used[DNN_TENSORS];
    int64_t id[DNN_TENSORS];
    int n = 0;
    bool ok;

    for (int i = 0; i < DNN_TENSORS; i++)
        if (uses[i]) {
            id[n] = i + 1;
            used[n++] = pointer[i];
        }
    ok = pack && c->set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, id) == CUDNN_STATUS_SUCCESS &&
         c->set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n,
                (const void *)used) == CUDNN_STATUS_SUCCESS &&
         c->set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                (const void *)&workspace) == CUDNN_STATUS_SUCCESS &&
         c->finalize(pack) == CUDNN_STATUS_SUCCESS && c->execute(handle, plan, pack) == CUDNN_STATUS_SUCCESS;
    drop(c, pack);
    return ok ? 0 : -EIO;
}
