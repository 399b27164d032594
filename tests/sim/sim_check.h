/* sim_check.h - the judge of a history: three writers must tell the same story, and nobody may be told what is not durable.
 *
 * Joined all the way: the ledger's transactions as they commit, the journal's records as they are synced, the consumed lists of
 * committed manifests, the acknowledgements that workers received, the leases as they are granted and renewed. A contradiction
 * ends the history with sim_fail(). */
#pragma once

#include "tests/sim/sim_world.h"

struct sim_check;

struct sim_check *sim_check_new(void);
struct sim_check *sim_check_free(struct sim_check *check);

/* One effect of a ledger transaction is being committed. `event` caused it. */
void sim_check_commit(struct sim_world *w, const struct conductor_effect *effect, const struct conductor_event *event);
/* The coordinator says this: the ledger must hold it already. */
void sim_check_send(struct sim_world *w, const struct conductor_effect *effect);
/* Around a step (sim_check_leases.c): leases are renewed by their own fence and a larger step only, and shortened by silence
 * only. */
struct sim_leases { struct lease *items; size_t n, capacity; };     /* as they were before the step */
struct sim_leases *sim_check_leases(struct sim_world *w);
void sim_check_leases_before(struct sim_world *w);
void sim_check_leases_after(struct sim_world *w, const struct conductor_event *event);
/* A worker received ACCEPTED or DUPLICATE: this trajectory is never lost. */
void sim_check_acknowledged(struct sim_world *w, uint64_t episode, const uint8_t digest[SHA256_SIZE]);
/* After a crash of the learner, and at the end. */
void sim_check_journal(struct sim_world *w);
/* A version was renamed into place. */
void sim_check_manifest(struct sim_world *w, const struct sim_version *version);
/* The run has finished (or stopped): everything has ended, the three agree. */
void sim_check_end(struct sim_world *w);

/* A number for all that the run decided and nothing that chance decided: equal for a run with faults and one without. */
uint64_t sim_check_story(const struct sim_world *w);
