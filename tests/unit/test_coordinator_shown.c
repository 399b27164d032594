/* What a coordinator shows of a run that is at work, and what it answers its operator: status, page, metrics, commands. Looked at
 * once, when the plan of the last rl iteration has gone out: all its episodes are in, nothing is leased, the learner trains. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "proto/control.pb-c.h"
#include "tests/harness/coordinator_life.h"
#include "tests/harness/fake_members.h"
#include "wire/kinds.h"

static unsigned looked, half_way;
static uint32_t ids[MEMBER_LEARNER + 1];        /* of the one member of each role */

static json_t *status(void)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    json_t *root;

    assert_int_equal(edge_status_json(life_edge, &out), 0);
    root = json_loads(out.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    return root;
}

/* What `key` is, or `key` of the object `in` of it, as JSON text. */
static void shows(json_t *root, const char *in, const char *key, const char *expected)
{
    char *text = json_dumps(json_object_get(in ? json_object_get(root, in) : root, key), JSON_ENCODE_ANY | JSON_COMPACT);

    if (!text || strcmp(text, expected) != 0)
        fail_msg("%s.%s is %s, not %s", in ? in : "status", key, text ? text : "missing", expected);
    free(text);
}

static json_t *member_of(json_t *root, enum member_role role)
{
    json_t *members = json_object_get(root, "members");

    for (size_t i = 0; i < json_array_size(members); i++)
        if (json_integer_value(json_object_get(json_array_get(members, i), "member")) == (json_int_t)ids[role])
            return json_array_get(members, i);
    fail_msg("member %u is not shown", ids[role]);
    return NULL;
}

static void look_at_status(void)
{
    static const char *const roles[] = {
        [MEMBER_WORKER] = "\"env_worker\"", [MEMBER_ACTOR] = "\"actor\"", [MEMBER_PRM] = "\"prm_server\"",
        [MEMBER_LEARNER] = "\"learner\"",
    };
    json_t *root = status(), *curve = json_object_get(root, "success_curve"), *history = json_object_get(root, "history");

    shows(root, NULL, "run", "\"t\"");
    shows(root, NULL, "epoch", "1");
    shows(root, NULL, "seed", "7");
    assert_string_equal(json_string_value(json_object_get(root, "dir")), life_edge->run_dir);
    assert_int_equal(strlen(json_string_value(json_object_get(root, "run_id"))), 16);
    shows(root, NULL, "state", "\"training\"");
    shows(root, NULL, "waiting_for", "\"\"");
    shows(root, NULL, "trouble", "\"\"");
    shows(root, NULL, "stage", "\"rl\"");
    shows(root, NULL, "stage_number", "4");
    shows(root, NULL, "stages", "6");
    shows(root, NULL, "iteration", "3");
    shows(root, NULL, "iterations", "2");
    shows(root, NULL, "name", "\"rl/2\"");
    shows(root, NULL, "title", "\"rl 2 of 2\"");
    shows(root, NULL, "left_in", "\"stage\"");
    shows(root, NULL, "episodes", "{\"planned\":6,\"open\":0,\"leased\":0,\"journaled\":6,\"failed\":0}");
    shows(root, NULL, "policy_version", "2");
    shows(root, NULL, "prm_version", "1");
    shows(root, NULL, "episodes_since_start", "30");        /* 6 demos, 4 rollouts, twice 4 on val and 6 */
    shows(root, NULL, "env_steps_since_start", "300");
    assert_true(json_number_value(json_object_get(root, "up_s")) > 0);
    assert_true(json_number_value(json_object_get(root, "success")) > 0);
    assert_int_equal(json_array_size(json_object_get(root, "members")), 4);
    for (enum member_role role = MEMBER_WORKER; role <= MEMBER_LEARNER; role++) {
        const struct member *member = membership_find((struct membership *)conductor_members(life_edge->conductor), ids[role]);
        json_t *m = member_of(root, role), *versions;

        assert_string_equal(member->build, "test");
        assert_int_equal(member->address[0], role == MEMBER_WORKER ? '\0' : 'i');      /* ipc:///... */
        assert_true(member->instance != 0 && json_string_length(json_object_get(m, "host")) > 0);

        shows(m, NULL, "role", roles[role]);
        shows(m, NULL, "state", "\"alive\"");
        shows(m, NULL, "device", "\"cpu\"");
        shows(m, NULL, "slots", "4");
        shows(m, NULL, "leases", "0");
        shows(m, NULL, "delivered", role == MEMBER_WORKER ? "30" : "0");
        versions = json_object_get(m, "versions");      /* the newest last; an actor may still have the one before */
        assert_int_equal(json_integer_value(json_array_get(versions, json_array_size(versions) - 1)),
                         role == MEMBER_ACTOR ? 2 : role == MEMBER_PRM ? 1 : 0);
        shows(m, NULL, "gauges", "{}");
        assert_int_equal(json_integer_value(json_object_get(m, "pid")), getpid());
    }
    assert_int_equal(json_array_size(history), 5);
    shows(json_array_get(history, 1), NULL, "stage", "\"sft\"");
    shows(json_array_get(history, 1), NULL, "state", "\"done\"");
    shows(json_array_get(history, 1), NULL, "policy_in", "0");
    shows(json_array_get(history, 1), NULL, "policy_out", "1");
    assert_int_equal(json_array_size(curve), 5);
    assert_string_equal(json_string_value(json_array_get(json_array_get(curve, 2), 0)), "rl val");
    assert_string_equal(json_string_value(json_array_get(json_array_get(curve, 3), 0)), "rl");
    assert_int_equal(json_integer_value(json_array_get(json_array_get(curve, 3), 1)), 1);
    json_decref(root);
}

