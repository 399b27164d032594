/* openvla_adapter.h - a model on disk as an adapter: A and B (PEFT's files, fp32: they are the optimiser's masters), the heads,
 * and base.json, which names the checkpoint below them by the digest of its manifest.
 *
 * openvla_load reads such a directory like any other: the base is loaded, the adapters are attached, not merged.
 * Failure rule: -errno with one line; nothing is half-loaded. */
#pragma once

#include <limits.h>

#include "nn/models/openvla_lora.h"

/* 0: DIR is no adapter; 1: *ret is its base's directory, whose manifest.json is the one that was named. -ENOENT, -EBADMSG. */
int openvla_adapter_base(const char *dir, char ret[PATH_MAX], struct error *error);
/* The same as base.json says it, without looking whether it is there: the directory seen from DIR, and its manifest's SHA-256. */
int openvla_adapter_names(const char *dir, char ret_base[PATH_MAX], char ret_sha256[65], struct error *error);
/* Into a directory that exists. What lora_spec.base named must lie there, seen from DIR, with its manifest.json. fsyncs. */
int openvla_adapter_save(const struct openvla *model, const char *dir, struct error *error);
/* What adapter_config.json calls the base; NULL: no adapters, or none named. Borrowed. */
const char *openvla_adapter_base_name(const struct openvla *model);
