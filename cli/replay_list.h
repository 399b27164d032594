/* replay_list.h - which episodes a run's journal holds: for whoever looks for one to look at. */
#pragma once

#include "run/journal.h"
#include "run/ledger.h"

/* A line each on stdout: its number, the pass it was played in, task and state, how it ended. -errno of ledger or memory. */
int replay_list(struct ledger *ledger, struct journal *journal);
