/* Members on other hosts, each with its key: nobody speaks in another's name, and who is shut out is gone. */
#include "tests/harness/coordinator_life.h"

#include <stdio.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/fault.h"
#include "proto/control.pb-c.h"
#include "wire/client.h"
#include "wire/kinds.h"
#include "wire/security.h"

struct stranger {
    struct loop *loop;
    struct wire *wire;
    struct wire_client *client;
    uint32_t member;
    unsigned replies;
    uint64_t revision;      /* of the endpoints, as the last heartbeat's answer said */
    size_t listed;          /* endpoints in that answer */
    void (*look)(const Gantry__Welcome *welcome);       /* NULL: nobody */
};

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct stranger *s = arg;

    s->replies++;
    if (result == 0 && reply->envelope.kind == WIRE_KIND(WELCOME)) {
        const Gantry__Welcome *welcome = (const Gantry__Welcome *)reply->body;

        s->member = welcome->member;
        wire_set_run(s->wire, welcome->run, welcome->epoch);
        if (s->look)
            s->look(welcome);
    }
    if (result == 0 && reply->envelope.kind == WIRE_KIND(HEARTBEAT_REPLY)) {
        const Gantry__HeartbeatReply *said = (const Gantry__HeartbeatReply *)reply->body;

        s->revision = said->endpoints_revision;
        s->listed = said->n_endpoints;
    }
}

static void say(struct stranger *s, Gantry__Kind kind, const ProtobufCMessage *body)
{
    struct wire_call call = {.kind = kind, .body = body, .deadline_ms = 60000, .on_reply = on_reply, .arg = s};

    assert_int_equal(wire_call(s->client, &call, NULL), 0);
}

/* Until it is answered. */
static void ask(struct stranger *s, Gantry__Kind kind, const ProtobufCMessage *body)
{
    unsigned before = s->replies;

    say(s, kind, body);
    while (s->replies == before)
        loop_turn(s->loop, true);
}

static void path_of(char *ret, const char *name) { snprintf(ret, SCRATCH_PATH + 32, "%s/%s", life_run_dir, name); }

static void say_hello(struct stranger *s, Gantry__Role role, const char *name)
{
    Gantry__Hello hello = GANTRY__HELLO__INIT;

    hello.role = role;
    hello.instance = (uint64_t)name[0];
    hello.host = "there";
    hello.name = (char *)name;
    hello.build = "b\033[2J\xc2\x9b" "2J";
    hello.slots = 2;
    ask(s, WIRE_KIND(HELLO), &hello.base);
}

/* A key of its own, let in as a worker's, and a Hello. */
static void join(struct stranger *s, struct edge *edge, struct loop *loop, const char *name)
{
    struct wire_client_options options = {.address = wire_server_address(edge->tcp),
                                          .server_key = security_public_key(edge->wire->security)};
    char key[SECURITY_KEY_SIZE], path[SCRATCH_PATH + 32], allowed[SCRATCH_PATH + 32];

    *s = (struct stranger) {.loop = loop, .look = s->look};
    path_of(allowed, "keys/allowed");
    assert_int_equal(security_key_create(life_dir, name, key, &life_error), 0);
    assert_int_equal(security_allow(allowed, GANTRY__ROLE__ROLE_ENV_WORKER, key, name, &life_error), 0);
    assert_int_equal(wire_new(loop_uv(loop), GANTRY__ROLE__ROLE_ENV_WORKER, &s->wire), 0);
    snprintf(path, sizeof path, "%s/%s.key", life_dir, name);
    assert_int_equal(security_start(s->wire, path, NULL, &life_error), 0);
    if (wire_client_new(s->wire, &options, &s->client, &life_error) < 0)
        fail_msg("%s", life_error.text);
    say_hello(s, GANTRY__ROLE__ROLE_ENV_WORKER, name);
    assert_true(s->member != 0);
}

static void leave(struct stranger *s)
{
    wire_client_free(s->client);
    wire_free(s->wire);
}

/* A heartbeat of `member`, with what it says of itself: until it is answered, or `refused_by` has refused it: the client then
 * says it again and again. */
static void beat(struct stranger *s, uint32_t member, double steps, const struct wire_server *refused_by)
{
    Gantry__Heartbeat heartbeat = GANTRY__HEARTBEAT__INIT;
    Gantry__Gauge gauge = GANTRY__GAUGE__INIT, *gauges[] = {&gauge};

    gauge.name = "steps_total";
    gauge.value = steps;
    heartbeat.member = member;
    heartbeat.endpoints_revision = s->revision;
    heartbeat.gauges = gauges;
    heartbeat.n_gauges = 1;
    if (refused_by) {
        uint64_t before = wire_server_stats(refused_by)->refused;

        say(s, WIRE_KIND(HEARTBEAT), &heartbeat.base);
        while (wire_server_stats(refused_by)->refused == before)
            loop_turn(s->loop, true);
        return;
    }
    ask(s, WIRE_KIND(HEARTBEAT), &heartbeat.base);
}

