/* edge.h - the coordinator's edge: between the conductor (pure) and sockets, ledger, files. One loop thread runs all of it.
 *
 *   message -> edge_receive.c: an event -> edge_step():  conductor_step
 *                                                        edge_ledger.c: all ledger changes in one transaction, committed
 *                                                        edge_send.c: replies and pushes
 *                                                        edge.c: what is for the edge itself (retention, finished, stopped)
 *
 * Nothing leaves the process before the transaction that it follows from has committed. When a commit fails the process ends
 * at once: the conductor's memory is ahead of the ledger, and a restart puts that right. */
#pragma once

#include "coordinator/conductor.h"
#include "coordinator/member_gauges.h"
#include "coordinator/speed.h"
#include "daemon/admin.h"
#include "daemon/http.h"
#include "daemon/lifecycle.h"
#include "daemon/metrics.h"
#include "daemon/probe.h"
#include "run/ledger.h"
#include "run/rundir.h"
#include "run/tensorboard.h"
#include "wire/server.h"

enum { EDGE_TICK_MS = 200, EDGE_DRAIN_MS = 120 * 1000, EDGE_LEAVE_MS = 5000, EDGE_FULL_RETRY_MS = 1000 };

enum { EDGE_MEMBER_SUMS = 10 };

struct edge_metrics {
    struct metric *gemm_fallbacks, *attention_fallbacks;        /* of all servers and learners on devices */
    struct metric *epoch, *commits, *commit_seconds, *commit_worst_seconds, *rows, *open, *leased, *journaled, *members[MEMBER_LEARNER + 1];
    struct metric *success, *reward, *policy, *prm, *stage, *iteration, *turn_worst_seconds, *received, *refused, *episodes,
        *env_steps, *failed, *updates_per_s;
    struct metric *sums[EDGE_MEMBER_SUMS], *memory[MEMBER_LEARNER + 1];       /* edge_members.c */
    struct metric *journal_bytes, *device_used, *device_memory;                     /* likewise */
};

struct edge_origin { struct edge *edge; bool tcp; };      /* which server a message came in by */

struct edge {
    struct run_config config;
    char run_dir[RUN_PATH];             /* absolute */
    char *config_text;                  /* the resolved YAML; also Welcome.config */
    const char *stage_settings[RUN_MAX_STAGES];
    int n_config_stages;                /* the run's own; those behind them came by `gantry eval` */
    int lock_fd;
    uint64_t started_ms;                /* monotonic */

    struct loop *loop;
    struct lifecycle *lifecycle;
    struct loop_timer *tick, *leave, *ending, *drain_again;
    struct wire *wire;
    struct wire_server *ipc, *tcp;      /* tcp: NULL unless the configuration has `listen` */
    struct edge_origin from_ipc, from_tcp;
    uint64_t keys_digest;               /* of the list of keys that members were last compared with; 0: compare */
    struct admin *admin;
    struct http *http;                  /* NULL: off */
    struct metrics *metrics;
    struct edge_metrics metric;
    struct probes probes;

    struct ledger *ledger;
    struct conductor *conductor;
    struct conductor_effects effects;
    bool stepping;                      /* conductor_step's effects are being carried out: no step inside a step */
    struct tensorboard *tensorboard;    /* NULL: could not be opened, said once */
    struct gauges gauges;
    struct speed speed;
    struct strbuf curve, tasks;         /* status: success of every iteration, and of each task, as JSON; empty: to be made again */
    uint64_t commits;                   /* ledger transactions so far */
    uint64_t episodes, env_steps;       /* journaled since this process started; for rates */
    uint64_t ended_ms;                  /* monotonic: when the run finished; 0: not yet */
    uint64_t full_since_ms;             /* monotonic: the disk is full and the last step is not in the ledger; 0: no */
    uint64_t full_retry_ms;             /* when to try again */
    int exit_code;                      /* once it ends: 0, EX_CONFIG after CONDUCTOR_STOPPED, 1 when the ledger fails */
    bool leaving;                       /* only waiting for the members to leave */
};

