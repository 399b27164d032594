/* edge_internal.h - what the learner's edge files share. */
#pragma once

#include "daemon/run_config.h"
#include "learner/delivery.h"
#include "learner/edge.h"
#include "learner/journal_thread.h"
#include "learner/train_thread.h"
#include "learner/weights.h"
#include "train/device_group.h"

#define LEARNER_LOCK "learner.lock"     /* in the run directory; rank 0's */

struct edge {
    struct loop *loop;
    struct wire *wire;
    struct lifecycle *lifecycle;
    struct member *member;
    struct wire_server *server;
    struct loop_timer *tick;
    char run_dir[256], build[64], address[600];
    unsigned threads, rank;

    /* from the first Welcome on */
    struct run_config *config;          /* of the run, from Welcome */
    struct intake *intake;
    struct intake_effects effects;
    struct journal *journal;
    struct journal_thread *journal_thread;
    struct train_thread *train_thread;
    struct ahead *ahead;                /* rank 0 */
    struct deliveries deliveries;
    struct openvla *shape;              /* of the run's policy, without values: what episodes must fit; NULL: it has none */
    struct weights *weights;            /* rank 0: for servers that do not see the run directory */
    struct collective *collective;      /* NULL: one rank */
    uint32_t late;                      /* ranks that are waited for, as was said last */
    struct nccl_calls nccl;             /* several ranks on devices: their gradients meet there */
    struct device_group *device_group;
    uint64_t newest[2];                 /* rank > 0: versions trained along, by kind */
    bool opened;                        /* the first Welcome has been worked off */
    /* the last Plan heard: intake names it by digest */
    struct { uint8_t *bytes; size_t n; uint8_t digest[SHA256_SIZE]; } plan;
    int lock;                           /* LEARNER_LOCK; -1: not held (yet) */
    bool draining;
    bool disk_full;                     /* the last plan failed for want of space */
    unsigned failures;                  /* plans that failed in a row */
    uint64_t retry_ms;                  /* not before: a plan that fails is not tried in a tight loop */

    Gantry__Gauge gauges[14], *gauge_list[14];
};

/* edge_open.c: journal, manifests, threads and lock, at the first Welcome. One line and -errno when the run directory is not
 * fit for a learner. */
int edge_open(struct edge *edge, const Gantry__Welcome *welcome, struct error *error);
void edge_close(struct edge *edge);
const struct rl_config *edge_rl(const struct edge *edge, uint32_t stage);       /* NULL: that is no rl stage */
/* How an episode of an open iteration ended that an earlier life has journaled: its record says so. -errno with a line. */
int edge_read_outcome(struct edge *edge, struct journaled_episode *episode, struct error *error);

/* edge_effects.c: step intake and carry out what it says. */
void edge_step(struct edge *edge, const struct intake_event *event);

/* edge_coordinator.c: what the coordinator says, and what it is told. */
void edge_push(const struct message *message, void *arg);
void edge_send_journaled(struct edge *edge, const struct intake_effect *effect);
void edge_send_inventory(struct edge *edge, const struct intake_effect *effect);
void edge_send_committed(struct edge *edge, const struct intake_effect *effect);
void edge_send_plan_failed(struct edge *edge, const Gantry__Plan *plan, int result, const char *text);
