/* golden.h - models and pictures against numbers of the original Python code.
 *
 * DIR holds checkpoint/ (a model directory) and golden/ (manifest.json and .safetensors files), or, for pictures alone,
 * manifest.json and resize.safetensors. Every tensor has a tolerance in the manifest, and that tolerance is what is checked. Each
 * group of tensors gives one line: how many, the worst error as a part of its tolerance, PASS, FAIL or SKIP with the reason.
 * Nothing that the manifest lists is left out silently. */
#pragma once

#include <stdio.h>

#include "base/error.h"

/* dtype "fp32" or "bf16": only what the reference computed so; NULL: everything. 0: all groups that can be checked pass; > 0: how
 * many fail. -errno: it could not be run. */
int golden_check(const char *dir, const char *dtype, FILE *out, struct error *error);
/* A policy's forward pass alone (towers, projector, every layer, logits of three prompts), where the process computes: on its
 * device (device_set_process). */
int golden_check_forward_pass(const char *dir, FILE *out, struct error *error);
/* The reference's bf16 run against numerics: fast, with weights as they lie in the files and with packed ones (policies only).
 * -ENOTSUP: this CPU has it not. */
int golden_check_fast(const char *dir, FILE *out, struct error *error);
