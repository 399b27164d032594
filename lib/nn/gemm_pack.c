#include "nn/gemm_pack.h"

#include "nn/cpu/kernels.h"

struct gemm_pack *gemm_pack_new(int64_t k, int64_t n, bool fast)
{
    struct gemm_pack *pack = calloc(1, sizeof(*pack));
    int64_t depth = fast ? gemm_pairs(k) : k;
    void *panels = NULL;

    if (!pack)
        return NULL;
    if (posix_memalign(&panels, 64, (size_t)(depth * gemm_padded(n) + 16) * sizeof(float))) {
        free(pack);
        return NULL;
    }
    *pack = (struct gemm_pack) {.k = k, .n = n, .panels = fast ? NULL : panels, .pairs = fast ? panels : NULL};
    return pack;
}

struct gemm_pack *gemm_pack_free(struct gemm_pack *pack)
{
    if (!pack)
        return NULL;
    free(pack->panels);
    free(pack->pairs);
    free(pack);
    return NULL;
}

void gemm_pack_fill(struct gemm_pack *pack, const float *source, bool transposed)
{
    int64_t row = transposed ? pack->k : pack->n;

    if (pack->pairs)
        cpu_kernels()->gemm_bf16_pack(pack->pairs, source, row, pack->k, pack->n, transposed);
    else
        cpu_kernels()->gemm_pack(pack->panels, source, row, pack->k, pack->n, transposed);
}
