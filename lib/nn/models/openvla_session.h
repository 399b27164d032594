/* openvla_session.h - a session's inside, shared by acting and scoring. */
#pragma once

#include "nn/device/graphs.h"
#include "nn/models/openvla_internal.h"

struct openvla_session {
    struct openvla_config config;       /* of the model it was made for: shapes must agree */
    int max_batch;
    struct tape tape;
    struct kv_cache *cache;             /* [layers], one slot per sequence */
    char *kv;                           /* memory of all of them */
    struct device *kv_device;           /* whose memory that is; NULL: this CPU's */
    int capacity;                       /* positions per slot */
    int active;                         /* sequences that act */
    float *hidden;                      /* (max_batch, hidden) of each prompt's last row */
    int32_t *length;                    /* [max_batch] positions held, all layers */
    struct openvla_item *items;         /* [max_batch] of the pass at hand */
    int32_t *slot;                      /* [active] and so the rest: rows of a decoding step */
    int32_t *token, *position;
    struct device_graphs *graphs;       /* decoding steps on a device; NULL: none yet */
};

/* Compute where the model's parameters are. Before the first pass of a call. */
int session_attach(struct openvla_session *s, const struct openvla *model);
/* Room for `capacity` positions per slot; forgets what is held when it must grow. */
int session_reserve_kv(struct openvla_session *s, int capacity);
/* One pass on the session's tape; when it does not fit, a dry run finds the size and it runs again. `pass` puts everything
 * the caller wants on the tape and returns tape->error when the tape failed. */
int session_run(struct openvla_session *s, int (*pass)(struct openvla_session *s, void *arg), void *arg);
/* A decoding step of all active rows: as session_run, or on a device by replaying the graph of a step like it. `logits` is where
 * the pass puts what it made. */
int session_step(struct openvla_session *s, const struct openvla *model, bool action_only,
                 int (*pass)(struct openvla_session *s, void *arg), void *arg, struct tensor **logits);