/* edge.c */
struct edge *edge_free(struct edge *edge);
DEFINE_FREEP(struct edge, edge_free)
/* Configuration, run directory, lock, ledger, version 0, conductor restored. `config_path` NULL: run_dir/config.yaml.
 * -EAGAIN: no space left for a run that has begun: try again once there is; -ENOSPC: none to begin one. */
int edge_new(const char *config_path, const char *run_dir, struct edge **ret, struct error *error);
/* Sockets, timers, status page: from here on the loop drives it. */
int edge_start(struct edge *edge, struct loop *loop, struct error *error);
void edge_drain(struct edge *edge, const char *reason);
void edge_leave(struct edge *edge);             /* everybody is told to leave, and so do we, after them if they are quick */
size_t edge_members_left(const struct edge *edge);

/* edge_step.c */
/* Give the conductor one event and carry out what follows. A failure is logged and ends the process; only a full disk is waited
 * for: the step stays as it is, nothing is answered (BUSY), and it is written once there is room. */
void edge_step(struct edge *edge, struct conductor_event *event);
void edge_step_again(struct edge *edge);        /* a step that waits for room, when it is due */

/* edge_ledger.c */
int edge_ledger_open(struct edge *edge, struct error *error);           /* opens, imports version 0 */
int edge_ledger_extend(struct edge *edge, struct error *error);         /* tells it of stages that the configuration has gained */
int edge_ledger_restore(struct edge *edge, struct error *error);        /* conductor_new + conductor_restore */
int edge_ledger_apply(struct edge *edge);                               /* edge->effects: one transaction; -errno: none of it */

/* edge_receive.c */
void edge_on_request(struct request *request, void *arg);               /* arg: struct edge_origin */

/* edge_send.c: a reply or a push; effects of other kinds are none of its business. */
#define EDGE_TCP_PEER (1ull << 63)      /* of an event's `from`: the connection is one of the tcp server's */
void edge_send(struct edge *edge, const struct conductor_effect *effect);

/* edge_keys.c */
/* A key of our own for the tcp socket, made on first use; who is let in stands in RUN/keys/allowed. */
int edge_keys_start(struct edge *edge, struct error *error);
void edge_keys_tick(struct edge *edge);         /* members whose key was taken out are gone, their leases free */

/* The list of keys, for a server that cannot read it; NULL: it knows (`known` is its digest), there is none, or no memory now
 * (the next heartbeat says it). Borrows from security. */
struct edge_allowed {
    Gantry__Allowed message;
    Gantry__Allowed__Key *keys, **pointers;
};
Gantry__Allowed *edge_list_allowed(struct edge *edge, uint64_t known, struct edge_allowed *ret);
void edge_allowed_release(struct edge_allowed *allowed);

/* edge_speed.c */
void edge_look(struct edge *edge);      /* each tick, and before anybody is told */

/* edge_members.c: metrics of what members' heartbeats say */
void edge_members_register(struct edge *edge);
void edge_members_refresh(struct edge *edge);

/* edge_metrics.c */
void edge_metrics_register(struct edge *edge);
void edge_metrics_write(struct edge *edge, struct strbuf *out);

/* status.c */
bool edge_is_full(const struct edge *edge, char *ret_where, size_t size);      /* whose disk, for people; size 0: no matter */
int edge_status_json(struct edge *edge, struct strbuf *out);
/* What members said of themselves, for summary.json: rates and peak memory as `"key":value,...`. */
void edge_runtime(const struct edge *edge, struct strbuf *out);
extern const struct http_route edge_routes[];
int edge_probes(struct edge *edge);

/* admin.c */
extern const struct admin_command edge_commands[];

/* page.c: the page of the HTTP status server, whole. */
extern const char edge_page[];
