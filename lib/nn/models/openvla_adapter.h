/* openvla_adapter.h - a model on disk as an adapter: A and B (PEFT's files, fp32: they are the optimiser's masters), the heads
 * and what else is trained whole (OpenVLA-OFT's side files, openvla_oft.h), and base.json (nn/base_link.h), which names the
 * checkpoint below them by the digest of its manifest.
 *
 * openvla_load reads such a directory like any other: the base is loaded, the adapters are attached, not merged.
 * Failure rule: -errno with one line; nothing is half-loaded. */
#pragma once

#include "nn/models/openvla_lora.h"

/* Into a directory that exists. What lora_spec.base named must lie there, seen from DIR, with its manifest.json. fsyncs. */
int openvla_adapter_save(const struct openvla *model, const char *dir, struct error *error);
/* Call the base of the adapters, which there are, so from here on. -ENOMEM. */
int openvla_adapter_name_base(const struct openvla *model, const char *base);
/* What adapter_config.json calls the base; NULL: no adapters, or none named. Borrowed. */
const char *openvla_adapter_base_name(const struct openvla *model);
