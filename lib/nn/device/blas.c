/* blas.c - products by cuBLASLt; what it is told of them is blas_plan.c's.
 *
 * Plans (descriptors, layouts, algorithm) are found once per shape and kept; when there are too many all are forgotten, for the
 * shapes of a run with prompts of many lengths never end. `strict` takes the algorithm found for a fixed number of rows of the
 * same weight, without splits of k, for any number of rows: then a row's numbers do not depend on its batch. */
#include "nn/device/blas.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "nn/device/blas_plan.h"

enum { SLOTS = 4096, MOST = 3072 };
#define WORKSPACE ((size_t)DEVICE_WORKSPACE)

#define FUNCTIONS(X) \
    X(cublasLtGetVersion) \
    X(cublasLtCreate) \
    X(cublasLtDestroy) \
    X(cublasLtMatmul) \
    X(cublasLtMatmulDescCreate) \
    X(cublasLtMatmulDescDestroy) \
    X(cublasLtMatmulDescSetAttribute) \
    X(cublasLtMatrixLayoutCreate) \
    X(cublasLtMatrixLayoutDestroy) \
    X(cublasLtMatrixLayoutSetAttribute) \
    X(cublasLtMatmulPreferenceCreate) \
    X(cublasLtMatmulPreferenceDestroy) \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic) \
    X(cublasLtMatmulAlgoCheck)

struct plan {
    struct blas_key key;
    bool used, refused;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* the library's: a is our B */
    cublasLtMatmulAlgo_t algo;
};

struct blas {
    void *library;
#define X(name) __typeof__(name) *name;
    FUNCTIONS(X)
#undef X
    pthread_mutex_t lock;
    cublasLtHandle_t handle; /* NULL: not made yet */
    struct plan *plans;      /* [SLOTS], open addressing */
    int n;
    char refusal[200];
};

struct blas *blas_open(void)
{
    struct blas *blas = calloc(1, sizeof(*blas));

    if (!blas)
        return NULL;
    blas->library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!blas->library)
        blas->library = dlopen("libcublasLt.so", RTLD_NOW | RTLD_LOCAL);
    blas->plans = calloc(SLOTS, sizeof(*blas->plans));
    pthread_mutex_init(&blas->lock, NULL);
    if (!blas->library || !blas->plans) {
        blas_close(blas);
        return NULL;
    }
#define X(name) \
    blas->name = (__typeof__(name) *)dlsym(blas->library, #name); \
    if (!blas->name) { \
        blas_close(blas); \
        return NULL; \
    }
    FUNCTIONS(X)
#undef X
    return blas;
}

static void plan_release(struct blas *blas, struct plan *p)
{
    if (p->desc)
        blas->cublasLtMatmulDescDestroy(p->desc);
    if (p->a)
        blas->cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        blas->cublasLtMatrixLayoutDestroy(p->b);
    if (p->c)
        blas->cublasLtMatrixLayoutDestroy(p->c);
    *p = (struct plan) {0};
}

void blas_close(struct blas *blas)
{
    if (!blas)
        return;
    for (int i = 0; blas->plans && i < SLOTS; i++)
        plan_release(blas, &blas->plans[i]);
    if (blas->handle)
        blas->cublasLtDestroy(blas->handle);
    free(blas->plans);
    if (blas->library)
        dlclose(blas->library);
    pthread_mutex_destroy(&blas->lock);
    free(blas);
}

size_t blas_version(const struct blas *blas) { return blas->cublasLtGetVersion(); }

const char *blas_refusal(const struct blas *blas) { return blas->refusal; }

/* Of the first, which tells more than a count: the product, and what the library said. Under the lock. */
static void note_refusal(struct blas *blas, const struct device_gemm *g, bool strict, const char *what, int status)
{
    if (blas->refusal[0])
        return;
    snprintf(blas->refusal, sizeof(blas->refusal),
             "%s (status %d): %lld x %lld x %lld, %s -> %s, %s%s%s%s, batch %lld, rows %lld %lld %lld apart%s", what, status,
             (long long)g->m, (long long)g->n, (long long)g->k, g->a_type == DEVICE_BF16 ? "bf16" : "fp32",
             g->c_type == DEVICE_BF16 ? "bf16" : "fp32", g->a_transposed ? "T" : "N", g->b_transposed ? "T" : "N",
             g->add ? " added" : "", g->bias ? " bias" : "", (long long)g->batch, (long long)g->a_row, (long long)g->b_row,
             (long long)g->c_row, strict ? ", strict" : "");
}

