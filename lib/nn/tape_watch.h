/* tape_watch.h - when is a parameter's gradient whole? Told in the middle of a backward, as soon as it is.
 *
 *   tape_watch_new(places in the arena) -> tape->watch = watch -> passes -> tape->watch = NULL -> tape_watch_free
 *
 * On the way forward ops note the parameters that their way back will add to (ops/op.h). The backward replays records in reverse,
 * so a parameter is whole once the record of its first use is behind it; what nobody used is so at the very beginning. A block
 * that is computed twice counts as the one record that it leaves. An op that adds to what has been told already, for it noted
 * nothing, fails the pass.
 *
 * Thread rule: the tape's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct tape_watch;

/* Place `which` is whole: what adds to it has been put on the tape's stream, or done. A negative answer fails the pass with
 * it. */
typedef int tape_whole_fn(void *arg, int which);

/* begin: n offsets of parameters in the arena, ascending; borrowed. Others are ignored. -ENOMEM. */
int tape_watch_new(const int64_t *begin, int n, tape_whole_fn *fn, void *arg, struct tape_watch **ret);
struct tape_watch *tape_watch_free(struct tape_watch *watch);   /* NULL is fine; returns NULL */

/* ---- for the tape and its ops ---------------------------------------------------------------------------------- */

void tape_watch_begin(struct tape_watch *watch);                        /* a new pass */
void tape_watch_note(struct tape_watch *watch, int64_t offset);         /* the op that is being run has a gradient for it */
bool tape_watch_told(const struct tape_watch *watch, int64_t offset);   /* too late to add to it */
void tape_watch_record(struct tape_watch *watch);                       /* the way forward left a record */
/* The way back: false, and nothing to be done, when it is already under way (a block within). */
bool tape_watch_return(struct tape_watch *watch, int *ret_result);
int tape_watch_replayed(struct tape_watch *watch);                      /* one more record is behind it */
