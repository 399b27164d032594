/* preflight_device.h - will the run fit the GPUs that its configuration names? From the configuration and the headers of
 * checkpoints alone, before anything starts: is each device there, and is what all daemons of this run want of its memory free?
 *
 * What is added up is what the daemons themselves foretell later (train/device_memory.h): two versions in each server, in a learner
 * the larger of the policy's training and the reward model's; CUDA contexts are not in it. */
#pragma once

#include "daemon/run_config.h"
#include "nn/models/openvla.h"
#include "nn/models/qwen_vl.h"

/* What judges: a directory of either kind, opened; both NULL: the policy's own trunk. */
struct reward_source { struct openvla *trunk; struct qwen_vl *backbone; };

/* The largest minibatch of the policy, or of the reward model; 0: it is not trained. */
int preflight_batch(const struct run_config *config, bool reward);

/* policy and reward: opened, not loaded; they are marked by what they will keep as bf16. -ENODEV: no driver, an old one, no such
 * device; -ENOMEM: too little is free. One line either way, with the key to change. */
int preflight_devices(const struct run_config *config, struct openvla *policy, const struct reward_source *reward,
                      struct error *error);
