#include "wire/member.h"

#include <errno.h>
#include <sys/random.h>

#include "base/clock.h"
#include "wire/address.h"
#include "wire/security.h"

enum {
    HELLO_DEADLINE_MS = 10000, HELLO_AGAIN_MS = 500, BEAT_DEFAULT_MS = 1000,
    BEAT_WAIT_MIN_MS = 1000, BEAT_WAIT_MAX_MS = 5000,       /* for the answer to one beat */
};

struct member {
    struct wire *wire;
    struct wire_client *client;
    struct member_options options;
    char *join, *key, *build, *device, *isa, *name, *address;
    char host[256];
    uint64_t instance;              /* tells a reconnect from a restart */

    uv_timer_t timer;               /* next Hello or beat; its close callback frees the member */
    uint32_t id, heartbeat_ms;
    uint64_t endpoints_revision;
    bool welcomed, joined, draining, sent_away, closing;
    bool heard;                     /* on_state has been called: the coordinator was up, or nobody answered the first Hello */
    bool hello_sent, beat_sent;     /* one of each at a time */

    bool leaving;
    void (*on_left)(void *arg);
    void *left_arg;
};

static void say_hello(struct member *member);
static void look_again(struct member *member);
static void wake_in(struct member *member, uint64_t ms);
static void on_state(bool up, void *arg);

static void on_timer(uv_timer_t *timer)
{
    struct member *member = timer->data;

    if (member->joined) {
        member_beat(member);
    } else if (member->hello_sent) {
        look_again(member);         /* its Hello may wait for an address that is no more */
        wake_in(member, HELLO_AGAIN_MS);
    } else {
        say_hello(member);
    }
}

static void wake_in(struct member *member, uint64_t ms)
{
    if (member->closing || member->leaving)
        return;
    uv_update_time(member->wire->loop);
    uv_timer_start(&member->timer, on_timer, ms, 0);
}

/* ---- what the coordinator says ------------------------------------------------------------------------ */

static void take_endpoints(struct member *member, Gantry__Endpoint *const *endpoints, size_t n)
{
    if (member->options.on_endpoints)
        member->options.on_endpoints(endpoints, n, member->options.arg);
}

static void take_allowed(struct member *member, const Gantry__Allowed *said)
{
    _cleanup_free_ struct security_entry *list = NULL;

    if (!said || !said->digest || !security_wants_list(member->wire->security))
        return;
    list = calloc(said->n_keys + 1, sizeof *list);
    for (size_t i = 0; list && i < said->n_keys; i++) {
        list[i].role = said->keys[i]->role;
        snprintf(list[i].key, sizeof list[i].key, "%s", said->keys[i]->key);
    }
    if (list)           /* else the next heartbeat brings it again */
        (void)security_set_list(member->wire->security, list, said->n_keys, said->digest);
}

static void take_drain(struct member *member, const char *reason)
{
    if (member->draining)
        return;
    member->draining = true;
    if (member->options.on_drain)
        member->options.on_drain(reason, member->options.arg);
}

static void take_welcome(struct member *member, const Gantry__Welcome *welcome)
{
    bool again = member->welcomed;

    wire_set_run(member->wire, welcome->run, welcome->epoch);
    member->id = welcome->member;
    member->heartbeat_ms = CLAMP(welcome->heartbeat_ms ? welcome->heartbeat_ms : BEAT_DEFAULT_MS, 10u, 60000u);
    member->welcomed = member->joined = true;
    member->endpoints_revision = 0;
    take_allowed(member, welcome->allowed);
    if (member->options.on_welcome)
        member->options.on_welcome(welcome, again, member->options.arg);
    if (!member->closing)
        take_endpoints(member, welcome->endpoints, welcome->n_endpoints);
    wake_in(member, member->heartbeat_ms);
}

static bool is_final(int result)
{
    return result == -EPROTO || result == -EACCES || result == -EBADMSG || result == -EKEYREJECTED;
}

static const char *why(const struct member *member, int result, const struct message *reply)
{
    if (reply && reply->envelope.error[0])
        return reply->envelope.error;
    switch (result) {
    case -EACCES: return "this key is not let in: revoked, or never added (gantry keys list, gantry keys add)";
    case -EKEYREJECTED: return "the coordinator has another key than the one expected: compare coordinator.pub";
    default: return *wire_client_why(member->client) ? wire_client_why(member->client) : strerror(-result);
    }
}

static void on_hello_reply(int result, const struct message *reply, void *arg)
{
    struct member *member = arg;

    member->hello_sent = false;
    if (result == -ECANCELED || member->closing || member->leaving)
        return;
    if (result == 0) {
        take_welcome(member, (const Gantry__Welcome *)reply->body);
        return;
    }
    if (is_final(result) && member->options.on_refused)
        member->options.on_refused(result, why(member, result, reply), member->options.arg);
    else if (!member->heard && *wire_client_address(member->client))
        on_state(false, member);
    wake_in(member, HELLO_AGAIN_MS);
}

