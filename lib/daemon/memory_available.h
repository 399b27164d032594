/* memory_available.h - how much memory is free for what is started now: the machine's, or what is left within the limits of the
 * control groups that we are in (a container's, a Slurm job's, a systemd unit's; cgroup v1 and v2). Thread rule: none. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Bytes; 0: unknown. *ret_limited: it is a control group's. root: "" for this machine; tests have a tree of their own. */
double memory_available(const char *root, bool *ret_limited);

/* Processes that the kernel has killed so far because memory, a control group's or all, ran out: of our own group where it counts
 * them, so that another container's are none of ours; else of this machine. 0: it does not say. */
uint64_t memory_oom_kills(const char *root);
