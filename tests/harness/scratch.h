/* scratch.h - a directory for what a test or a fuzz target writes: below $TMPDIR, else /tmp, and nobody's litter.
 *
 * It is locked as long as its process, or a child that it forked, lives. Whoever asks for one removes those that nobody holds any
 * more first: of tests that failed or were killed. So their files can be looked at until the next test starts. */
#pragma once

enum { SCRATCH_PATH = 64 };

/* A new, empty directory, by its path. Who can have none aborts. */
void scratch_new(char ret[SCRATCH_PATH]);
/* The same in memory (/dev/shm) where there is such a place: for who writes a million files. */
void scratch_new_in_memory(char ret[SCRATCH_PATH]);

/* For cmocka_unit_test_setup_teardown, or a group: scratch_dir is new and empty before, and gone behind it; no state. */
extern char scratch_dir[SCRATCH_PATH];
const char *scratch_at(const char *name);       /* scratch_dir/NAME; good for 64 calls */
int scratch_set_up(void **state);
int scratch_tear_down(void **state);
