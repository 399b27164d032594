/* reducer.h - on a CPU: a thread that adds up gradients bucket by bucket while shards are still being computed.
 *
 * Buckets are taken in the order of their numbers, each once all of this rank's shards have it whole: summed in the tree of
 * shard_sum.h, gathered over the ranks, summed there. So a bucket is on its way to the others while the way back still computes
 * the ones before it in the arena.
 *
 *   reducer_start -> reducer_whole from the shards' threads -> reducer_finish
 *
 * The group's gather is this thread's until reducer_finish. */
#pragma once

#include "train/buckets.h"
#include "train/shards.h"

struct reducer;

/* own: shards of this rank. out: the sum goes there, like the arena. All are borrowed. -ENOMEM, -EAGAIN. */
int reducer_start(const struct buckets *buckets, const struct group *group, int own, float *out, struct reducer **ret);
/* Shard `own` of this rank has the bucket whole in grad, which is the reducer's until the end: it is overwritten. Any thread. */
void reducer_whole(struct reducer *reducer, int bucket, int own, float *grad);
/* r: what the shards came to; negative: no further bucket is begun. Waits for what is under way. Returns r, or what went wrong
 * here. */
int reducer_finish(struct reducer *reducer, int r);
