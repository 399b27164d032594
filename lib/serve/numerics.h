/* numerics.h - which products a process that computes a model uses: what the run asks for and this CPU has.
 *
 * `numerics: fast` rounds the operands of linear layers to bf16 on a device, or where the CPU has VDPBF16PS
 * (docs/adr/0003-fast-numerics.md). Where it has not, products stay strict, and that is said. Actors and learners of a run should
 * have the same: the learner measures the gap of their log-probabilities in every iteration. */
#pragma once

#include "daemon/run_config.h"

/* Whether models are to compute fast. Logs it, as often as it is called: once, at the first Welcome. */
bool numerics_fast(const struct run_config *run);