/* ---- plans ------------------------------------------------------------------------------------------------------ */

static cudaDataType_t data_type(enum device_type type) { return type == DEVICE_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

#define SET(what, object, attribute, value) \
    (blas->cublasLt##what##SetAttribute(object, attribute, &(value), sizeof(value)) == CUBLAS_STATUS_SUCCESS)

static bool make_layout(struct blas *blas, const struct blas_matrix *m, int32_t batch, cublasLtMatrixLayout_t *ret)
{
    return blas->cublasLtMatrixLayoutCreate(ret, data_type(m->type), m->rows, m->cols, m->ld) == CUBLAS_STATUS_SUCCESS &&
           (batch == 1 || (SET(MatrixLayout, *ret, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, batch) &&
                           SET(MatrixLayout, *ret, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, m->apart)));
}

static bool make_layouts(struct blas *blas, const struct blas_call *call, struct plan *p)
{
    return make_layout(blas, &call->a, call->batch, &p->a) && make_layout(blas, &call->b, call->batch, &p->b) &&
           make_layout(blas, &call->c, call->batch, &p->c);
}

static bool make_desc(struct blas *blas, const struct blas_call *call, struct plan *p)
{
    cublasOperation_t a = call->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N, b = call->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = call->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cudaDataType_t bias = data_type(call->c.type);

    return blas->cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           SET(MatmulDesc, p->desc, CUBLASLT_MATMUL_DESC_TRANSA, a) && SET(MatmulDesc, p->desc, CUBLASLT_MATMUL_DESC_TRANSB, b) &&
           SET(MatmulDesc, p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue) &&
           (!call->bias || SET(MatmulDesc, p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias));
}

static bool find_algo(struct blas *blas, const struct blas_call *call, bool strict, const struct plan *with,
                      cublasLtMatmulAlgo_t *ret)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    /* of a k that is split: parts of a sum are fp32 until all are added; by default they may be rounded to bf16 before */
    uint32_t fast = call->c.type == DEVICE_BF16 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE : CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t splits = strict ? (uint32_t)CUBLASLT_REDUCTION_SCHEME_NONE : fast;
    uint32_t a = call->a.align, b = call->b.align, c = call->c.align;
    size_t workspace = WORKSPACE;
    int found = 0;
    bool ok = blas->cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS &&
              SET(MatmulPreference, preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace) &&
              SET(MatmulPreference, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a) &&
              SET(MatmulPreference, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b) &&
              SET(MatmulPreference, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c) &&
              SET(MatmulPreference, preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c) &&
              SET(MatmulPreference, preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, splits) &&
              blas->cublasLtMatmulAlgoGetHeuristic(blas->handle, with->desc, with->a, with->b, with->c, with->c, preference, 1,
                                                   &result, &found) == CUBLAS_STATUS_SUCCESS &&
              found == 1 && result.state == CUBLAS_STATUS_SUCCESS;

    if (preference)
        blas->cublasLtMatmulPreferenceDestroy(preference);
    if (ok)
        *ret = result.algo;
    return ok;
}

static const void *bias_of(const struct device_gemm *g) { return g->c_type == DEVICE_BF16 ? g->bias_half : g->bias; }

static bool set_bias(struct blas *blas, const struct device_gemm *g, struct plan *p)
{
    const void *bias = bias_of(g);

    return !g->bias || SET(MatmulDesc, p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
}

/* strict: found for a fixed number of rows; it must then take this one, too. The bias is in place before anybody looks for an
 * algorithm: how it is aligned may decide. NULL, or what there is not. */
static const char *make_plan(struct blas *blas, const struct device_gemm *g, bool strict, struct plan *p)
{
    struct device_gemm pinned = blas_typical(g);
    struct blas_call call = blas_call_of(g), typical_call = blas_call_of(&pinned);
    struct plan typical = {0};
    cublasLtMatmulHeuristicResult_t result;
    bool ok = make_desc(blas, &call, p) && set_bias(blas, g, p) && make_layouts(blas, &call, p);

    if (!ok)
        return "cuBLASLt cannot be told of a product";
    if (!strict)
        return find_algo(blas, &call, false, p, &p->algo) ? NULL : "cuBLASLt has no algorithm";
    typical.desc = p->desc;
    ok = make_layouts(blas, &typical_call, &typical) && find_algo(blas, &typical_call, true, &typical, &p->algo);
    typical.desc = NULL;
    plan_release(blas, &typical);
    if (!ok)
        return "cuBLASLt has no algorithm for the weight";
    ok = blas->cublasLtMatmulAlgoCheck(blas->handle, p->desc, p->a, p->b, p->c, p->c, &p->algo,
                                       &result) == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE;
    return ok ? NULL : "the weight's algorithm does not take these rows";
}

static void forget(struct blas *blas)
{
    for (int i = 0; i < SLOTS; i++)
        plan_release(blas, &blas->plans[i]);
    blas->n = 0;
}

/* The plan's slot, made if need be. Under the lock. */
static struct plan *plan_for(struct blas *blas, const struct device_gemm *g, bool strict)
{
    struct blas_key key = blas_key_of(g, strict);
    uint64_t hash = blas_key_hash(&key);
    const char *missing;
    struct plan *p;

    for (p = &blas->plans[hash % SLOTS]; p->used; p = p + 1 < blas->plans + SLOTS ? p + 1 : blas->plans)
        if (!memcmp(&p->key, &key, sizeof(key)))
            return p;
    if (blas->n == MOST) {
        forget(blas);
        p = &blas->plans[hash % SLOTS];
    }
    blas->n++;
    p->used = true;
    p->key = key;
    missing = make_plan(blas, g, strict, p);
    p->refused = missing != NULL;
    if (missing)
        note_refusal(blas, g, strict, missing, CUBLAS_STATUS_NOT_SUPPORTED);
    return p;
}

int blas_gemm(struct device_stream *s, const struct device_gemm *g)
{
    struct blas *blas = s->device->blas;
    float beta = g->add ? 1.0f : 0.0f;
    bool strict = s->device->strict;
    void *workspace;
    struct plan plan;
    struct plan *found;
    cublasStatus_t status;

    if (!blas_takes(g, strict))
        return -ENOTSUP;
    workspace = device_workspace(s, WORKSPACE);
    if (!workspace)
        return -ENOMEM;
    pthread_mutex_lock(&blas->lock);
    status = blas->handle ? CUBLAS_STATUS_SUCCESS : blas->cublasLtCreate(&blas->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        blas->handle = NULL;
        note_refusal(blas, g, strict, "cuBLASLt does not start", (int)status);
    }
    found = blas->handle ? plan_for(blas, g, strict) : NULL;
    if (!found || found->refused) {
        pthread_mutex_unlock(&blas->lock);
        return -ENOTSUP;
    }
    plan = *found;
    /* the bias pointer is part of the descriptor, which is shared: set and used under the lock */
    status = set_bias(blas, g, &plan) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    if (status == CUBLAS_STATUS_SUCCESS)
        status = blas->cublasLtMatmul(blas->handle, plan.desc, &g->alpha, g->b, plan.a, g->a, plan.b, &beta, g->c, plan.c, g->c,
                                      plan.c, &plan.algo, workspace, WORKSPACE, s->stream);
    if (status != CUBLAS_STATUS_SUCCESS)
        note_refusal(blas, g, strict, "cuBLASLt does not carry out its own plan", (int)status);
    /* these three come from looking at the arguments: nothing was launched, and the own kernel can */
    found->refused |= status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE ||
        status == CUBLAS_STATUS_ARCH_MISMATCH;
    if (found->refused)
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    pthread_mutex_unlock(&blas->lock);
    return status == CUBLAS_STATUS_SUCCESS ? 0 : status == CUBLAS_STATUS_NOT_SUPPORTED ? -ENOTSUP : -EIO;
}
