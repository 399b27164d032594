/* report.h - RUN/report.html: the whole evidence of a run in one file that needs nothing else.
 *
 * Reads the ledger (read only; not while the coordinator holds it), summary.json when the eval stage has written it, and
 * the journal for film strips. Parts of a run that are not there yet are left out of the page, and it says so.
 * Failure rule: -errno, *error names what could not be read; no half page is left behind. */
#pragma once

#include "base/error.h"

int report_write(const char *run_dir, const char *path, struct error *error);
