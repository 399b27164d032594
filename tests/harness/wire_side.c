#include "tests/harness/wire_side.h"

#include <errno.h>

#include "base/fault.h"

void side_answer(struct side *side, struct request *request)
{
    const Gantry__ActRequest *act = (const Gantry__ActRequest *)request->message->body;
    Gantry__ActReply reply = GANTRY__ACT_REPLY__INIT;

    (void)side;
    reply.value = (float)act->step;
    reply.policy_version = request->message->envelope.version;
    assert_int_equal(wire_reply(request, &reply.base, NULL, 0), 0);
}

void side_keep(struct side *side, struct request *request)
{
    side->kept[side->n_kept++] = request_take(request);
}

void side_on_request(struct request *request, void *arg)
{
    struct side *side = arg;

    assert_true(request->role == GANTRY__ROLE__ROLE_NONE && !*request->user);          /* ipc */
    side->requests++;
    side->serve(side, request);
}

static void on_peer(uint64_t peer, bool here, void *arg)
{
    struct side *side = arg;

    if (here)
        side->peer = peer;
    side->peers_here += here;
    side->peers_gone += !here;
}

void side_on_reply(int result, const struct message *reply, void *arg)
{
    struct side *side = arg;

    side->replies++;
    side->result = result;
    side->status = reply ? reply->envelope.status : 0;
    side->envelope = reply ? reply->envelope : (struct envelope) {0};
    snprintf(side->text, sizeof side->text, "%s", reply ? reply->envelope.error : "");
}

static void on_push(const struct message *message, void *arg)
{
    struct side *side = arg;

    assert_int_equal(message->envelope.kind, WIRE_KIND(DRAIN));
    assert_string_equal(((const Gantry__Drain *)message->body)->reason, "enough");
    side->pushes++;
}

static void on_state(bool up, void *arg)
{
    ((struct side *)arg)->up = up;
}

void side_serve(struct side *side, unsigned credits)
{
    struct wire_server_options options = {
        .address = side->lab.ipc, .credits = credits, .on_request = side_on_request, .on_peer = on_peer, .arg = side,
    };
    struct error error = {0};

    if (wire_server_new(side->there, &options, &side->server, &error) < 0)
        fail_msg("%s", error.text);
}

void side_open(struct side *side, unsigned server_credits, unsigned client_credits)
{
    struct wire_client_options options = {.credits = client_credits, .on_push = on_push, .on_state = on_state, .arg = side};
    struct error error = {0};

    memset(side, 0, sizeof *side);
    side->serve = side_answer;
    lab_open(&side->lab);
    assert_int_equal(wire_new(&side->lab.loop, GANTRY__ROLE__ROLE_ACTOR, &side->there), 0);
    assert_int_equal(wire_new(&side->lab.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &side->here), 0);
    side_serve(side, server_credits);
    options.address = side->lab.ipc;
    if (wire_client_new(side->here, &options, &side->client, &error) < 0)
        fail_msg("%s", error.text);
}

void side_close(struct side *side)
{
    fault_arm("");
    side->client = wire_client_free(side->client);
    side->server = wire_server_free(side->server);
    uv_run(&side->lab.loop, UV_RUN_NOWAIT);
    side->here = wire_free(side->here);
    side->there = wire_free(side->there);
    lab_close(&side->lab);
}

int side_act(struct side *side, uint32_t step, uint32_t deadline_ms, enum wire_call_flags flags, const struct wire_part *part)
{
    Gantry__ActRequest request = GANTRY__ACT_REQUEST__INIT;
    struct wire_call call = {
        .kind = WIRE_KIND(ACT), .version = 7, .body = &request.base, .parts = part, .n_parts = part ? 1 : 0,
        .deadline_ms = deadline_ms, .flags = flags, .on_reply = side_on_reply, .arg = side,
    };

    request.step = step;
    return wire_call(side->client, &call, NULL);
}
