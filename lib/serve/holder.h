/* holder.h - which versions a server holds, and what it answers for each.
 *
 * Actor and PRM server without their weights. The coordinator names the versions to hold (newest last); the holder asks the
 * edge to load what is missing, one at a time, newest first, beside what is served, and says ready or refused. A version that
 * is no longer wanted is let go when its last request has been answered, but never the only one that is ready: with a bad
 * checkpoint the old one goes on serving.
 *
 *   holder_init -> [holder_step(event) -> effects]*
 *   per request:   holder_take(version) -> serve -> holder_put(version) -> a TICK step if it says so
 *
 * A load that failed is refused once; it is tried again when the coordinator names it with another manifest digest, or after
 * retry_ms (the file system may have been slow to show it).
 * Thread rule: the server's loop thread only.  Failure rule: a step cannot fail; what does not fit HOLDER_MAX is not loaded. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"

enum { HOLDER_MAX = 8 };        /* versions wanted or held at once */

enum holder_state { HOLDER_WANTED, HOLDER_LOADING_NOW, HOLDER_READY, HOLDER_REFUSED, HOLDER_POSTPONED };
enum holder_answer { HOLDER_SERVE, HOLDER_LOADING, HOLDER_WRONG_VERSION };

struct holder_version {
    uint64_t version;
    char dir[128];              /* relative to the run directory */
    uint8_t digest[SHA256_SIZE];    /* of its manifest */
    enum holder_state state;
    bool wanted;                /* in the coordinator's last list */
    uint32_t order;             /* place in that list; larger = newer */
    uint32_t in_use;            /* requests that are being served */
    uint64_t retry_at_ms;       /* refused, postponed: when to try again */
    char text[400];             /* refused: why */
};

struct holder {
    struct holder_version items[HOLDER_MAX];
    size_t n;
    uint32_t retry_ms;
};

enum holder_event_kind {
    HOLDER_LIST,                /* .list: the coordinator's Versions of our kind */
    HOLDER_LOADED,              /* .loaded: it was read and tried out, or could not be */
    HOLDER_WELCOME,             /* the coordinator is new to us: say all states again */
    HOLDER_TICK,
};

struct holder_listed { uint64_t version; const char *dir; uint8_t digest[SHA256_SIZE]; };

struct holder_event {
    enum holder_event_kind kind;
    union {
        struct { const struct holder_listed *versions; size_t n; } list;
        struct { uint64_t version; bool ok; const char *text; bool later; } loaded;    /* later: no fault of the version; not
                                                                                        * said */
    };
};

enum holder_effect_kind {
    HOLDER_LOAD,                /* read .dir of .version beside what is served, then HOLDER_LOADED */
    HOLDER_FREE,                /* nobody uses .version any more: give its memory back */
    HOLDER_SAY,                 /* VersionState: .version, .ready, .text */
};

struct holder_effect {
    enum holder_effect_kind kind;
    uint64_t version;
    char dir[128];
    uint8_t digest[SHA256_SIZE];
    bool ready;
    char text[400];
};

enum { HOLDER_EFFECTS = 2 * HOLDER_MAX + 2 };
struct holder_effects { struct holder_effect items[HOLDER_EFFECTS]; size_t n; };

void holder_init(struct holder *holder, uint32_t retry_ms);
/* *out is overwritten: what the edge is to do, in this order. */
void holder_step(struct holder *holder, const struct holder_event *event, uint64_t now_ms, struct holder_effects *out);

/* A request for `version`: SERVE counts it as in use until holder_put. */
enum holder_answer holder_take(struct holder *holder, uint64_t version);
/* Served. True: the version can be freed now: do a TICK step. */
bool holder_put(struct holder *holder, uint64_t version);
bool holder_wants(const struct holder *holder, uint64_t version);       /* in the coordinator's last list */
/* SERVE, LOADING or WRONG_VERSION without counting. */
enum holder_answer holder_peek(const struct holder *holder, uint64_t version);
