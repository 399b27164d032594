/* town.h - a member, and a coordinator of a few lines that it joins: what each heard of the other is counted. */
#pragma once

#include "tests/harness/wire_lab.h"
#include "wire/member.h"

struct town {
    struct wire_lab lab;
    struct wire *there, *here;
    struct wire_server *server;
    struct member *member;

    uint64_t epoch;
    bool knows, drain, sent_away, mute;
    bool fresh;                     /* no beat since the Hello */
    unsigned hellos, beats, byes;
    uint64_t peer, instance;
    uint64_t revoke;
    uint64_t revision;              /* of the endpoints, as last said with a beat */
    bool nobody;                    /* all servers have gone */

    unsigned welcomes, again, endpoints, none, revoked, drains, pushes, refused, states, left;
    uint32_t held_leases;
    bool up;
    int refusal;                    /* the last, and what was said of it */
    char why[200];
};

/* What the member calls; arg is the town. */
void town_on_welcome(const Gantry__Welcome *said, bool again, void *arg);
void town_fill_heartbeat(Gantry__Heartbeat *heartbeat, void *arg);
void town_on_state(bool up, void *arg);
void town_on_refused(int result, const char *text, void *arg);
void town_on_left(void *arg);
/* The coordinator begins to answer, in this epoch. */
void town_coordinator(struct town *town, uint64_t epoch);
/* join: an address; NULL: the directory in which the coordinator's stands once it is there. */
void town_open(struct town *town, const char *join);
void town_close(struct town *town);