/* A coordinator that listens to other hosts, too. */
static void start(struct loop **ret_loop, struct edge **ret_edge)
{
    _cleanup_(strbuf_release) struct strbuf listening = STRBUF_INIT;
    char *text;
    size_t n;

    assert_int_equal(file_read(life_config, 4096, &text, &n), 0);
    strbuf_addf(&listening, "%scluster: {listen: 'tcp://127.0.0.1:*'}\n", text);
    assert_int_equal(atomic_file_write(life_config, listening.text, listening.length), 0);
    free(text);
    assert_int_equal(loop_new(ret_loop), 0);
    if (edge_new(life_config, NULL, ret_edge, &life_error) < 0 || edge_start(*ret_edge, *ret_loop, &life_error) < 0)
        fail_msg("%s", life_error.text);
}

static bool is_here(const struct edge *edge, const struct stranger *s)
{
    return membership_find((struct membership *)conductor_members(edge->conductor), s->member);
}

/* Servers elsewhere are told who is let in as what, whenever they do not know it yet. */
static void check_list(struct edge *edge, const struct stranger *s, const char *name)
{
    _cleanup_(edge_allowed_release) struct edge_allowed list = {0}, again = {0};
    const Gantry__Allowed *said = edge_list_allowed(edge, 0, &list);
    bool listed = false;

    assert_non_null(said);
    for (size_t i = 0; i < said->n_keys; i++)
        if (!strcmp(said->keys[i]->key, security_public_key(s->wire->security)))
            listed = said->keys[i]->role == GANTRY__ROLE__ROLE_ENV_WORKER;
    if (!listed)
        fail_msg("%s is not let in as a worker", name);
    assert_null(edge_list_allowed(edge, said->digest, &again));
}

static void test_in_anothers_name(void **state)
{
    struct conductor_event local = {.kind = CONDUCTOR_HELLO, .hello.member = {.role = MEMBER_WORKER, .instance = 3, .pid = 3}};
    char path[SCRATCH_PATH + 32];
    struct stranger alice = {0}, mallory = {0};
    const struct member *m;
    struct loop *loop;
    struct edge *edge;

    (void)state;
    start(&loop, &edge);
    join(&alice, edge, loop, "alice");
    join(&mallory, edge, loop, "mallory");
    edge_step(edge, &local);                                /* over ipc: without a key */
    check_list(edge, &alice, "alice");
    m = membership_find((struct membership *)conductor_members(edge->conductor), alice.member);
    assert_string_equal(m->name, "alice");
    assert_true(m->address_id & EDGE_TCP_PEER);             /* what is pushed to it goes there */
    assert_string_equal(m->host, "there");
    assert_string_equal(m->build, "b?[2J??2J");                 /* shown in terminals */
    assert_int_equal(m->slots, 2);
    beat(&mallory, alice.member, 5e9, edge->tcp);
    assert_int_equal(mallory.replies, 1);                   /* to its Hello */
    assert_null(gauges_find(&edge->gauges, alice.member));
    beat(&alice, alice.member, 7, NULL);
    assert_int_equal(alice.replies, 2);
    assert_true(gauges_value(gauges_find(&edge->gauges, alice.member), "steps_total") == 7);
    while (edge->keys_digest != security_list_digest(edge->wire->security))     /* it has looked who is let in */
        loop_turn(loop, true);
    path_of(path, "keys/allowed");
    assert_int_equal(security_revoke(path, "mallory", &life_error), 0);
    while (is_here(edge, &mallory))
        loop_turn(loop, true);
    assert_true(is_here(edge, &alice));
    assert_non_null(membership_find_process((struct membership *)conductor_members(edge->conductor), "", 3));
    leave(&alice);
    leave(&mallory);
    edge_free(edge);
    loop_free(loop);
}

/* The key of a worker's host does not make a learner. */
static void test_in_another_role(void **state)
{
    struct stranger mallory = {0};
    struct loop *loop;
    struct edge *edge;
    uint64_t refused;

    (void)state;
    start(&loop, &edge);
    join(&mallory, edge, loop, "mallory");
    refused = wire_server_stats(edge->tcp)->refused;
    say_hello(&mallory, GANTRY__ROLE__ROLE_LEARNER, "nobody");
    assert_int_equal(wire_server_stats(edge->tcp)->refused, refused + 1);
    assert_null(membership_learner(conductor_members(edge->conductor)));
    leave(&mallory);
    edge_free(edge);
    loop_free(loop);
}

