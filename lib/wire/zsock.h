/* zsock.h - a ZeroMQ socket in a libuv loop. The one file that knows how the two live together.
 *
 * ZMQ_FD is edge triggered and only says "something happened in the mailbox"; any send, receive or ZMQ_EVENTS
 * may swallow the edge. So the fd only wakes the loop; just before each sleep (uv_prepare) the socket is asked
 * for ZMQ_EVENTS, and a uv_idle keeps the loop awake while work is left; just after the poll (uv_check) at most
 * ZSOCK_BUDGET messages are handled, so that one busy socket does not starve the others. Sockets whose fd is quiet and that
 * nobody has used since are not asked: whoever uses one gets it from zsock_socket(), each time.
 *
 * Calls, in order:  zsock_new -> (zsock_want_out)* -> zsock_free.
 * on_in is called when a message can be received: receive exactly one (all its frames) or return having taken
 * none. on_out is called while zsock_want_out(z, true) and a message can be sent.
 * Thread rule: the loop's thread only.  zsock_free may be called inside the callbacks. */
#pragma once

#include <stdbool.h>
#include <uv.h>

#include "base/macro.h"

enum { ZSOCK_BUDGET = 64 };     /* messages handled in one turn of the loop */

struct zsock;
typedef void zsock_fn(struct zsock *z, void *arg);

/* Takes `socket` (a ZeroMQ socket, bound or connected before or after). on_out may be NULL.
 * -ENOMEM, or what libuv says; then the socket is still the caller's. */
int zsock_new(uv_loop_t *loop, void *socket, zsock_fn *on_in, zsock_fn *on_out, void *arg, struct zsock **ret);

/* Closes the libuv handles, then the socket (its own linger applies). The memory goes in the loop's next turn. */
struct zsock *zsock_free(struct zsock *z);
DEFINE_FREEP(struct zsock, zsock_free)

void *zsock_socket(struct zsock *z);
void zsock_want_out(struct zsock *z, bool want);
