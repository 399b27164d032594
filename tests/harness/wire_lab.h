/* wire_lab.h - a loop, a wire, a scratch directory, and a way to turn the loop until something holds. */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/harness/scratch.h"
#include "wire/client.h"
#include "wire/server.h"

struct wire_lab {
    uv_loop_t loop;
    uv_timer_t guard;           /* wakes the loop now and then; gives up after a minute */
    char dir[SCRATCH_PATH];
    char ipc[96];               /* an address in dir */
};

void lab_open(struct wire_lab *lab);

/* Asserts that no handle was left open. */
void lab_close(struct wire_lab *lab);

/* Turn the loop until *flag (or *count reaches want); fails the test if that does not happen within a minute. */
void lab_until(struct wire_lab *lab, const bool *flag);
void lab_until_count(struct wire_lab *lab, const unsigned *count, unsigned want);

/* Turn the loop for so long: only to show that something does NOT happen. */
void lab_settle(struct wire_lab *lab, unsigned ms);
