/* manifest_internal.h - manifest.json as text. Private to lib/run. */
#pragma once

#include "base/strbuf.h"
#include "run/manifest.h"

int manifest_write(const struct manifest *manifest, struct strbuf *out);    /* -ENOMEM */
