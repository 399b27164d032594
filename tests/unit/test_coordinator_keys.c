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
};

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct stranger *s = arg;

    s->replies++;
    if (result == 0 && reply->envelope.kind == WIRE_KIND(WELCOME)) {
        const Gantry__Welcome *welcome = (const Gantry__Welcome *)reply->body;

        s->member = welcome->member;
        wire_set_run(s->wire, welcome->run, welcome->epoch);
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

/* A key of its own, let in as a worker's, and a Hello. */
static void join(struct stranger *s, struct edge *edge, struct loop *loop, const char *name)
{
    struct wire_client_options options = {.address = wire_server_address(edge->tcp),
                                          .server_key = security_public_key(edge->wire->security)};
    Gantry__Hello hello = GANTRY__HELLO__INIT;
    char key[SECURITY_KEY_SIZE], path[SCRATCH_PATH + 32], allowed[SCRATCH_PATH + 32];

    *s = (struct stranger) {.loop = loop};
    path_of(allowed, "keys/allowed");
    assert_int_equal(security_key_create(life_dir, name, key, &life_error), 0);
    assert_int_equal(security_allow(allowed, GANTRY__ROLE__ROLE_ENV_WORKER, key, name, &life_error), 0);
    assert_int_equal(wire_new(loop_uv(loop), GANTRY__ROLE__ROLE_ENV_WORKER, &s->wire), 0);
    snprintf(path, sizeof path, "%s/%s.key", life_dir, name);
    assert_int_equal(security_start(s->wire, path, NULL, &life_error), 0);
    if (wire_client_new(s->wire, &options, &s->client, &life_error) < 0)
        fail_msg("%s", life_error.text);
    hello.role = GANTRY__ROLE__ROLE_ENV_WORKER;
    hello.instance = (uint64_t)name[0];
    hello.host = "there";
    hello.name = (char *)name;
    hello.build = "b\033[2J\xc2\x9b" "2J";
    hello.slots = 2;
    ask(s, WIRE_KIND(HELLO), &hello.base);
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

static void test_in_anothers_name(void **state)
{
    char path[SCRATCH_PATH + 32];
    struct stranger alice, mallory;
    const struct member *m;
    struct loop *loop;
    struct edge *edge;

    (void)state;
    start(&loop, &edge);
    join(&alice, edge, loop, "alice");
    join(&mallory, edge, loop, "mallory");
    m = membership_find((struct membership *)conductor_members(edge->conductor), alice.member);
    assert_string_equal(m->name, "alice");
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
    leave(&alice);
    leave(&mallory);
    edge_free(edge);
    loop_free(loop);
}

/* Let in and shut out between two looks at the list, which says the same again; and shut out while there is no room to note it. */
static void test_shut_out_unseen(void **state)
{
    char path[SCRATCH_PATH + 32];
    struct stranger alice, mallory;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_in_anothers_name, life_setup, life_teardown),
        cmocka_unit_test_setup_teardown(test_shut_out_unseen, life_setup, life_teardown),
    };

    return cmocka_run_group_tests_name("coordinator keys", tests, NULL, NULL);
}
