/* member.h - a daemon's membership in the run: says Hello until Welcome, keeps the heart beating, tells what changed.
 *
 * All daemons but the coordinator use it. It owns the client to the coordinator and:
 *   - joins: Hello until Welcome arrives (a coordinator that is not up yet, or down, is waited for);
 *   - beats every Welcome.heartbeat_ms; the answer brings endpoints, revoked leases, drain;
 *   - says Hello again when the coordinator has a new epoch or does not know us (its restart);
 *   - keeps wire->security's list of keys as the coordinator says it, where it wants that;
 *   - sets run and epoch of `wire` from Welcome, so that all other sockets of the process use them;
 *   - hands on the coordinator's one-way messages (plan, versions, ...).
 *
 * Calls, in order:  member_new -> [callbacks; member_client for own calls] -> member_leave (optional) -> member_free.
 * Thread rule: the loop's thread only. Callbacks may call anything here but member_free. Messages are valid during the callback.
 */
#pragma once

#include "wire/client.h"

struct member;

struct member_options {
    const char *join;           /* ipc://..., tcp://..., file:PATH of an endpoint file, or a run directory; the file is read
                                 * again on every reconnect, and waited for. A run directory without keys: the socket in it,
                                 * not tcp. */
    const char *server_key;     /* Z85, for tcp; NULL: none, or from the endpoint file */

    /* who we are: goes into Hello. Strings are copied. The role is wire->role. */
    const char *build;
    const char *device;         /* "cpu"; NULL = "" */
    const char *isa;            /* of products on the CPU; NULL = "": none */
    const char *name;           /* NAME or NAME#LIFE (--name) of which there is one at a time in the run; NULL = "": none */
    const char *address;        /* where we serve; NULL for workers */
    uint32_t slots;             /* env_worker */
    uint32_t rank;              /* learner */

    /* The first Welcome (again == false) and each later one. welcome->config are our settings. */
    void (*on_welcome)(const Gantry__Welcome *welcome, bool again, void *arg);

    /* Before each Hello / Heartbeat: add leases (and gauges). What they point to must live until the callback's next call. NULL
     * ok. */
    void (*fill_hello)(Gantry__Hello *hello, void *arg);
    void (*fill_heartbeat)(Gantry__Heartbeat *heartbeat, void *arg);

    /* Servers one may talk to, whole list, whenever it changed (and with each Welcome). NULL ok. */
    void (*on_endpoints)(Gantry__Endpoint *const *endpoints, size_t n, void *arg);

    void (*on_revoked)(const uint64_t *episodes, size_t n, void *arg);  /* stop playing these; NULL ok */
    void (*on_drain)(const char *reason, void *arg);        /* finish what you hold, then leave; called once; NULL ok */
    void (*on_push)(const struct message *message, void *arg);  /* other one-way messages of the coordinator; NULL ok */
    /* Coordinator answers / silent: log it. Silent, and member_id is 0: nobody has answered the first Hello; NULL ok. */
    void (*on_state)(bool up, void *arg);

    /* Refused for good (protocol major, key, run, the address in a file that was waited for): log the text and exit
     * non-zero. */
    void (*on_refused)(int result, const char *text, void *arg);
    void *arg;
};

/* Starts joining at once; a coordinator that has never been up is waited for. -errno only for bad options. While the file of
 * file:PATH is not there, member_client has the address "": say so in the log. */
int member_new(struct wire *wire, const struct member_options *options, struct member **ret, struct error *error);
struct member *member_free(struct member *member);
DEFINE_FREEP(struct member, member_free)

uint32_t member_id(const struct member *member);            /* 0 before the first Welcome */
bool member_joined(const struct member *member);            /* welcomed in the coordinator's present life, as far as we know */
bool member_draining(const struct member *member);
bool member_sent_away(const struct member *member);         /* drained by hand, alone: ends with LIFECYCLE_SENT_AWAY */

/* The client to the coordinator, for LeaseRequest, Journaled, Committed, ... Stays the same over reconnects. Owned by the member.
 */
struct wire_client *member_client(struct member *member);

/* Beat now: something changed that the coordinator should know. */
void member_beat(struct member *member);

/* Say Bye and wait for the answer (at most deadline_ms); then on_left is called, once. No more beats. */
void member_leave(struct member *member, const char *reason, uint32_t deadline_ms, void (*on_left)(void *arg), void *arg);
