/* nccl_group.h - ranks that add up numbers over NCCL, and never hang in it.
 *
 *   rank 0: nccl_group_make_id; the id reaches the others by other means -> every rank: nccl_group_join ->
 *   { nccl_group_all_reduce, nccl_group_all_gather on the caller's stream; nccl_group_wait }* -> nccl_group_free
 *
 * A peer that died leaves the others in a kernel that never ends, and NCCL tells nobody. So a group is born non-blocking, every
 * wait polls (the stream, NCCL's asynchronous error, a deadline), and a watchdog thread aborts the group when the
 * deadline of a call passes while its caller is stuck in the driver. A group that was aborted, for whatever reason, is
 * broken for good: each later call answers -ECONNRESET; free it and join a new one under a new id.
 *
 * Thread rule: one thread joins, reduces and waits; nccl_group_abort may come from any other. */
#pragma once

#include <stdbool.h>

#include "nn/collective/nccl_calls.h"

struct nccl_group;

/* What a stream is, to those who may look into one: `done` says 1 when everything enqueued has been carried out, 0 when not yet,
 * -errno when the device failed. */
struct nccl_stream {
    void *handle;               /* a cudaStream_t */
    int (*done)(void *handle);
};

/* On one rank, for all of them. */
int nccl_group_make_id(const struct nccl_calls *calls, struct nccl_id *ret, struct error *error);

/* All ranks of `id` must join within timeout_ms. calls is borrowed. -ETIMEDOUT: some did not. -EIO: NCCL's own words. */
int nccl_group_join(const struct nccl_calls *calls, const struct nccl_id *id, int rank, int ranks, unsigned timeout_ms,
                    struct nccl_group **ret, struct error *error);
/* In order when it is whole (finalize, destroy), by abort otherwise; NULL is fine. Returns NULL. */
struct nccl_group *nccl_group_free(struct nccl_group *group);
DEFINE_FREEP(struct nccl_group, nccl_group_free)

/* Enqueue: the sum over ranks replaces `count` numbers in device memory. -ECONNRESET: the group is broken. */
int nccl_group_all_reduce(struct nccl_group *group, void *data, size_t count, enum nccl_type type, void *stream);
/* Enqueue: ret_all (ranks * bytes, device memory) receives every rank's bytes in rank order; mine may lie within it at its
 * own place. */
int nccl_group_all_gather(struct nccl_group *group, const void *mine, size_t bytes, void *ret_all, void *stream);
/* Until the stream has carried out what was enqueued. -ECONNRESET: a peer died, NCCL failed or timeout_ms passed; the group is
 * then broken and nccl_group_why says how. */
int nccl_group_wait(struct nccl_group *group, const struct nccl_stream *stream, unsigned timeout_ms);

/* From any thread: whoever waits in the group comes back, and it is broken for good, with this as its why. */
void nccl_group_abort(struct nccl_group *group, const char *why);
bool nccl_group_broken(struct nccl_group *group);       /* aborted, or NCCL reported an error */
/* One line, "" while it is whole; valid until the group is freed. */
const char *nccl_group_why(struct nccl_group *group);