static void on_beat_reply(int result, const struct message *reply, void *arg)
{
    struct member *member = arg;
    const Gantry__HeartbeatReply *said;

    member->beat_sent = false;
    if (result == -ECANCELED || member->closing || member->leaving)
        return;
    if ((result == -EACCES || result == -EPROTO) && member->options.on_refused)     /* revoked, or outlived by another build */
        member->options.on_refused(result, why(member, result, reply), member->options.arg);
    if (result < 0)
        return;         /* silence: on_state tells; an old epoch: wire->on_stale has been called */
    said = (const Gantry__HeartbeatReply *)reply->body;
    if (!said->known) {
        member->joined = false;
        say_hello(member);
        return;
    }
    if (said->n_endpoints || said->endpoints_revision != member->endpoints_revision) {
        member->endpoints_revision = said->endpoints_revision;
        take_endpoints(member, said->endpoints, said->n_endpoints);
    }
    take_allowed(member, said->allowed);
    if (said->n_revoked && !member->closing && member->options.on_revoked)
        member->options.on_revoked(said->revoked, said->n_revoked, member->options.arg);
    member->sent_away |= said->sent_away;
    if (said->drain && !member->closing)
        take_drain(member, said->sent_away ? "sent away by an operator" : "the run is draining");
}

static void on_push(const struct message *message, void *arg)
{
    struct member *member = arg;

    if (message->envelope.epoch < member->wire->epoch)
        return;         /* from a coordinator that is no longer */
    if (message->envelope.kind == WIRE_KIND(DRAIN))
        take_drain(member, ((const Gantry__Drain *)message->body)->reason);
    else if (member->options.on_push)
        member->options.on_push(message, member->options.arg);
}

/* ---- what we say -------------------------------------------------------------------------------------- */

static void say_hello(struct member *member)
{
    Gantry__Hello hello = GANTRY__HELLO__INIT;
    struct wire_call call = {
        .kind = WIRE_KIND(HELLO),
        .body = &hello.base,
        .deadline_ms = HELLO_DEADLINE_MS,
        .on_reply = on_hello_reply,
        .arg = member,
    };

    if (member->hello_sent || member->leaving)
        return;
    look_again(member);
    hello.role = member->wire->role;
    hello.build = member->build;
    hello.host = member->host;
    hello.pid = (uint32_t)getpid();
    hello.instance = member->instance;
    hello.slots = member->options.slots;
    hello.device = member->device;
    hello.isa = member->isa;
    hello.name = member->name;
    hello.address = member->address;
    if (member->wire->security && *member->address && !address_is_ipc(member->address))
        hello.public_key = (char *)security_public_key(member->wire->security);
    hello.wants_allowed = security_wants_list(member->wire->security);
    hello.rank = member->options.rank;
    if (member->options.fill_hello)
        member->options.fill_hello(&hello, member->options.arg);
    if (wire_call(member->client, &call, NULL) == 0)
        member->hello_sent = true;
    wake_in(member, HELLO_AGAIN_MS);
}

void member_beat(struct member *member)
{
    Gantry__Heartbeat beat = GANTRY__HEARTBEAT__INIT;
    struct wire_call call = {
        /* one that got lost must not keep the next back for as long as it takes to be given up */
        .kind = WIRE_KIND(HEARTBEAT), .body = &beat.base, .flags = WIRE_ONCE,
        .deadline_ms = CLAMP(member->heartbeat_ms, (uint32_t)BEAT_WAIT_MIN_MS, (uint32_t)BEAT_WAIT_MAX_MS),
        .on_reply = on_beat_reply, .arg = member,
    };

    if (!member->joined || member->leaving)
        return;
    look_again(member);
    wake_in(member, member->heartbeat_ms);
    if (member->beat_sent)
        return;
    beat.member = member->id;
    beat.endpoints_revision = member->endpoints_revision;
    if (security_wants_list(member->wire->security))
        beat.allowed_digest = security_list_digest(member->wire->security);
    if (member->options.fill_heartbeat)
        member->options.fill_heartbeat(&beat, member->options.arg);
    if (wire_call(member->client, &call, NULL) == 0)
        member->beat_sent = true;
}

/* A server (maybe another than the coordinator) lives under a newer epoch than we do. */
static void on_stale(void *arg)
{
    struct member *member = arg;

    if (!member->joined)
        return;
    member->joined = false;
    wake_in(member, 0);
}

static void on_bye_reply(int result, const struct message *reply, void *arg)
{
    struct member *member = arg;

    (void)reply;
    if (result != -ECANCELED && member->on_left)
        member->on_left(member->left_arg);
}

void member_leave(struct member *member, const char *reason, uint32_t deadline_ms, void (*on_left)(void *arg), void *arg)
{
    Gantry__Bye bye = GANTRY__BYE__INIT;
    struct wire_call call = {
        .kind = WIRE_KIND(BYE), .body = &bye.base, .deadline_ms = deadline_ms, .on_reply = on_bye_reply, .arg = member,
    };

    if (member->leaving)
        return;
    member->leaving = true;
    member->joined = false;
    member->on_left = on_left;
    member->left_arg = arg;
    uv_timer_stop(&member->timer);
    bye.member = member->id;
    bye.reason = (char *)reason;
    if ((!*wire_client_address(member->client) || wire_call(member->client, &call, NULL) < 0) && on_left)
        on_left(arg);           /* nobody can have heard of us */
}