/* Let in and shut out between two looks at the list, which says the same again; and shut out while there is no room to note it. */
static void test_shut_out_unseen(void **state)
{
    char path[SCRATCH_PATH + 32];
    struct stranger alice = {0}, mallory = {0};
    struct loop *loop;
    struct edge *edge;

    (void)state;
    start(&loop, &edge);
    path_of(path, "keys/allowed");
    join(&alice, edge, loop, "alice");
    loop_timer_stop(edge->tick);
    edge_keys_tick(edge);
    join(&mallory, edge, loop, "mallory");
    assert_int_equal(security_revoke(path, "mallory", &life_error), 0);
    edge_keys_tick(edge);
    assert_false(is_here(edge, &mallory));
    assert_true(is_here(edge, &alice));
    leave(&mallory);

    join(&mallory, edge, loop, "maggie");
    edge_keys_tick(edge);
    assert_int_equal(fault_arm("ledger.commit=enospc@1+"), 0);
    assert_int_equal(security_revoke(path, "alice", &life_error), 0);
    assert_int_equal(security_revoke(path, "maggie", &life_error), 0);
    edge_keys_tick(edge);
    assert_int_equal(fault_arm(""), 0);
    edge->full_retry_ms = 0;
    edge_step_again(edge);
    edge_keys_tick(edge);
    assert_false(is_here(edge, &alice));
    assert_false(is_here(edge, &mallory));
    leave(&alice);
    leave(&mallory);
    edge_free(edge);
    loop_free(loop);
}

static const char some_key[] = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";

static void look_at_endpoints(const Gantry__Welcome *welcome)
{
    const Gantry__Endpoint *here = welcome->endpoints[0], *leaving = welcome->endpoints[1], *learner = welcome->endpoints[2];

    assert_int_equal(welcome->n_endpoints, 3);
    assert_string_equal(here->address, "tcp://here:1");
    assert_string_equal(here->public_key, some_key);
    assert_true(!here->cordoned && here->n_versions == 1 && here->versions[0] == 5);
    assert_string_equal(leaving->address, "tcp://leaving:1");
    assert_true(leaving->cordoned && leaving->n_versions == 0);
    assert_true(learner->role == GANTRY__ROLE__ROLE_LEARNER && learner->rank == 2);
}

/* Whom to ask: servers that are here, by address and key, with what they have ready; those that leave are asked last. A heartbeat
 * brings them to who does not know them yet. */
static void test_who_else_is_here(void **state)
{
    static const struct member servers[] = {
        {.role = MEMBER_ACTOR, .instance = 1, .address = "tcp://lost:1"},
        {.role = MEMBER_ACTOR, .instance = 2, .address = "tcp://here:1"},
        {.role = MEMBER_PRM, .instance = 3, .address = "tcp://leaving:1"},
        {.role = MEMBER_LEARNER, .instance = 4, .address = "tcp://ranks:1", .rank = 2}, {.role = MEMBER_WORKER, .instance = 5},
    };
    struct stranger alice = {.look = look_at_endpoints};
    struct membership *members;
    struct loop *loop;
    struct edge *edge;

    (void)state;
    start(&loop, &edge);
    members = (struct membership *)conductor_members(edge->conductor);
    for (size_t i = 0; i < ARRAY_SIZE(servers); i++) {
        struct conductor_event hello = {.kind = CONDUCTOR_HELLO, .hello.member = servers[i]};

        memcpy(hello.hello.member.public_key, some_key, sizeof some_key);
        edge_step(edge, &hello);
    }
    membership_find(members, 1)->state = MEMBER_LOST;
    membership_version(members, membership_find(members, 2), KIND_POLICY, 5, true, 0);
    membership_version(members, membership_find(members, 2), KIND_POLICY, 6, false, 0);
    membership_find(members, 3)->leaving = true;
    join(&alice, edge, loop, "alice");
    beat(&alice, alice.member, 1, NULL);
    assert_true(alice.listed == 3 && alice.revision == members->revision);
    beat(&alice, alice.member, 2, NULL);
    assert_true(alice.listed == 0 && alice.revision == members->revision);
    leave(&alice);
    edge_free(edge);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_in_anothers_name, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_in_another_role, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_who_else_is_here, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_shut_out_unseen, life_setup, life_teardown),
    };

    return cmocka_run_group_tests_name("coordinator keys", tests, NULL, NULL);
}
