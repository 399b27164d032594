/* ledger_lab.h - a ledger in a directory of its own, opened anew as often as a test likes. Failures end the test. */
#pragma once

#include "run/ledger.h"
#include "tests/harness/scratch.h"

extern struct ledger_lab {
    char dir[SCRATCH_PATH], path[SCRATCH_PATH + 32];    /* DIR/ledger.sqlite */
    struct ledger_run run;      /* what it is opened with */
} ledger_lab;

/* cmocka's set-up and tear-down of a test: an empty directory, no faults armed. */
int ledger_lab_set_up(void **state);
int ledger_lab_tear_down(void **state);

struct ledger *ledger_lab_open(void);
struct ledger_episode ledger_lab_row(uint64_t episode);         /* as it is opened: stage 4, iteration 2 */
struct ledger_episode ledger_lab_played(uint64_t episode);      /* the same, journaled: a success in 17 steps */
/* Rows first, first + 1, ... in one transaction. */
void ledger_lab_add_rows(struct ledger *ledger, uint64_t first, int n);
