/* start_policy.h - the policy a run starts from, as RUN/policies/v000000: a copy of policy.init, or, when that is a PEFT adapter,
 * of what it and its base make (nn/models/openvla_start.h). Done once; later changes to the originals do not matter. */
#pragma once

#include "daemon/run_config.h"
#include "nn/models/openvla_fit.h"
#include "run/manifest.h"

/* What its files are fitted to (openvla_fit_find); strings are the configuration's. */
struct openvla_fit_ask start_policy_ask(const struct run_config *config);
/* *manifest: run is set; the rest is filled. When v000000 is there already, it is read from there. */
int start_policy_import(const char *run_dir, const struct run_config *config, struct manifest *manifest, struct error *error);
