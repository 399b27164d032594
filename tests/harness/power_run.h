/* power_run.h - a run of both daemons in one process, in the order of docs/architecture.md, with the product's own ledger,
 * journal and versions: what it did and may be held to is noted in memory that all its lives share. For
 * tests/unit/test_power_loss.c. */
#pragma once

#include <stdio.h>
#include <unistd.h>

#include "run/ledger.h"
#include "tests/harness/power_disk.h"

enum { POWER_ITERATIONS = 4, POWER_EPISODES = 4, POWER_META = 40, POWER_FRAMES = 900, POWER_RUN = 77, POWER_PROMISES = 512,
       POWER_STATES = 256 };

enum promise_kind { PROMISE_LEDGER, PROMISE_EPISODE, PROMISE_VERSION, PROMISE_DROPPED };
struct promise { enum promise_kind kind; size_t at; uint64_t value; uint8_t digest[SHA256_SIZE]; };
struct told {
    struct promise promises[POWER_PROMISES];
    size_t n;
    uint8_t states[POWER_STATES][SHA256_SIZE];        /* of the ledger, in the order of its commits */
    size_t n_states;
};
extern struct told *power_told;         /* the test's: shared memory */
extern bool power_resuming;             /* on a disk that a power cut left: nothing is promised any more */

/* Ends the process with status 1 and a line. */
_Noreturn void power_die(const char *file, const char *what, int line, const struct error *error);
#define MUST(x) do { if (!(x)) power_die(__FILE__, #x, __LINE__, &error); } while (0)

/* A life: on with whatever is there, to the end or until it is killed. */
void power_live(const char *dir);
struct ledger *power_enter(const char *dir);
/* What an episode's record is made of. */
void power_contents(uint64_t episode, uint8_t meta[POWER_META], uint8_t frames[POWER_FRAMES]);
/* Everything in the ledger but its epoch and the lines that starts write. */
void power_state_of(struct ledger *ledger, uint8_t ret[SHA256_SIZE]);
