/* pool.h - a few threads that share out numbered pieces of work.
 *
 *   pool_new(threads) -> pool_run(n, fn, arg)* -> pool_free
 *
 * pool_run calls fn(arg, i, worker) for i = 0..n-1, each once, on `threads` threads of which the caller is one, and returns
 * when all are done. Who does which piece varies: pieces must not depend on one another. Threads sleep in between.
 * Thread rule: one pool_run at a time. */
#pragma once

#include "base/macro.h"

struct pool;
typedef void pool_fn(void *arg, int piece, int worker);     /* worker: 0 .. threads-1, for scratch */

int pool_new(int threads, struct pool **ret);       /* -EINVAL, -ENOMEM, -EAGAIN: no thread to be had */
struct pool *pool_free(struct pool *pool);
DEFINE_FREEP(struct pool, pool_free)

int pool_threads(const struct pool *pool);
void pool_run(struct pool *pool, int n, pool_fn *fn, void *arg);
