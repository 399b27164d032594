/* collective.h - the learner's ranks add up their gradients: a gather over lib/wire, rank 0 in the middle.
 *
 * In each step of a plan every rank sends its part to rank 0 (Reduce), which answers each with all parts in rank order once
 * they are there; every rank then adds them in the same tree (train/shards.h), so all ranks hold the same bits. A gather is
 * known by (plan, number within the plan): a rank that was restarted begins its plan anew, which the others notice; they give
 * up the plan with -ECONNRESET and it is carried out again. It is over for all when rank 0 has committed its version, or for
 * none: the others wait for its word (collective_end), so that nobody is done with a plan that comes again.
 *
 * Thread rule: collective_gather blocks its thread, the train thread or the one that adds up gradients meanwhile
 * (train/reducer.h), one at a time; everything else is for the loop's thread. */
#pragma once

#include "daemon/loop.h"
#include "wire/client.h"
#include "wire/server.h"

enum { COLLECTIVE_RANKS_MAX = 8 };

struct collective;

/* ranks: 1, 2, 4 or 8. */
int collective_new(struct loop *loop, struct wire *wire, unsigned rank, unsigned ranks, struct collective **ret);
/* When no thread gathers any more and the loop has turned after that: what was posted refers to it. */
struct collective *collective_free(struct collective *collective);
DEFINE_FREEP(struct collective, collective_free)

/* Rank > 0: where rank 0 serves, from the coordinator's list; again when it moved. */
int collective_connect(struct collective *collective, const char *address, const char *key, struct error *error);
/* Rank 0: called on the loop's thread when another rank has begun our plan anew and no gather goes on that would notice. Once,
 * before the first plan. */
typedef void collective_anew_fn(unsigned rank, void *arg);
void collective_on_anew(struct collective *collective, collective_anew_fn *anew, void *arg);
/* Rank 0: a Reduce has come in; takes the request in every case. */
void collective_request(struct collective *collective, struct request *request);

/* On the train thread, before a plan: gathers are numbered from 0 under this digest. */
void collective_begin(struct collective *collective, const void *plan_digest);
/* struct group's gather. -ECONNRESET: another rank began anew. -ECANCELED: collective_abort. */
int collective_gather(void *collective, const void *mine, size_t bytes, void *ret_all);
/* On the train thread, after a plan that came to `result` on this rank. Rank 0: 0 is said once the version is committed; never
 * waits. The others, with 0: wait for that. Returns result; -ECONNRESET: rank 0 did not commit, or has begun anew. */
int collective_end(struct collective *collective, int result);
/* The ranks, as bits, that the gather in progress has waited for for COLLECTIVE_LATE_MS; 0: none. Above rank 0 that is rank 0, also
 * while it waits for another itself. */
enum { COLLECTIVE_LATE_MS = 30000 };
uint32_t collective_late(struct collective *collective, uint64_t now_ms);
/* Any thread: the gather in progress, and all later ones, end with -ECANCELED. */
void collective_abort(struct collective *collective);
