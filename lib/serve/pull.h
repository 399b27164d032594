/* pull.h - bringing a version's files over from the learner, when its directory cannot be seen: what to ask for next, what to
 * write, when to try again.
 *
 * The files are one stream of chunks, in the manifest's order; a chunk never spans two files. Several are asked for at once, but
 * they are written in order, so what lies on disk is always a beginning of the stream: that is all there is to resuming. How many
 * bytes are under way follows the link: more while answers come quickly, half when they are slow, the least after a loss.
 *
 *   pull_init(files, each with what is on disk of it) -> [pull_step(event) -> effects]* -> PULL_DONE or PULL_FAILED
 *
 * What failed but may go better (silence, a learner that restarts, BUSY) is asked for again after 100 ms, doubling to 5 s, +-25
 * %; PULL_TRIES in a row without a chunk end it with -EAGAIN: what is on disk stays. A file whose bytes are not what its digest
 * says is begun again once. Pure.  Thread rule: none shared.  Failure rule: a step cannot fail. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PULL_FILES = 512, PULL_WINDOW = 16, PULL_TRIES = 12 };

struct pull_file {
    const char *name;               /* borrowed; for texts only */
    uint64_t size;                  /* ignored if !sized */
    uint64_t have;                  /* bytes of it on disk */
    bool sized;                     /* false: the first chunk will tell (the manifest itself), at most limit */
};

struct pull_limits {                /* bytes */
    uint32_t chunk_least, chunk_most;       /* of one chunk */
    uint64_t under_way;             /* asked for and not yet written */
    uint64_t unsized;               /* of a file whose size is not known before */
};

enum pull_slot_state { PULL_ASKED, PULL_HERE, PULL_WRITING, PULL_AGAIN };

struct pull_slot { uint32_t file; uint64_t offset; uint32_t size; enum pull_slot_state state; uint64_t asked_ms; };

struct pull {
    struct pull_limits limits;
    struct pull_file files[PULL_FILES];
    uint32_t n_files;
    uint32_t file; uint64_t offset;         /* what is asked for next */
    struct pull_slot ring[PULL_WINDOW];
    uint32_t head, n;                       /* of the ring: chunks in the order of the stream */
    uint64_t allowance;                     /* bytes that may be under way now */
    uint32_t failures;                      /* in a row */
    uint64_t wait_until_ms;
    uint64_t jitter;
    bool begun_again[PULL_FILES];           /* a damaged file */
    uint64_t written, total;                /* bytes, for people; total grows when sizes become known */
    bool ended;
};

enum pull_event_kind {
    PULL_CHUNK,                     /* an answer: .file, .offset; .result 0: .size bytes of a file of .file_size; or what went
                                     * wrong */
    PULL_WRITTEN,                   /* .file, .offset; .result: 0, -EBADMSG (a whole file, and not the one), or an error of the
                                     * disk */
    PULL_TICK,
};

struct pull_event {
    enum pull_event_kind kind;
    uint32_t file;
    uint64_t offset;
    int result;
    uint32_t size;
    uint64_t file_size;
    const char *text;               /* of a refusal; may be NULL */
};

enum pull_effect_kind {
    PULL_ASK,                       /* .size bytes of .file at .offset, within .timeout_ms; then PULL_CHUNK */
    PULL_WRITE,                     /* the chunk that came for (.file, .offset), at its file's end; .last: then check its
                                     * digest */
    PULL_FORGET,                    /* chunks that came or will come of (.file, .offset): not wanted any more */
    PULL_RESTART,                   /* .file: what is on disk of it is damaged, cut it to nothing */
    PULL_DONE,                      /* every file is whole and checked */
    PULL_FAILED,                    /* .result, .text; -EAGAIN: go on later from what is on disk */
};

struct pull_effect {
    enum pull_effect_kind kind;
    uint32_t file;
    uint64_t offset;
    uint32_t size;
    bool last;
    uint32_t timeout_ms;
    int result;
    char text[400];
};

enum { PULL_EFFECTS = 2 * PULL_WINDOW + 4 };
struct pull_effects { struct pull_effect items[PULL_EFFECTS]; size_t n; };

/* At least one file. A file that is all there is written once more with 0 bytes, .last: so that its digest is checked.
 * -EINVAL: no files; -E2BIG: more than PULL_FILES. */
int pull_init(struct pull *pull, const struct pull_file *files, size_t n, const struct pull_limits *limits, uint64_t seed);
void pull_step(struct pull *pull, const struct pull_event *event, uint64_t now_ms, struct pull_effects *out);