/* ---- the connection ----------------------------------------------------------------------------------- */

static bool joins_by_file(const struct member *member)
{
    return !strstr(member->join, "://");
}

/* An address of "": the file that has it is not there yet. */
static int find_coordinator(struct member *member, char ret_address[ADDRESS_MAX], char ret_key[41], struct error *error)
{
    if (!strncmp(member->join, "file:", 5)) {
        int r = address_read(member->join + 5, ret_address, ret_key, error);

        if (r == -ENOENT)
            ret_address[0] = ret_key[0] = '\0';
        return r == -ENOENT ? 0 : r;
    }
    if (joins_by_file(member)) {
        int r = address_lookup(member->join, "coordinator", ret_address, ret_key, error);

        if (r != -ENOENT && (r < 0 || address_is_ipc(ret_address) || member->wire->security))
            return r;
        ret_key[0] = '\0';      /* never up yet: on this host it will listen there; on another say_hello looks again */
        return address_ipc(member->join, "coordinator", ret_address, error);
    }
    snprintf(ret_address, ADDRESS_MAX, "%s", member->join);
    snprintf(ret_key, 41, "%s", member->key);
    return address_check(ret_address, error);
}

/* The coordinator may come up, or back, somewhere else. A first address that cannot be used is refused, as it is at the start. */
static void look_again(struct member *member)
{
    bool first = !*wire_client_address(member->client);
    char address[ADDRESS_MAX], key[41];
    struct error error = {0};
    int r;

    if (wire_client_up(member->client) || !joins_by_file(member))
        return;
    r = find_coordinator(member, address, key, &error);
    if (r == 0 && *address && strcmp(address, wire_client_address(member->client)))
        r = wire_client_move(member->client, address, key, &error);
    if (r < 0 && first && member->options.on_refused)
        member->options.on_refused(r, error_text(&error, r), member->options.arg);
}

static void on_state(bool up, void *arg)
{
    struct member *member = arg;

    member->heard = true;
    if (!up)
        look_again(member);
    if (up && member->joined)
        member_beat(member);        /* a new life of the coordinator does not know us: find out now */
    if (!member->closing && member->options.on_state)
        member->options.on_state(up, member->options.arg);
}

static void member_release(struct member *member)
{
    free(member->join);
    free(member->key);
    free(member->build);
    free(member->device);
    free(member->isa);
    free(member->name);
    free(member->address);
    free(member);
}

static int copy_options(struct member *member, const struct member_options *o)
{
    member->options = *o;
    member->join = strdup(o->join ? o->join : "");
    member->key = strdup(o->server_key ? o->server_key : "");
    member->build = strdup(o->build ? o->build : "");
    member->device = strdup(o->device ? o->device : "");
    member->isa = strdup(o->isa ? o->isa : "");
    member->name = strdup(o->name ? o->name : "");
    member->address = strdup(o->address ? o->address : "");
    if (!member->join || !member->key || !member->build || !member->device || !member->isa || !member->name || !member->address)
        return -ENOMEM;
    if (gethostname(member->host, sizeof member->host - 1))
        snprintf(member->host, sizeof member->host, "unknown");
    if (getrandom(&member->instance, sizeof member->instance, 0) != sizeof member->instance)
        member->instance = clock_mono_ns() ^ (uint64_t)getpid() << 32;
    return 0;
}

int member_new(struct wire *wire, const struct member_options *options, struct member **ret, struct error *error)
{
    struct wire_client_options client = {.on_push = on_push, .on_state = on_state};
    struct member *member = calloc(1, sizeof *member);
    char address[ADDRESS_MAX], key[41];
    int r;

    if (!member)
        return -ENOMEM;
    member->wire = wire;
    client.arg = member;
    client.address = address;
    client.server_key = key;
    r = copy_options(member, options);
    if (r == 0)
        r = find_coordinator(member, address, key, error);
    if (r == 0)
        r = wire_client_new(wire, &client, &member->client, error);
    if (r < 0) {
        member_release(member);
        return r;
    }
    wire->on_stale = on_stale;
    wire->on_stale_arg = member;
    uv_timer_init(wire->loop, &member->timer);
    member->timer.data = member;
    wake_in(member, 0);
    *ret = member;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    member_release(handle->data);
}

struct member *member_free(struct member *member)
{
    if (!member || member->closing)
        return NULL;
    member->closing = true;
    if (member->wire->on_stale_arg == member) {
        member->wire->on_stale = NULL;
        member->wire->on_stale_arg = NULL;
    }
    member->client = wire_client_free(member->client);
    uv_close((uv_handle_t *)&member->timer, on_closed);
    return NULL;
}

uint32_t member_id(const struct member *member)
{
    return member->id;
}

bool member_joined(const struct member *member)
{
    return member->joined;
}

bool member_draining(const struct member *member)
{
    return member->draining;
}

bool member_sent_away(const struct member *member)
{
    return member->sent_away;
}

struct wire_client *member_client(struct member *member)
{
    return member->client;
}
