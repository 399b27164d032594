/* journal.h - the data set: every admitted trajectory, durable before it is acknowledged.
 *
 * RUN/journal/<stage>-<iteration>.open is appended to; sealed it is <stage>-<iteration>.seg. A segment is a header, one record
 * per episode, and when sealed a footer that indexes it:
 *
 *   record: struct journal_header (96 bytes, own CRC) | trajectory (packed protobuf, verbatim) | frames (zstd level 1)
 *
 * A record names its run, stage and iteration: one that was written elsewhere is damage. It carries the offset that was
 * durable when it was written. On opening, a damaged record after which some record claims durability was acknowledged: that
 * is an error naming file and offset. Otherwise nothing from it on was acknowledged (a torn tail) and it is cut off, which is
 * said in the notice.
 *
 *   writer: journal_open(JOURNAL_WRITE) -> journal_segment -> [journal_append* -> journal_sync]* -> journal_seal -> journal_close
 *   reader: journal_open(JOURNAL_READ)  -> journal_find, journal_load, journal_list
 *
 * A reader may read beside a writer of another process (learner ranks do): it knows what was durable when it was opened, and finds
 * it also when that is sealed meanwhile; what journal_retain drops is gone.
 *
 * After a failed append or sync nothing since the last good sync is in the journal any more (a failed fsync may have lost
 * pages silently): forget those deliveries, they were not acknowledged, and they will be delivered again. Where even taking them
 * back fails, every append and seal is -EIO until the journal is opened anew.
 * Thread rule: append, sync, seal on one thread; find, load, list, retain on any. Failure rule: -errno, *error filled.
 * Fault points: journal.write, journal.fsync, journal.seal, journal.rename. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/sha256.h"

struct journal;
enum journal_mode { JOURNAL_READ, JOURNAL_WRITE };

struct journal_entry {
    uint64_t episode;
    uint32_t stage, iteration;
    uint8_t digest[SHA256_SIZE];    /* SHA-256 of trajectory bytes, then raw frames */
    uint64_t offset;                /* of its header in the segment */
    uint32_t meta_size;             /* packed Trajectory */
    uint32_t packed_size;           /* frames as stored */
    uint64_t frames_size;           /* frames as loaded: of the observations that were drawn */
    bool durable;                   /* a sync has succeeded since */
    bool sealed;
};

/* Open the directory (made if missing when writing) and rebuild the index. `run` is checked against every segment.
 * *notice (may be NULL) says what was cut off; its errnum is 0 when nothing was. */
int journal_open(const char *dir, uint64_t run, enum journal_mode mode, struct journal **ret, struct error *notice,
                 struct error *error);
struct journal *journal_close(struct journal *journal);
DEFINE_FREEP(struct journal, journal_close)

/* Append to this segment from now on; makes it if missing, and syncs the one before. -EROFS: it is sealed, or opened to read. */
int journal_segment(struct journal *journal, uint32_t stage, uint32_t iteration, struct error *error);

/* Write one record (not yet durable). -EEXIST: the episode is in the journal already; *ret_digest is then that of the first. */
int journal_append(struct journal *journal, uint64_t episode, const void *meta, size_t n_meta, const void *frames,
                   size_t n_frames, uint8_t ret_digest[SHA256_SIZE], struct error *error);
int journal_sync(struct journal *journal, struct error *error);     /* all appended records are durable now */
int journal_seal(struct journal *journal, uint32_t stage, uint32_t iteration, struct error *error);     /* 0: also if it was */
/* Retention: drop the sealed segments of `stage` whose iteration is below `first`. Any thread. */
int journal_retain(struct journal *journal, uint32_t stage, uint32_t first);

int journal_find(struct journal *journal, uint64_t episode, struct journal_entry *ret);     /* -ENOENT */
/* One episode; caller frees both. ret_frames NULL: only the trajectory. -ENOENT: there is none of this id; -EBADMSG: damaged,
 * *error names file and offset. */
int journal_load(struct journal *journal, uint64_t episode, uint8_t **ret_meta, size_t *ret_n_meta, uint8_t **ret_frames,
                 size_t *ret_n_frames, struct error *error);
/* Entries of a stage and iteration (JOURNAL_ALL: any), in episode-id order; caller frees. */
#define JOURNAL_ALL UINT32_MAX
int journal_list(struct journal *journal, uint32_t stage, uint32_t iteration, struct journal_entry **ret, size_t *ret_n);
uint64_t journal_bytes(const struct journal *journal);      /* on disk */
