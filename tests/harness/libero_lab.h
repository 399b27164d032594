/* libero_lab.h - LIBERO's files for tests: found or the test is skipped, with a folder of compiled models of the test's own.
 *
 *   cmocka_run_group_tests(tests, libero_lab_find, libero_lab_clean_up);  in each test first: libero_lab_need_files() */
#pragma once

#include "sim/suites/libero/assets.h"
#include "sim/suites/libero/task.h"
#include "tests/harness/scratch.h"

enum { SPATIAL, OBJECT, GOAL, LONG };           /* of libero_suites */

struct libero_lab {
    struct libero_assets assets;
    char cache[SCRATCH_PATH];
    struct sim_options options;                 /* of a suite with that cache */
    char missing[480];                          /* why there are no files; "": they are here */
};
extern struct libero_lab libero;

int libero_lab_find(void **state);
int libero_lab_clean_up(void **state);

/* Skips the test where LIBERO_ROOT or robosuite's files (make libero-assets) are missing. */
void libero_lab_need_files(void);
/* And where GANTRY_GOLDENS holds nothing of LIBERO; else that folder. */
const char *libero_lab_need_goldens(void);
/* -> the caller closes; fails the test with the line. */
struct libero_task *libero_lab_open(int suite, int index);
