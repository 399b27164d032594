/* report_builds.h - "build A", or which builds ran a run, learned its versions, and made this report. */
#pragma once

#include "base/strbuf.h"
#include "cli/report_data.h"

/* As HTML, a part of a sentence. `here`: the build that makes the report. */
void report_builds(const struct report_data *data, const char *here, struct strbuf *out);
