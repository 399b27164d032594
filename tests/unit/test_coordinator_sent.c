/* Effects as they arrive at members: each field, in its place. */
#include <string.h>

#include "coordinator/edge.h"
#include "tests/harness/wire_lab.h"

enum { RUN = 5, EPOCH = 3 };

static const struct lease_terms terms[] = {{
    .episode = 11, .fence = 12, .purpose = EPISODE_EVAL, .split = SPLIT_VAL, .task = "stack", .state_seed = 13, .sample_key = 14,
    .max_steps = 15, .policy_version = 16, .prm_version = 17, .temperature = .5f, .style = "slow", .search_n = 4,
    .search_horizon = 18, .search_execute = 19, .score_every = 20, .search_temperature = .25f, .search_score = "mean",
    .search_method = "refine", .search_judge = "value", .search_proposals = "noise", .refine_always = true, .perturb = "push",
    .alone = true, .want_hidden = true, .draw_turns = true,
}};
static const uint64_t some[] = {21, 22, 23};
static const struct ledger_version version = {.number = 31, .dir = "prms/v000031", .digest = {1}}, *const kept[] = {&version};

/* What a coordinator of nothing but a socket answers, and pushes before it does. */
static const struct conductor_effect answers[] = {
    {.kind = CONDUCTOR_GRANT, .grant = {.leases = terms, .n_leases = 1, .retry_ms = 250}},
    {.kind = CONDUCTOR_HEARTBEAT_REPLY, .heartbeat = {.known = true, .sent_away = true, .revoked = some, .n_revoked = 3, .revision = 9}},
};
static const struct conductor_effect pushes[] = {
    {.kind = CONDUCTOR_OPEN_ITERATION, .open = {.stage = 1, .iteration = 2, .name = "rl/2", .episodes = some, .n_episodes = 3,
                                                .failed = some, .n_failed = 2, .policy_version = 6, .prm_version = 7,
                                                .purpose = EPISODE_TRAIN, .keep = true}},
    {.kind = CONDUCTOR_PLAN, .plan = {.stage = 1, .iteration = 2, .round = 3, .objective = WORK_PRM, .kind = KIND_PRM, .parent = 6,
                                      .version = 7, .parent_dir = "prms/v000006", .episodes = some, .n_episodes = 3, .stages = some,
                                      .n_stages = 1, .settings = "steps: 5", .digest = {8}, .group_epoch = 9, .keep_from = 10}},
    {.kind = CONDUCTOR_VERSIONS, .versions = {.kind = KIND_PRM, .keep = kept, .n_keep = 1, .shadow = 31}},
    {.kind = CONDUCTOR_SEND_DRAIN, .text.text = "enough"},
    {.kind = CONDUCTOR_SEND_WORK},
};

struct side {
    struct wire_lab lab;
    struct wire *coordinator, *member;
    struct wire_client *client;
    struct edge edge;
    unsigned pushed, answered;
};

static void on_request(struct request *request, void *arg)
{
    struct side *s = arg;
    bool grant = request->message->envelope.kind == WIRE_KIND(LEASE_REQUEST);
    struct conductor_effect answer = answers[grant ? 0 : 1], push;

    for (size_t i = 0; grant && i < ARRAY_SIZE(pushes); i++) {
        push = pushes[i];
        push.to = request->peer;
        edge_send(&s->edge, &push);
    }
    answer.request = (uint64_t)(uintptr_t)request;
    edge_send(&s->edge, &answer);
}

static void are_some(const uint64_t *found, size_t n, size_t expected)
{
    assert_int_equal(n, expected);
    assert_memory_equal(found, some, n * sizeof *found);
}

static void on_push(const struct message *message, void *arg)
{
    const Gantry__OpenIteration *open = (const Gantry__OpenIteration *)message->body;
    const Gantry__Versions *versions = (const Gantry__Versions *)message->body;
    const Gantry__Plan *plan = (const Gantry__Plan *)message->body;

    ((struct side *)arg)->pushed++;
    switch (message->envelope.kind) {
    case WIRE_KIND(OPEN_ITERATION):
        assert_true(open->stage == 1 && open->iteration == 2 && open->policy_version == 6 && open->prm_version == 7 && open->keep);
        assert_int_equal(open->purpose, GANTRY__PURPOSE__PURPOSE_TRAIN);
        assert_string_equal(open->name, "rl/2");
        are_some(open->episodes, open->n_episodes, 3);
        are_some(open->failed, open->n_failed, 2);
        break;
    case WIRE_KIND(PLAN):
        assert_true(plan->stage == 1 && plan->iteration == 2 && plan->round == 3 && plan->parent == 6 && plan->version == 7);
        assert_true(plan->group_epoch == 9 && plan->keep_from == 10);
        assert_int_equal(plan->kind, GANTRY__VERSION_KIND__VERSION_PRM);
        assert_string_equal(plan->objective, "prm");
        assert_string_equal(plan->parent_dir, "prms/v000006");
        assert_string_equal(plan->settings, "steps: 5");
        are_some(plan->episodes, plan->n_episodes, 3);
        are_some(plan->stages, plan->n_stages, 1);
        assert_true(plan->digest.len == SHA256_SIZE && plan->digest.data[0] == 8);
        break;
    case WIRE_KIND(VERSIONS):
        assert_true(versions->kind == GANTRY__VERSION_KIND__VERSION_PRM && versions->shadow == 31 && versions->n_keep == 1);
        assert_int_equal(versions->keep[0]->version, 31);
        assert_string_equal(versions->keep[0]->dir, "prms/v000031");
        assert_true(versions->keep[0]->manifest_digest.len == SHA256_SIZE && versions->keep[0]->manifest_digest.data[0] == 1);
        break;
    case WIRE_KIND(DRAIN): assert_string_equal(((const Gantry__Drain *)message->body)->reason, "enough"); break;
    default: assert_int_equal(message->envelope.kind, WIRE_KIND(WORK)); break;
    }
}

