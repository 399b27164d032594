/* journal_lab.h - a directory for journals, opened or failed with the line; for tests of one process. */
#pragma once

#include "base/error.h"
#include "run/journal.h"
#include "tests/harness/scratch.h"

enum { RUN = 77 };              /* its id */

struct journal_lab {
    char dir[SCRATCH_PATH];
    struct error error;         /* of the last call that failed */
};
extern struct journal_lab journals;

/* For cmocka_unit_test_setup_teardown; no state. */
int journal_lab_set_up(void **state);
int journal_lab_tear_down(void **state);

/* DIR/folder/name ("" each: none); good for three calls more. */
const char *journal_lab_in(const char *folder, const char *name);
struct journal *journal_lab_open(const char *folder, uint64_t run, enum journal_mode mode);
/* An episode with these words and a frame of six bytes. */
void journal_lab_append(struct journal *journal, uint64_t episode, const char *meta);

/* Trajectories and frames that follow from the episode's number: put, with what journal_append answers; and found to the byte. */
int journal_lab_put(struct journal *journal, uint64_t episode);
void journal_lab_expect(struct journal *journal, uint64_t episode);
/* A journal whose segment 0004-000012 holds episodes 3, 2, 1, each acknowledged. */
void journal_lab_write_three(bool seal);
