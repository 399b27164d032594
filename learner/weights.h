/* weights.h - versions for servers that cannot see the run's directory: one chunk of one file an answer.
 *
 * Only what was committed is read, only by names that a version's file may have, and only so much at once that a hundred servers
 * cost rank 0 no more memory than one: beyond WEIGHTS_BYTES under way the answer is BUSY. A thread of its own reads; the loop
 * answers.
 *
 * Thread rule: the loop's thread. */
#pragma once

#include "daemon/loop.h"
#include "wire/server.h"

struct weights;

enum { WEIGHTS_BYTES = 256 << 20 };     /* read and not yet on their way to the network */

int weights_new(struct loop *loop, const char *run_dir, struct weights **ret);
/* Answers what is still being read with nothing. The server must still be there. */
struct weights *weights_free(struct weights *weights);
DEFINE_FREEP(struct weights, weights_free)

void weights_request(struct weights *weights, struct request *request);
uint64_t weights_sent(const struct weights *weights);       /* bytes, since the start */
