/* wire_side.h - a server and a client of lib/wire in one loop, and what came of the calls between them. */
#pragma once

#include "proto/policy.pb-c.h"
#include "tests/harness/wire_lab.h"

struct side {
    struct wire_lab lab;
    struct wire *there, *here;          /* a wire of its own for each end */
    struct wire_server *server;
    struct wire_client *client;

    unsigned requests, replies, pushes, released, peers_here, peers_gone;
    int result;                         /* of the last reply */
    uint32_t status;
    struct envelope envelope;           /* of that reply */
    char text[WIRE_ERROR_MAX];
    uint64_t peer;                      /* who came last */
    bool up;
    void (*serve)(struct side *side, struct request *request);
    struct request *kept[64];
    unsigned n_kept;
};

/* What side->serve may be: answers with the step that was sent and the version that was asked; or keeps the request. */
void side_answer(struct side *side, struct request *request);
void side_keep(struct side *side, struct request *request);

/* The server's callback: counts, and hands over to side->serve. */
void side_on_request(struct request *request, void *arg);

void side_open(struct side *side, unsigned server_credits, unsigned client_credits);
void side_close(struct side *side);
/* The server (again). */
void side_serve(struct side *side, unsigned credits);

/* A call of version 7; its end is counted in side->replies. */
int side_act(struct side *side, uint32_t step, uint32_t deadline_ms, enum wire_call_flags flags, const struct wire_part *part);
void side_on_reply(int result, const struct message *reply, void *arg);
