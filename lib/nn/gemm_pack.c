#include "nn/gemm_pack.h"

#include "nn/cpu/kernels.h"

struct gemm_pack *gemm_pack_new(int64_t k, int64_t n)
{
    struct gemm_pack *pack = calloc(1, sizeof(*pack));
    void *panels = NULL;

    if (!pack)
        return NULL;
    if (posix_memalign(&panels, 64, (size_t)(k * gemm_padded(n) + 16) * sizeof(float))) {
        free(pack);
        return NULL;
    }
    *pack = (struct gemm_pack) {.k = k, .n = n, .panels = panels};
    return pack;
}

struct gemm_pack *gemm_pack_free(struct gemm_pack *pack)
{
    if (!pack)
        return NULL;
    free(pack->panels);
    free(pack);
    return NULL;
}

void gemm_pack_fill(struct gemm_pack *pack, const float *source, bool transposed)
{
    cpu_kernels()->gemm_pack(pack->panels, source, transposed ? pack->k : pack->n, pack->k, pack->n, transposed);
}