static void put(enum member_role role, const char *name, double value)
{
    struct member_gauges *place = (struct member_gauges *)gauges_find(&life_edge->gauges, ids[role]);

    if (!place)
        place = gauges_place(&life_edge->gauges, conductor_members(life_edge->conductor), ids[role]);
    gauges_put(place, name, value);
}

/* What members say with their heartbeats. */
static void put_gauges(void)
{
    put(MEMBER_WORKER, "steps_total", 100);
    put(MEMBER_WORKER, "returned_total", 3);
    put(MEMBER_WORKER, "sim_ms_total", 2000);
    put(MEMBER_WORKER, "act_ms_total", 500);
    put(MEMBER_WORKER, "rss_peak_bytes", 1e6);
    put(MEMBER_WORKER, "cpu_ms_total", 7000);
    put(MEMBER_ACTOR, "rows_total", 40);
    put(MEMBER_ACTOR, "busy_ms_total", 4000);
    put(MEMBER_ACTOR, "device_memory_used_bytes", 3e9);
    put(MEMBER_ACTOR, "device_memory_bytes", 8e9);
    put(MEMBER_ACTOR, "gemm_fallback_total", 2);
    put(MEMBER_PRM, "rows_total", 50);
    put(MEMBER_PRM, "busy_ms_total", 5000);
    put(MEMBER_PRM, "device_memory_used_bytes", 1e9);
    put(MEMBER_PRM, "device_memory_bytes", 16e9);
    put(MEMBER_LEARNER, "samples_total", 60);
    put(MEMBER_LEARNER, "train_ms_total", 6000);
    put(MEMBER_LEARNER, "journal_bytes", 777);
    put(MEMBER_LEARNER, "gemm_fallback_total", 5);
    put(MEMBER_LEARNER, "attention_fallback_total", 1);
    ((struct member_gauges *)gauges_find(&life_edge->gauges, ids[MEMBER_WORKER]))->pace = (struct pace) {.ms_per_step = 12.5,
                                                                                                         .slow = true};
}

