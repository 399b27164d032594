/* openvla_start.h - a PEFT adapter directory as the policy a run starts from: which base it is for, and the two as one directory.
 *
 * Trained whole, the start is base + adapter, added in fp32 and rounded once to what the base is kept in. Trained by adapters,
 * the start is the base's files and the adapter's beside them: openvla_load attaches such an adapter, and training goes on with
 * it. Thread rule: none.  Failure rule: -errno with one line; nothing is half-written that the caller does not throw away. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/error.h"

/* Has DIR an adapter_config.json? */
bool openvla_start_is_adapter(const char *dir);
/* The base of the adapter in DIR: `given` unless it is "", else what base.json names (by digest), else what adapter_config.json
 * names, or DIR itself when the base's files lie there. -ENOENT: that is no directory with a config.json; -EINVAL: an adapter
 * itself. */
int openvla_start_base(const char *dir, const char *given, char ret[PATH_MAX], struct error *error);
/* Both as one directory `to` (exists, empty). The adapter is tried on the base either way: one for another base is refused
 * here. */
int openvla_start_write(const char *adapter, const char *base, bool merge, const char *to, struct error *error);
