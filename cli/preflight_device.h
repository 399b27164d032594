/* preflight_device.h - will the run fit the GPUs that its configuration names? From the configuration and the headers of
 * checkpoints alone, before anything starts: is each device there, and is what all daemons of this run want of its memory free?
 *
 * What is added up is what the daemons themselves foretell later (train/device_memory.h), two versions in each server, without
 * CUDA contexts. */
#pragma once

#include "daemon/run_config.h"
#include "nn/models/openvla.h"

/* policy: opened, not loaded; it is marked by what it will keep as bf16. reward: NULL when the policy's own trunk judges (or a
 * policy that judges). reward_bytes: weights of a reward model with a backbone of its own, 0: none. -ENODEV: no driver, an old
 * one, no such device; -ENOMEM: too little is free. One line either way, with the key to change. */
int preflight_devices(const struct run_config *config, struct openvla *policy, int64_t reward_bytes, struct error *error);
