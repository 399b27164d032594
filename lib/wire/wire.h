/* wire.h - what all sockets of one process share: loop, ZeroMQ context, identity, keys.
 *
 * Calls, in order:  wire_new -> wire_set_run (when known) -> servers and clients come and go -> they are freed
 * -> wire_free.  Thread rule: the loop's thread only. */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "wire/kinds.h"
#include "wire/limits.h"

struct security;

struct wire {
    uv_loop_t *loop;            /* borrowed */
    void *zmq;                  /* ZeroMQ context */
    Gantry__Role role;          /* who we are */
    uint64_t run;               /* run id; 0: not known yet */
    uint64_t epoch;             /* messages of an older epoch are refused; 0: not known yet */
    struct security *security;  /* NULL: ipc only. Owned. */
    void (*on_stale)(void *arg);        /* a server said that our epoch is old (member.c says Hello again) */
    void *on_stale_arg;
};

/* -ENOMEM, -EMFILE. */
int wire_new(uv_loop_t *loop, Gantry__Role role, struct wire **ret);

/* All servers and clients must have been freed. Waits at most WIRE_LINGER_MS for their last messages. */
struct wire *wire_free(struct wire *wire);
DEFINE_FREEP(struct wire, wire_free)

/* The fault point KIND.send or KIND.arrive, for messages of every kind, replies and pushes too: deliver.send,
 * deliver_reply.arrive. True: this one gets lost there. */
bool wire_loses(uint32_t kind, const char *where);

/* From here on messages carry run and epoch, and those of another run or an older epoch are refused. */
void wire_set_run(struct wire *wire, uint64_t run, uint64_t epoch);
