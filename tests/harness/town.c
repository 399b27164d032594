#include "tests/harness/town.h"

#include <errno.h>

#include "wire/address.h"

enum { REVISION = 7 };              /* of its endpoints */

static void welcome(struct town *town, struct request *request)
{
    const Gantry__Hello *hello = (const Gantry__Hello *)request->message->body;
    Gantry__Welcome reply = GANTRY__WELCOME__INIT;
    Gantry__Endpoint actor = GANTRY__ENDPOINT__INIT, *list[] = {&actor};

    town->hellos++;
    town->knows = town->fresh = true;
    town->peer = request->peer;
    town->held_leases = (uint32_t)hello->n_leases;
    assert_int_equal(hello->role, GANTRY__ROLE__ROLE_ENV_WORKER);
    assert_int_equal(hello->slots, 8);
    assert_int_equal(hello->pid, getpid());
    assert_true(!town->instance || town->instance == hello->instance);
    town->instance = hello->instance;
    reply.member = 4;
    reply.epoch = town->epoch;
    reply.run = 99;
    reply.heartbeat_ms = 20;
    reply.config = (char *)"slots: 8";
    actor.address = (char *)"ipc:///a";
    reply.endpoints = list;
    reply.n_endpoints = 1;
    wire_reply(request, &reply.base, NULL, 0);
}

static void beat(struct town *town, struct request *request)
{
    const Gantry__Heartbeat *said = (const Gantry__Heartbeat *)request->message->body;
    Gantry__HeartbeatReply reply = GANTRY__HEARTBEAT_REPLY__INIT;
    Gantry__Endpoint actor = GANTRY__ENDPOINT__INIT, *list[] = {&actor};

    town->beats++;
    assert_int_equal(said->member, 4);
    assert_int_equal(said->n_gauges, 1);
    if (town->mute) {
        request_drop(request_take(request));
        return;
    }
    assert_int_equal(said->endpoints_revision, town->fresh ? 0 : town->revision);  /* another life counts its own */
    town->fresh = false;
    town->revision = reply.endpoints_revision = REVISION + town->nobody;
    actor.address = (char *)"ipc:///a";
    reply.endpoints = list;
    reply.n_endpoints = said->endpoints_revision != REVISION && !town->nobody;
    reply.known = town->knows;
    reply.drain = town->drain;
    reply.sent_away = town->sent_away;
    if (town->revoke) {
        reply.revoked = &town->revoke;
        reply.n_revoked = 1;
    }
    wire_reply(request, &reply.base, NULL, 0);
    town->revoke = 0;
}

static void on_request(struct request *request, void *arg)
{
    struct town *town = arg;
    Gantry__ByeReply bye = GANTRY__BYE_REPLY__INIT;

    switch (request->message->envelope.kind) {
    case WIRE_KIND(HELLO): welcome(town, request); break;
    case WIRE_KIND(HEARTBEAT): beat(town, request); break;
    case WIRE_KIND(BYE):
        town->byes++;
        wire_reply(request, &bye.base, NULL, 0);
        break;
    default: fail_msg("kind %u", request->message->envelope.kind);
    }
}

void town_on_welcome(const Gantry__Welcome *said, bool again, void *arg)
{
    struct town *town = arg;

    town->welcomes++;
    town->again += again;
    assert_string_equal(said->config, "slots: 8");
}

static void fill_hello(Gantry__Hello *hello, void *arg)
{
    static Gantry__HeldLease lease = GANTRY__HELD_LEASE__INIT;
    static Gantry__HeldLease *list[] = {&lease};
    struct town *town = arg;

    if (town->welcomes) {
        hello->leases = list;
        hello->n_leases = 1;
    }
}

void town_fill_heartbeat(Gantry__Heartbeat *heartbeat, void *arg)
{
    static Gantry__Gauge gauge = GANTRY__GAUGE__INIT;
    static Gantry__Gauge *list[] = {&gauge};

    (void)arg;
    heartbeat->gauges = list;
    heartbeat->n_gauges = 1;
}

static void on_endpoints(Gantry__Endpoint *const *endpoints, size_t n, void *arg)
{
    struct town *town = arg;

    if (n == 0) {
        town->none++;
        return;
    }
    assert_int_equal(n, 1);
    assert_string_equal(endpoints[0]->address, "ipc:///a");
    town->endpoints++;
}

static void on_revoked(const uint64_t *episodes, size_t n, void *arg)
{
    struct town *town = arg;

    assert_int_equal(n, 1);
    assert_int_equal(episodes[0], 17);
    town->revoked++;
}

static void on_drain(const char *reason, void *arg)
{
    (void)reason;
    ((struct town *)arg)->drains++;
}

static void on_push(const struct message *message, void *arg)
{
    assert_int_equal(message->envelope.kind, WIRE_KIND(VERSIONS));
    ((struct town *)arg)->pushes++;
}

void town_on_state(bool up, void *arg)
{
    struct town *town = arg;

    town->up = up;
    town->states++;
}

void town_on_refused(int result, const char *text, void *arg)
{
    struct town *town = arg;

    assert_non_null(text);
    town->refused++;
    town->refusal = result;
    snprintf(town->why, sizeof town->why, "%s", text);
}

void town_on_left(void *arg)
{
    ((struct town *)arg)->left++;
}

void town_coordinator(struct town *town, uint64_t epoch)
{
    struct wire_server_options options = {.address = town->lab.ipc, .on_request = on_request, .arg = town};
    struct error error = {0};

    town->epoch = epoch;
    town->knows = false;
    wire_set_run(town->there, 99, epoch);
    if (wire_server_new(town->there, &options, &town->server, &error) < 0)
        fail_msg("%s", error.text);
}

void town_open(struct town *town, const char *join)
{
    struct member_options options = {
        .join = join,
        .build = "test",
        .slots = 8,
        .on_welcome = town_on_welcome,
        .fill_hello = fill_hello,
        .fill_heartbeat = town_fill_heartbeat,
        .on_endpoints = on_endpoints,
        .on_revoked = on_revoked,
        .on_drain = on_drain,
        .on_push = on_push,
        .on_state = town_on_state,
        .on_refused = town_on_refused,
        .arg = town,
    };
    struct error error = {0};

    memset(town, 0, sizeof *town);
    lab_open(&town->lab);
    assert_int_equal(wire_new(&town->lab.loop, GANTRY__ROLE__ROLE_COORDINATOR, &town->there), 0);
    assert_int_equal(wire_new(&town->lab.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &town->here), 0);
    if (!join)
        options.join = town->lab.dir;
    if (member_new(town->here, &options, &town->member, &error) < 0)
        fail_msg("%s", error.text);
    if (!join)      /* it was here first: no endpoint file yet, and then one that names another place than it would guess */
        assert_int_equal(address_publish(town->lab.dir, "coordinator", town->lab.ipc, NULL, &error), 0);
}

void town_close(struct town *town)
{
    town->member = member_free(town->member);
    town->server = wire_server_free(town->server);
    uv_run(&town->lab.loop, UV_RUN_NOWAIT);
    town->here = wire_free(town->here);
    town->there = wire_free(town->there);
    lab_close(&town->lab);
}
