/* worker_lab.h - an env worker's edge and its real simulator, with a coordinator, actor, PRM server and learner played here,
 * over real sockets in one process. A test sets how the servers behave, leases episodes and turns the loop. One at a time. */
#pragma once

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "env_worker/edge.h"
#include "env_worker/lookahead.h"
#include "proto/policy.pb-c.h"
#include "proto/prm.pb-c.h"
#include "proto/trajectory.pb-c.h"
#include "tests/harness/scratch.h"
#include "wire/server.h"

enum { IMAGE = 32, FRAME = IMAGE * IMAGE * 3, K = 7, WIDTH = 3, PATIENCE_MS = 30000, RUN_ID = 77, MANY = 64 };
enum { COORDINATOR, ACTOR, PRM, LEARNER, ROLES };

struct delivered {              /* what came to the learner, as far as the tests look */
    uint64_t episode, fence;
    uint32_t steps, n_tokens, n_hidden, n_label, n_progress, n_action, first_token, last_token, state_digest, policy_steps,
        perturbed_at;
    float search_chosen, search_all;
    bool success, timeout, first_frame_is_last;
    char instruction[96];
    float first_action[SIM_ACTION_DIMS];
};

extern struct worker_lab {
    char dir[SCRATCH_PATH], address[ROLES][96];
    struct loop *loop;
    struct lifecycle *lifecycle;
    struct wire *wire, *worker_wire;
    struct wire_server *servers[ROLES];
    struct edge *edge;

    Gantry__Lease leases[MANY];
    unsigned n_leases, granted;
    struct { uint64_t episode; Gantry__LeaseReturn__Reason reason; char text[128]; } returned[MANY];
    struct delivered delivered[MANY];
    unsigned n_returned, n_delivered, hellos, byes, acts, scores;
    uint64_t revoke;            /* tell the worker that this lease has ended */
    bool forget;                /* the next heartbeat is of nobody known: the worker says Hello again, and keeps the leases of: */
    uint64_t kept[MANY]; size_t n_kept;
    bool drain, send_away;      /* said with a grant, with a heartbeat's answer */
    uint32_t retry_ms;          /* how soon to ask again; 0: 20 */
    uint64_t pushes_to;         /* who has said Hello */
    void (*on_lease_request)(void);
    unsigned held, held_most;   /* of the last heartbeat / Hello */
    uint64_t held_first;        /* and its first lease */
    bool waits; uint32_t step, played;  /* of the first lease in the last heartbeat that had one */

    /* how the servers behave */
    bool nan_action, mute_actor;
    bool critic;                /* an actor says what states are worth: those that sample 1 leads to, most */
    unsigned chunk;             /* actions in one answer; 0: 1 */
    bool chain;                 /* pictures are made as the OpenVLA evaluations make them */
    uint8_t first_picture[FRAME];       /* of the last delivery */
    uint32_t n_turns, turns[MANY], n_observed, observed[MANY];  /* of the last delivery */
    unsigned loading, internal; /* so many answers of this kind before good ones */
    unsigned mute_deliveries;
    /* before the worker says Hello: */
    uint64_t seed;              /* 0: 5 */
    const char *policy;         /* more of the run's policy: ", support: full"; NULL: nothing */
    bool state;                 /* observations carry the robot's own numbers */
    char suite[200];            /* name and tasks, as a run says it; "": tabletop */
    /* what an actor does instead of the above; and who looks at a delivery, whole */
    void (*on_act)(const Gantry__ActRequest *act, float *ret_action, float *ret_confidence);
    void (*on_delivery)(const Gantry__Trajectory *trajectory, const uint8_t *frames);
} lab;

/* cmocka's set-up and tear-down. */
int worker_lab_start(void **state);
int worker_lab_start_with(uint32_t give_back_ms, uint32_t give_up_ms);      /* of a drain */
int worker_lab_stop(void **state);
/* A server that was closed is there again. */
void worker_lab_open(int role);
/* One more lease for whoever asks, to be changed before the loop turns. */
Gantry__Lease *worker_lab_lease(uint64_t episode, const char *task, const char *style);
/* 0 when there is no renderer here: said, and the program's tests are skipped. */
int worker_lab_can_draw(const char *program);

/* Turn the loop until the condition holds. */
#define TURN_UNTIL(condition)                                                                       \
    do {                                                                                            \
        uint64_t give_up_ = clock_mono_ms() + PATIENCE_MS;                                          \
        while (!(condition) && clock_mono_ms() < give_up_)                                          \
            loop_turn(lab.loop, true);                                                                \
        assert_true(condition);                                                                     \
    } while (0)
