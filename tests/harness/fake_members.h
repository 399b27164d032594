/* fake_members.h - one learner, one worker, one actor and one PRM server that speak the real protocol and do no work.
 *
 * For tests of the coordinator as a process: real sockets, real journal and manifests, but an episode is "played" by a coin that
 * its id decides, and a version is a file of a few bytes. They live in the caller's loop and survive a coordinator's restarts. */
#pragma once

#include <uv.h>

#include "base/error.h"

struct fakes;
struct message;

/* run_dir must exist; the members wait for its coordinator. */
int fakes_new(uv_loop_t *loop, const char *run_dir, struct fakes **ret, struct error *error);
struct fakes *fakes_free(struct fakes *fakes);

/* Every push and every grant that they get is shown to fn first. */
void fakes_watch(struct fakes *fakes, void (*fn)(const struct message *message, void *arg), void *arg);

struct fakes_count { unsigned welcomes, leases, played, plans, commits, drains, refused, broken; };      /* broken: answers INTERNAL */
const struct fakes_count *fakes_count(const struct fakes *fakes);
