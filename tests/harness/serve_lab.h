/* serve_lab.h - a model server whose model is a text, in all that actor and PRM server run in; with a coordinator that welcomes
 * it and notes what it says, a learner with the versions' files, and a client.
 *
 * The version whose model.txt is "N" answers N to every request; "nan" and "other" do not load. */
#pragma once

#include "tests/harness/wire_lab.h"

#include <stdatomic.h>

#include "base/sha256.h"
#include "learner/weights.h"
#include "proto/prm.pb-c.h"
#include "serve/server.h"
#include "wire/address.h"

enum { SERVE_LAB_MEMBER = 4, SERVE_LAB_SAID = 32 };

/* What the server's threads wait at, and how many are there. */
extern struct serve_lab_gates { atomic_bool hold_load, hold_compute; atomic_int loading, computing, unloaded; } serve_lab_gates;

extern const char serve_lab_config[];           /* of the run */

struct serve_lab {
    char dir[SCRATCH_PATH], run[SCRATCH_PATH + 8], learner_address[ADDRESS_MAX], server_address[ADDRESS_MAX];
    struct loop *loop;
    struct loop_timer *guard;
    uint64_t begun_ms;
    struct wire *coordinator, *worker, *server, *learner;
    struct wire_server *desk, *shelf;
    struct wire_client *client;
    struct weights *weights;
    struct lifecycle *lifecycle;
    struct serve *serve;
    uint8_t digest[16][SHA256_SIZE];    /* of versions, by number */

    const char *config;                 /* that the Welcome says */
    bool drain, sent_away;              /* that heartbeats are answered with */
    uint64_t withheld;                  /* the learner gives nothing of this version now */
    unsigned asked_in_vain;
    uint64_t peer;
    unsigned hellos, byes, beats, trials, n_said;
    double refused_total;               /* that heartbeats say */
    struct said { uint64_t version; bool ready; char text[160]; } said[SERVE_LAB_SAID];
    Gantry__ShadowScored trial;         /* the last */

    unsigned replies;                   /* to serve_lab_call; and the last of them: */
    int result;
    float progress;
    char text[WIRE_ERROR_MAX];
};

/* A server that has been welcomed. elsewhere: it does not see the run's directory. */
void serve_lab_open(struct serve_lab *lab, const char *config, bool elsewhere);
void serve_lab_close(struct serve_lab *lab);

#define LAB_UNTIL(lab, condition) for ((lab)->begun_ms = clock_mono_ms(); !(condition);) loop_turn((lab)->loop, true)

void serve_lab_publish(struct serve_lab *lab, uint64_t number, const char *text);
/* The coordinator's list: these, newest last. */
void serve_lab_want(struct serve_lab *lab, uint64_t shadow, size_t n, const uint64_t *numbers);
/* The last that the server has said of a version; NULL: nothing. */
const struct said *serve_lab_said(const struct serve_lab *lab, uint64_t version);

/* A request for a version's score of so many images. */
void serve_lab_call(struct serve_lab *lab, Gantry__Kind kind, uint64_t version, uint32_t images, bool whole);
int serve_lab_ask(struct serve_lab *lab, uint64_t version, uint32_t images, bool whole);     /* and its answer */
