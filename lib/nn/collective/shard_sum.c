#include "nn/collective/shard_sum.h"

#include "nn/cpu/kernels.h"

void shard_tree_sum(float **shards, int n, int64_t numel)
{
    for (int stride = 1; stride < n; stride *= 2)
        for (int i = 0; i + stride < n; i += 2 * stride)
            cpu_kernels()->accumulate(shards[i], shards[i + stride], numel);
}
