/* journal_internal.h - what journal.c (index, reading) and journal_write.c (appending) share. Private to lib/run. */
#pragma once

#include <pthread.h>
#include <zstd.h>

#include "run/journal.h"

/* uthash ends the process on an allocation failure unless told otherwise; here the entry is simply not added. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

enum { JOURNAL_PATH = 512 };

struct segment {
    uint32_t stage, iteration;
    bool sealed;
    bool broken;                /* a failed write could not be taken back yet: no appends until it is */
    int fd;                     /* open for appending, or -1 */
    uint64_t end, synced;       /* bytes written; bytes known durable */
    uint64_t size;              /* of the file, for journal_bytes */
    struct segment *next;
};

struct node {
    struct journal_entry entry;
    struct segment *segment;
    UT_hash_handle hh;
};

struct journal {
    char dir[JOURNAL_PATH - 64];
    uint64_t run;
    enum journal_mode mode;
    struct segment *segments;
    struct segment *current;    /* appended to */
    struct node *index;         /* by episode */
    pthread_mutex_t lock;       /* index and segments: appending thread against readers */
    ZSTD_CCtx *compressor;
    char *buffer;               /* one record being put together */
    size_t buffer_size;
};

void journal_segment_path(const struct journal *journal, const struct segment *segment, char ret[JOURNAL_PATH]);
struct segment *journal_find_segment(struct journal *journal, uint32_t stage, uint32_t iteration);     /* NULL: none */
/* Into the list; its file is the caller's affair. -ENOMEM. */
int journal_add_segment(struct journal *journal, uint32_t stage, uint32_t iteration, bool sealed, struct segment **ret);
/* Under the lock, or before anybody else has the journal. -EBADMSG: the episode lies in a segment already, and the line says in
 * which; -ENOMEM. */
int journal_index_add(struct journal *journal, struct segment *segment, const struct journal_entry *entry, struct error *error);
