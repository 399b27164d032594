/* fetch_internal.h - between fetch.c (the loop's thread) and fetch_disk.c (the worker's): one of them holds the fields at a
 * time. */
#pragma once

#include "serve/fetch.h"
#include "serve/policy_version.h"
#include "serve/pull.h"

enum { FETCH_MIB = 1 << 20, KEEP_MAX = 16 };

/* One chunk that was asked for: from the request until its bytes are written. */
struct chunk {
    struct fetch *fetch;
    uint32_t file;
    uint64_t offset, call;              /* call 0: answered */
    uint8_t *bytes; size_t n;
    struct chunk *next;
};

struct target { int kind; uint64_t number; uint8_t digest[SHA256_SIZE]; };

enum step { STEP_LOOK, STEP_WRITE, STEP_COMMIT };   /* what the worker is at */

struct fetch {
    struct loop *loop;
    struct wire *wire;
    struct worker *worker;
    struct wire_client *client;
    Gantry__VersionKind kind;
    fetch_done_fn *done;
    void *arg;
    struct cache cache;

    bool active;                        /* until done() */
    int ended; char why[400];           /* how it will be done when the job in hand is back; 0: it goes on */
    struct target wanted, now;          /* now: it, or a base below it */
    int bases;
    uint64_t keep[KEEP_MAX]; size_t n_keep;
    bool for_manifest;                  /* the pull in hand is of manifest.json alone */
    bool pulling;                       /* what the learner says counts; implies active */
    struct pull pull;
    struct chunk *chunks;
    struct { struct pull_event items[PULL_WINDOW]; size_t n; } later;       /* events that arose while effects were carried out */
    uint64_t bytes_total, started_ms, started_bytes;

    /* the job in hand; the worker's until it is posted back */
    bool job;
    enum step step;
    int result;
    struct error error;
    char dir[VERSION_PATH];             /* being brought, or whole */
    int lock;                           /* of the .pull directory */
    bool whole, has_base;
    struct target base;
    struct manifest manifest;
    struct pull_file files[PULL_FILES];
    uint8_t digests[PULL_FILES][SHA256_SIZE];
    size_t n_files;
    struct { struct chunk *chunk; bool last; } write;
    int fd; uint32_t fd_file; uint64_t fd_offset;       /* the file that is being written */
    struct sha256 sha;                  /* of its first fd_offset bytes */
};

/* The worker's thread: carries out `step`, leaves its result. */
void fetch_disk_work(struct fetch *fetch);
/* Close what is open in the cache; between jobs. */
void fetch_disk_let_go(struct fetch *fetch);