static void look_at_metrics(void)
{
    static const char *const lines[] = {
        "gantry_epoch 1", "gantry_stage 4", "gantry_iteration 3", "gantry_version{kind=\"policy\"} 2",
        "gantry_version{kind=\"prm\"} 1", "gantry_iteration_episodes{state=\"planned\"} 6",
        "gantry_iteration_episodes{state=\"open\"} 0", "gantry_iteration_episodes{state=\"leased\"} 0",
        "gantry_iteration_episodes{state=\"journaled\"} 6", "gantry_iteration_episodes{state=\"failed\"} 0",
        "gantry_iteration_return 0", "gantry_members{role=\"env_worker\"} 1", "gantry_members{role=\"learner\"} 1",
        "gantry_episodes_total 30", "gantry_env_steps_total 300", "gantry_messages_total{what=\"refused\"} 0",
        "gantry_fallback_total{op=\"gemm\"} 7", "gantry_fallback_total{op=\"attention\"} 1", "gantry_steps_played_total 100",
        "gantry_leases_returned_total 3", "gantry_sim_seconds_total 2", "gantry_act_wait_seconds_total 0.5",
        "gantry_actions_total 40", "gantry_act_busy_seconds_total 4", "gantry_scores_total 50",
        "gantry_score_busy_seconds_total 5", "gantry_train_samples_total 60", "gantry_train_seconds_total 6",
        "gantry_memory_peak_bytes{role=\"env_worker\"} 1000000", "gantry_journal_bytes 777",
        "gantry_device_memory_used_bytes 3000000000", "gantry_device_memory_bytes 8000000000",     /* 5 GB are left, not 15 */
    };
    static const char *const not_zero[] = {
        "gantry_iteration_success ", "gantry_messages_total{what=\"received\"} ", "gantry_ledger_commits_total ",
        "gantry_ledger_commit_seconds{which=\"last\"} ", "gantry_ledger_commit_seconds{which=\"worst\"} ",
        "gantry_loop_turn_worst_seconds ",
    };
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    char line[128];

    edge_metrics_write(life_edge, &out);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        snprintf(line, sizeof line, "\n%s\n", lines[i]);
        if (!strstr(out.text, line))
            fail_msg("there is no %s in\n%s", lines[i], out.text);
    }
    for (size_t i = 0; i < ARRAY_SIZE(not_zero); i++) {
        const char *at;

        snprintf(line, sizeof line, "\n%s", not_zero[i]);
        at = strstr(out.text, line);
        assert_true(at && strtod(at + strlen(line), NULL) > 0);
    }
}

static struct member *here(enum member_role role)
{
    return membership_find((struct membership *)conductor_members(life_edge->conductor), ids[role]);
}

/* What counts is what is said by those that are here. */
static void look_at_speed(void)
{
    const struct speed_look *at = &life_edge->speed.last;

    put(MEMBER_LEARNER, "train_total", 10);
    put(MEMBER_LEARNER, "train_done", 4);
    edge_look(life_edge);
    assert_int_equal(at->kind, PASS_TRAIN);     /* rl/2, which val follows: neither the look before it nor the critic's warm-up */
    assert_true(at->iterates && at->after[PASS_VAL] == 1 && !at->after[PASS_TRAIN] && !at->after[PASS_WARMUP]);
    assert_true(at->updates_planned == 10 && at->updates == 4 && !at->stopped);
    here(MEMBER_LEARNER)->state = MEMBER_LOST;
    edge_look(life_edge);
    here(MEMBER_LEARNER)->state = MEMBER_ALIVE;
    assert_true(at->updates_planned == 0);
    put(MEMBER_LEARNER, "train_total", 0);
    put(MEMBER_LEARNER, "disk_full", 1);
    edge_look(life_edge);
    put(MEMBER_LEARNER, "disk_full", 0);
    assert_true(at->stopped);
}

