/* import_lab.h - demonstrations of others that are read in below scratch_dir, or refused. Failures end the test. */
#pragma once

#include "data/import.h"

#define IMPORT_SET "tests/golden/import"        /* the same demonstrations in three formats: tests/ref/make_import_data.py */
enum { IMPORT_SIDE = 16, IMPORT_PICTURE = IMPORT_SIDE * IMPORT_SIDE * 3 };     /* of its pictures */

struct import_options import_options_of(const char *format);    /* as IMPORT_SET is best read */
/* options NULL: those. The caller closes what it gets. */
struct dataset_dir *import_into(const char *to, const char *format, const char *from, const struct import_options *options);
/* It is not read, the line has `what` in it, and nothing is left behind. */
void import_refused(const char *format, const char *from, const struct import_options *options, const char *what);
