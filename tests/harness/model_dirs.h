/* model_dirs.h - a folder with a good checkpoint of several shards, and copies of it to break. Failures end the test. */
#pragma once

#include <stddef.h>

#include "tests/harness/scratch.h"

extern struct model_dirs {
    char root[SCRATCH_PATH];    /* of all directories of a test */
    char good[SCRATCH_PATH + 8];        /* a sharded bf16 checkpoint */
} model_dirs;

/* For cmocka_run_group_tests. */
int model_dirs_set_up(void **state);
int model_dirs_tear_down(void **state);

char *model_dirs_path(const char *dir, const char *name);       /* good until the call after the next */
void model_dirs_read(const char *path, char **ret, size_t *ret_n);      /* caller frees */
void model_dirs_write(const char *path, const void *bytes, size_t n);
const char *model_dirs_copy(void);                      /* a fresh copy of the good checkpoint, to break; in place of the last */