static void look_at_gauges(void)
{
    _cleanup_(strbuf_release) struct strbuf runtime = STRBUF_INIT;
    json_t *root = status(), *m = member_of(root, MEMBER_WORKER);
    char late[64];

    shows(m, NULL, "ms_per_step", "12.5");
    shows(m, NULL, "slow", "true");
    shows(m, "gauges", "steps_total", "100");
    shows(member_of(root, MEMBER_ACTOR), "gauges", "rows_total", "40");
    json_decref(root);
    put(MEMBER_LEARNER, "disk_full", 1);
    root = status();
    shows(root, NULL, "state", "\"paused\"");
    assert_non_null(strstr(json_string_value(json_object_get(root, "waiting_for")), "space in /"));
    json_decref(root);
    here(MEMBER_LEARNER)->state = MEMBER_LOST;          /* whose disk that is nobody knows any more */
    here(MEMBER_WORKER)->failed = MEMBER_ILL;
    root = status();
    here(MEMBER_LEARNER)->state = MEMBER_ALIVE;
    here(MEMBER_WORKER)->failed = 0;
    shows(root, NULL, "state", "\"training\"");
    shows(member_of(root, MEMBER_WORKER), NULL, "state", "\"ill\"");
    shows(member_of(root, MEMBER_LEARNER), NULL, "state", "\"lost\"");
    json_decref(root);
    put(MEMBER_LEARNER, "disk_full", 0);
    root = status();
    shows(root, NULL, "late", "\"\"");
    json_decref(root);
    put(MEMBER_LEARNER, "waits_for_ranks", 1 << 0 | 1 << 2 | 1 << 3);
    root = status();
    shows(root, NULL, "late", "\"learner rank 2, learner rank 3\"");
    json_decref(root);
    put(MEMBER_LEARNER, "waits_for_ranks", 1);
    root = status();
    snprintf(late, sizeof late, "\"learner rank 0 (member %u)\"", ids[MEMBER_LEARNER]);
    shows(root, NULL, "late", late);
    json_decref(root);
    put(MEMBER_LEARNER, "waits_for_ranks", 0);
    strbuf_addc(&runtime, '{');
    edge_runtime(life_edge, &runtime);
    strbuf_addc(&runtime, '}');
    root = json_loads(runtime.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_true(json_number_value(json_object_get(root, "actions_per_s")) > 0);
    assert_true(json_number_value(json_object_get(root, "train_samples_per_s")) == 10);
    assert_true(json_number_value(json_object_get(json_object_get(root, "peak_memory_mb"), "env_worker")) == 1);
    assert_true(json_number_value(json_object_get(json_object_get(root, "peak_memory_mb"), "coordinator")) > 1);
    assert_true(json_number_value(json_object_get(json_object_get(root, "cpu_s"), "env_worker")) == 7);
    json_decref(root);
}

/* A reward model that waits for its iteration, one on trial, and the one before. */
static void look_at_trials(void)
{
    struct plan_memory *memory = (struct plan_memory *)conductor_memory(life_edge->conductor);
    struct shadow *shadow = &memory->shadow, before = *shadow;
    json_t *root = status();

    assert_null(json_object_get(root, "prm_next"));
    json_decref(root);

    shadow->last = (struct shadow_verdict) {.version = 3, .against = 1, .passed = true, .episodes = 9, .successes = 2,
                                            .frames = 90, .difference = .25, .rank = .5, .auc = NAN, .auc_against = NAN};
    shadow_begin(shadow, 4, 3, 20, .05, .8);
    memory->prm_next = 5;
    memory->prm_next_stage = 2;
    memory->prm_next_round = 39;        /* people count from 1 */
    root = status();
    memory->prm_next = 0;
    shows(root, NULL, "prm_next", "{\"version\":5,\"stage_number\":2,\"at\":40}");
    shows(root, NULL, "prm_shadow", "{\"version\":4,\"against\":3,\"episodes\":0,\"wanted\":20}");
    shows(root, "prm_shadow_last", "version", "3");
    shows(root, "prm_shadow_last", "verdict", "\"takes over\"");
    shows(root, "prm_shadow_last", "episodes", "9");
    shows(root, "prm_shadow_last", "successes", "2");
    shows(root, "prm_shadow_last", "frames", "90");
    shows(root, "prm_shadow_last", "rank_correlation", "0.5");
    shows(root, "prm_shadow_last", "mean_difference", "0.25");
    shows(root, "prm_shadow_last", "auc", "null");
    *shadow = before;
    json_decref(root);
}

static void look_at_pages(void)
{
    static const struct { const char *path, *type, *holds; } pages[] = {
        {"/", "text/html; charset=utf-8", "<!doctype html>"}, {"/status.json", "application/json", "\"stage\":\"rl\""},
        {"/metrics", "text/plain; version=0.0.4; charset=utf-8", "gantry_epoch 1\n"},
        {"/livez", "text/plain", "ledger ready"}, {"/readyz", "text/plain", "run ready\n"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
        struct http_reply reply = {.status = 200, .type = "text/plain", .body = STRBUF_INIT};
        const struct http_route *route = edge_routes;

        while (strcmp(route->path, pages[i].path) != 0)
            route++;
        route->handle(&reply, life_edge);
        assert_int_equal(reply.status, 200);
        assert_string_equal(reply.type, pages[i].type);
        assert_non_null(strstr(reply.body.text, pages[i].holds));
        assert_int_equal(route->open, strstr(pages[i].path, "yz") || strstr(pages[i].path, "livez"));
        strbuf_release(&reply.body);
    }
}

static void is_refused(const char *name, const char *argument, int result, const char *why)
{
    int r = life_command(life_edge, name, argument);

    if (r != result || !strstr(life_error.text, why))
        fail_msg("%s %s: %d, %s", name, argument, r, life_error.text);
}

static void ask_in_vain(void)
{
    char argument[160];

    is_refused("cordon", "99", -ENOENT, "'99' is no member that is here");
    is_refused("uncordon", "nobody", -ENOENT, "'nobody' is no member that is here");
    snprintf(argument, sizeof argument, "%u", ids[MEMBER_LEARNER]);
    is_refused("cordon", argument, -EINVAL, "is a learner rank: it cannot be spared");
    snprintf(argument, sizeof argument, "member %u", ids[MEMBER_LEARNER]);
    is_refused("drain", argument, -EINVAL, "is a learner rank: the group's size");
    snprintf(argument, sizeof argument, "member %u", ids[MEMBER_ACTOR]);
    is_refused("drain", argument, -EBUSY, "is the last one that answers");
    is_refused("prm", "", -EINVAL, "usage: prm swap");
    is_refused("prm", "rollback", -ENOENT, "there is no reward model before the present one");
    is_refused("prm", "swap 9", -ENOENT, "there is no reward model version 9");
    is_refused("prm", "swap /nowhere", -ENOENT, "/nowhere");
    snprintf(argument, sizeof argument, "swap %s/policies/v000001", life_run_dir);
    is_refused("prm", argument, -EINVAL, "is not a reward model of this run");
    is_refused("prm", "swap 1 shadow 5 .05 .9", -EINVAL, "prm version 1 is in use: name another");
    is_refused("prm", "swap 1 shadow 0 .05 .9", -EINVAL, "'0 .05 .9' are not episodes");
    is_refused("prm", "swap 1 shadow 201 .05 .9", -EINVAL, "are not episodes (1 to 200)");
    is_refused("prm", "swap 1 shadow 5 1.5 .9", -EINVAL, "are not episodes");
    is_refused("prm", "swap 1 shadow 5 .05 -1.5", -EINVAL, "are not episodes");
    is_refused("prm", "swap 1 shadow 5 .05 .9 x", -EINVAL, "are not episodes");
    is_refused("prm", "swap 1 at 0", -EINVAL, "'0' is no iteration of rl: 1 to 2");
    is_refused("prm", "swap 1 at 3", -EINVAL, "'3' is no iteration of rl: 1 to 2");
    is_refused("prm", "swap 1 at 2", -EINVAL, "iteration 2 has begun (it is rl 2 of 2 now)");
    is_refused("exited", "here", -EINVAL, "usage: exited HOST PID");
    is_refused("exited", "here 1 died", -EINVAL, "usage: exited HOST PID");
    is_refused("history", "x", -EINVAL, "'x' is not an event's number");
}

static void spare(const char *command, const char *state)
{
    char argument[16];
    json_t *root;

    snprintf(argument, sizeof argument, "%u", ids[MEMBER_ACTOR]);
    assert_int_equal(life_command(life_edge, command, argument), 0);
    root = status();
    shows(member_of(root, MEMBER_ACTOR), NULL, "state", state);
    json_decref(root);
}

/* Of a pass under way: of the episodes that are in. */
static void look_at_success(void)
{
    struct conductor_status now;
    json_t *root;

    conductor_status(life_edge->conductor, &now);
    if (!now.success || now.ended == now.rows)
        return;
    root = status();
    assert_true(fabs(json_number_value(json_object_get(root, "success")) - (double)now.success / (double)now.ended) < 1e-3);
    json_decref(root);
    half_way++;
}

static void look(const struct message *message, void *arg)
{
    const struct membership *members = conductor_members(life_edge->conductor);
    const Gantry__Plan *plan = (const Gantry__Plan *)message->body;

    (void)arg;
    if (message->envelope.kind == WIRE_KIND(LEASE_GRANT))
        look_at_success();
    if (message->envelope.kind != WIRE_KIND(PLAN) || plan->stage != 4 || plan->iteration != 3)
        return;
    looked++;
    for (size_t i = 0; i < members->n; i++)
        ids[members->items[i].role] = members->items[i].id;
    look_at_status();
    look_at_trials();
    put_gauges();
    look_at_metrics();
    look_at_speed();
    look_at_gauges();
    look_at_pages();
    ask_in_vain();
    spare("cordon", "\"cordoned\"");
    spare("uncordon", "\"alive\"");
    assert_int_equal(life_command(life_edge, "history", ""), 0);
    assert_int_equal(life_command(life_edge, "metrics", ""), 0);
    assert_int_equal(life_command(life_edge, "status", ""), 0);
}

static void test_a_run_at_work(void **state)
{
    struct loop *loop;
    struct fakes *fakes;

    (void)state;
    assert_int_equal(loop_new(&loop), 0);
    assert_int_equal(fakes_new(loop_uv(loop), life_run_dir, &fakes, &life_error), 0);
    fakes_watch(fakes, look, NULL);
    assert_int_equal(life_live(loop), 0);
    assert_int_equal(looked, 1);
    assert_true(half_way > 0);
    fakes_free(fakes);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_run_at_work, life_setup, life_teardown),
    };

    return cmocka_run_group_tests_name("coordinator shown", tests, NULL, NULL);
}
