/* device_group.h - the learner's ranks agree on an NCCL group, keep it, and make a new one when it broke.
 *
 * The ranks already have a way to exchange bytes that survives restarts (struct group: learner/collective.h). Over it they tell
 * one another, at the beginning of each plan, whether they still hold the group of the last one; if any does not (it was
 * restarted, or an operation failed) all drop theirs, rank 0 makes an id, and all join anew under the next epoch. A plan that
 * breaks in the middle ends with -ECONNRESET and is carried out again from its parent version, as on the CPU.
 *
 * Thread rule: the train thread; device_group_abort from any. */
#pragma once

#include "nn/collective/nccl_group.h"
#include "train/shards.h"

struct device_group;

/* calls is borrowed, host copied. */
int device_group_new(const struct nccl_calls *calls, const struct group *host, struct device_group **ret);
struct device_group *device_group_free(struct device_group *group);
DEFINE_FREEP(struct device_group, device_group_free)

/* Every rank, at the beginning of a plan. 0: all hold one group. -ECONNRESET, -ETIMEDOUT: not all joined within timeout_ms, or
 * the host's gather failed; nobody holds one then. */
int device_group_agree(struct device_group *group, unsigned timeout_ms, struct error *error);

/* The group agreed on; NULL before. Owned by this. */
struct nccl_group *device_group_nccl(struct device_group *group);
/* Counts the groups: equal on all ranks, 0 before the first. */
uint32_t device_group_epoch(const struct device_group *group);
void device_group_abort(struct device_group *group, const char *why);