static void check_lease(const Gantry__Lease *l)
{
    assert_true(l->episode == 11 && l->fence == 12 && l->state_seed == 13 && l->sample_key == 14 && l->max_steps == 15);
    assert_true(l->policy_version == 16 && l->prm_version == 17 && l->temperature == .5f && l->search_temperature == .25f);
    assert_true(l->purpose == GANTRY__PURPOSE__PURPOSE_EVAL && l->split == GANTRY__SPLIT__SPLIT_VAL);
    assert_true(l->search_n == 4 && l->search_horizon == 18 && l->search_execute == 19 && l->score_every == 20);
    assert_true(l->alone && l->want_hidden && l->draw_turns && l->refine_always);
    assert_string_equal(l->task, "stack");
    assert_string_equal(l->style, "slow");
    assert_string_equal(l->perturb, "push");
    assert_string_equal(l->search_score, "mean");
    assert_string_equal(l->search_method, "refine");
    assert_string_equal(l->search_judge, "value");
    assert_string_equal(l->search_proposals, "noise");
}

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct side *s = arg;

    assert_int_equal(result, 0);
    if (reply->envelope.kind == WIRE_KIND(LEASE_GRANT)) {
        const Gantry__LeaseGrant *grant = (const Gantry__LeaseGrant *)reply->body;

        assert_true(grant->n_leases == 1 && grant->retry_ms == 250 && grant->drain == s->edge.leaving);
        check_lease(grant->leases[0]);
    } else {
        const Gantry__HeartbeatReply *said = (const Gantry__HeartbeatReply *)reply->body;

        assert_true(said->known && said->sent_away && said->endpoints_revision == 9 && said->drain == s->edge.leaving);
        are_some(said->revoked, said->n_revoked, 3);
    }
    s->answered++;
}

static void ask(struct side *s, Gantry__Kind kind, const ProtobufCMessage *body)
{
    const struct wire_call call = {.kind = kind, .body = body, .deadline_ms = 60000, .on_reply = on_reply, .arg = s};

    assert_int_equal(wire_call(s->client, &call, NULL), 0);
    lab_until_count(&s->lab, &s->answered, s->answered + 1);
}

static void test_each_field(void **state)
{
    struct wire_server_options server = {.on_request = on_request};
    struct wire_client_options client = {.on_push = on_push};
    Gantry__LeaseRequest lease_request = GANTRY__LEASE_REQUEST__INIT;
    Gantry__Heartbeat heartbeat = GANTRY__HEARTBEAT__INIT;
    static struct side s;
    struct error error;

    (void)state;
    lab_open(&s.lab);
    server.address = client.address = s.lab.ipc;
    server.arg = client.arg = &s;
    assert_int_equal(wire_new(&s.lab.loop, GANTRY__ROLE__ROLE_COORDINATOR, &s.coordinator), 0);
    assert_int_equal(wire_new(&s.lab.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &s.member), 0);
    wire_set_run(s.coordinator, RUN, EPOCH);
    wire_set_run(s.member, RUN, EPOCH);
    assert_int_equal(wire_server_new(s.coordinator, &server, &s.edge.ipc, &error), 0);
    assert_int_equal(wire_client_new(s.member, &client, &s.client, &error), 0);
    for (int leaving = 0; leaving < 2; leaving++) {         /* who leaves takes everybody along */
        s.edge.leaving = leaving;
        ask(&s, WIRE_KIND(LEASE_REQUEST), &lease_request.base);
        ask(&s, WIRE_KIND(HEARTBEAT), &heartbeat.base);
        lab_until_count(&s.lab, &s.pushed, (unsigned)((leaving + 1) * (int)ARRAY_SIZE(pushes)));
    }
    wire_client_free(s.client);
    wire_server_free(s.edge.ipc);
    wire_free(s.member);
    wire_free(s.coordinator);
    lab_close(&s.lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_field)};

    return cmocka_run_group_tests_name("coordinator sent", tests, NULL, NULL);
}
