/* journal_thread.h - the one thread that writes the journal: append, fsync, and only then say so.
 *
 * Jobs run in the order given. Appends that arrive while the disk is busy share one fsync: the thread syncs when nothing is
 * waiting, or after JOURNAL_BATCH of them. `appended` runs on the loop's thread for each append, with 0 once it is durable,
 * or -errno; after a failed write or sync all appends since the last good sync have failed (see run/journal.h).
 * A segment that could not be opened or sealed (a full disk) is opened by its first append, or sealed after a later good sync.
 * Thread rule: the loop's thread calls; `bytes` stay valid until `appended`. */
#pragma once

#include "daemon/loop.h"
#include "run/journal.h"

enum { JOURNAL_BATCH = 16, JOURNAL_QUEUE = 1024 };

struct journal_thread;
typedef void journal_appended_fn(uint64_t episode, uint64_t token, int result, void *arg);

/* The journal is borrowed. */
int journal_thread_new(struct loop *loop, struct journal *journal, journal_appended_fn *appended, void *arg,
                       struct journal_thread **ret);
struct journal_thread *journal_thread_free(struct journal_thread *thread);      /* does what was asked for first */
DEFINE_FREEP(struct journal_thread, journal_thread_free)

/* -ENOBUFS, -ENOMEM: not taken; the caller treats an append as failed. */
int journal_thread_segment(struct journal_thread *thread, uint32_t stage, uint32_t iteration);
int journal_thread_seal(struct journal_thread *thread, uint32_t stage, uint32_t iteration);
int journal_thread_append(struct journal_thread *thread, uint32_t stage, uint32_t iteration, uint64_t episode, uint64_t token,
                          const void *meta, size_t n_meta, const void *frames, size_t n_frames);
/* The last write or sync failed for want of space. Any thread. */
bool journal_thread_full(const struct journal_thread *thread);
