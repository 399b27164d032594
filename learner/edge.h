/* edge.h - the learner as a member of the run: trajectories in, durable; plans in, versions out.
 *
 *   edge_new -> (Welcome: journal and versions on disk are read into intake, the server opens) -> ... -> edge_drain -> edge_free
 *
 * It only translates: requests and pushes become events of intake (learner/intake.h), its effects become jobs of the journal
 * and train threads, replies, and calls to the coordinator. Without a coordinator deliveries of the open iterations are still
 * taken. Thread rule: the loop's thread. */
#pragma once

#include "daemon/lifecycle.h"
#include "wire/member.h"

struct edge_options {           /* strings borrowed for edge_new only */
    const char *join, *server_key, *listen, *run_dir, *build, *device;
    unsigned threads, rank;
};

struct edge;

int edge_new(struct loop *loop, struct wire *wire, struct lifecycle *lifecycle, const struct edge_options *options,
             struct edge **ret, struct error *error);
/* Training in progress is given up at the next minibatch (it is repeated to the same bits after a restart); then Bye and
 * lifecycle_stop(0). */
void edge_drain(struct edge *edge, const char *reason);
struct edge *edge_free(struct edge *edge);
DEFINE_FREEP(struct edge, edge_free)
