/* shard_sum.h - gradients of the virtual shards, added in one fixed tree.
 *
 * A minibatch is always cut into 8 shards, whoever computes them. Neighbours are added first, then neighbouring pairs, and
 * so on: a rank that holds 1, 2, 4 or 8 consecutive shards sums a whole subtree, and the ranks' sums are added by the same
 * call. So the total has the same bits for any number of threads and ranks. */
#pragma once

#include <stdint.h>

enum { VIRTUAL_SHARDS = 8 };

/* Sum n arrays of `numel` floats into shards[0]; the others are overwritten. */
void shard_tree_sum(float **shards, int n, int64_t numel);
