#include "nn/device/dnn_key.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { ALIGN = 256, TENSOR_ALIGN = 16 };

static int64_t rows(const int32_t *start, int i) { return start[i + 1] - start[i]; }

static void *moved(const void *from, int64_t elements) { return from ? (char *)(uintptr_t)from + elements * 2 : NULL; }

int dnn_piece(const struct device_attention *a, int first, struct device_attention *ret)
{
    int alike = 1, n = DNN_PIECE;

    *ret = *a;
    if (!a->start_here)
        return a->n;
    while (alike < DNN_PIECE && first + alike < a->n && rows(a->start_here, first + alike) == rows(a->start_here, first) &&
           rows(a->asking_here, first + alike) == rows(a->asking_here, first))
        alike++;
    while (n > alike)
        n /= 4;
    ret->n = n;
    ret->alike = true;
    ret->longest = rows(a->start_here, first);
    ret->longest_asking = rows(a->asking_here, first);
    ret->start = a->start + first;
    ret->asking = a->asking + first;
    ret->start_here = ret->asking_here = NULL;
    ret->q = moved(a->q, a->asking_here[first] * a->q_stride);
    ret->k = moved(a->k, a->start_here[first] * a->kv_stride);
    ret->v = moved(a->v, a->start_here[first] * a->kv_stride);
    ret->out = moved(a->out, a->asking_here[first] * a->out_stride);
    ret->dout = moved(a->dout, a->asking_here[first] * a->out_stride);
    ret->dq = moved(a->dq, a->asking_here[first] * a->q_stride);
    ret->dk = moved(a->dk, a->start_here[first] * a->kv_stride);
    ret->dv = moved(a->dv, a->start_here[first] * a->kv_stride);
    ret->lse = a->lse ? a->lse + (int64_t)a->asking_here[first] * a->heads : NULL;
    return n;
}

static bool is_aligned(const struct device_attention *a)
{
    uintptr_t all = (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v | (uintptr_t)a->out | (uintptr_t)a->dout |
                    (uintptr_t)a->lse | (a->fresh ? (uintptr_t)a->dq | (uintptr_t)a->dk | (uintptr_t)a->dv : 0);

    return all % TENSOR_ALIGN == 0 && (a->q_stride | a->kv_stride | a->out_stride) % 8 == 0;
}

bool dnn_key_of(enum device_type type, const struct device_attention *a, bool backward, struct dnn_key *ret)
{
    if (type != DEVICE_BF16 || !a->alike || a->dim % 8 || a->dim > DEVICE_MAX_HEAD || a->n < 1 || a->longest < 1 ||
        a->longest_asking < 1 ||
        (a->causal && a->longest_asking != a->longest) || (backward && a->longest == 1) || !is_aligned(a))
        return false;
    memset(ret, 0, sizeof(*ret));
    ret->n = a->n;
    ret->heads = a->heads;
    ret->group = a->group;
    ret->dim = a->dim;
    ret->keys = a->longest;
    ret->asking = a->longest_asking;
    ret->q_stride = a->q_stride;
    ret->kv_stride = a->kv_stride;
    ret->out_stride = a->out_stride;
    ret->causal = a->causal;
    ret->stats = backward || a->lse;
    ret->backward = backward;
    if (backward) {             /* into scratch, side by side, where what is asked for adds */
        ret->fresh = a->fresh;
        ret->dq_stride = a->fresh ? a->q_stride : a->heads * a->dim;
        ret->dkv_stride = a->fresh ? a->kv_stride : a->heads / a->group * a->dim;
    }
    return true;
}

static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

struct dnn_scratch dnn_lay_out(const struct dnn_key *k, size_t plan_bytes)
{
    struct dnn_scratch s = {0};
    size_t q = k->fresh ? 0 : aligned((size_t)(k->n * k->asking * k->dq_stride) * 2);
    size_t kv = k->fresh ? 0 : aligned((size_t)(k->n * k->keys * k->dkv_stride) * 2);

    if (k->backward) {
        s.dk = q;
        s.dv = q + kv;
        s.sum = q + 2 * kv;
        s.plan = s.sum + aligned((size_t)(k->n * k->asking * k->heads) * sizeof(float));
    }
    s.bytes = s.plan + plan_bytes;
    return s;
}

bool dnn_is_sound(size_t version, const struct dnn_key *k)
{
    return k->backward ? version > 91500 || k->keys % 128 == 0 : version > 90900 || !k->causal || k->asking > 1;
}

float dnn_masked(size_t version) { return version < 91000 ? -FLT_MAX : -INFINITY; }

size_t dnn_plan_most(const struct dnn_key *k)
{
    enum { TILE = 128, SLACK = 4096 };
    int64_t asking = k->asking, keys = k->keys;

    if (!k->backward)
        return (size_t)(k->n * k->heads * asking * keys) * sizeof(float) + SLACK;
    asking = (asking + TILE - 1) / TILE * TILE;
    keys = (keys + TILE - 1) / TILE * TILE;
    return (size_t)(k->n * k->heads) * (size_t)(asking * keys + k->asking * k->dim) * sizeof(float) + SLACK;
}
