/* test_intake.c - the admission point: verdicts, what comes before an acknowledgement, what a restart remembers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "learner/intake.h"

struct desk { struct intake *intake; struct intake_effects out; uint64_t now_ms, token; uint32_t purpose; };

static int set_up(void **state)
{
    static struct desk d;
    struct intake_version zero = { .kind = 0 };

    d = (struct desk) { .now_ms = 10000 };
    assert_int_equal(intake_new(&d.intake), 0);
    assert_int_equal(intake_restore(d.intake, NULL, 0, &zero, 1), 0);
    *state = &d;
    return 0;
}

static int tear_down(void **state)
{
    struct desk *d = *state;

    d->intake = intake_free(d->intake);
    intake_effects_release(&d->out);
    return 0;
}

static void step(struct desk *d, struct intake_event event)
{
    assert_int_equal(intake_step(d->intake, &event, d->now_ms, &d->out), 0);
}

static const struct intake_effect *find(const struct desk *d, enum intake_effect_kind kind)
{
    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == kind)
            return &d->out.items[i];
    return NULL;
}

static void open_iteration(struct desk *d, uint32_t iteration, const uint64_t *episodes, size_t n, uint64_t policy)
{
    step(d, (struct intake_event) {
        .kind = INTAKE_OPEN, .epoch = 1,
        .open = { .stage = 4, .iteration = iteration, .episodes = episodes, .n_episodes = n, .policy_version = policy },
    });
}

static uint64_t deliver(struct desk *d, uint64_t episode, uint64_t policy, uint8_t who)
{
    struct journaled_episode e = { .episode = episode, .digest = { who } };

    step(d, (struct intake_event){
                .kind = INTAKE_DELIVER,
                .from = who,
                .request = 77,
                .deliver = {.token = ++d->token, .policy_version = policy, .purpose = d->purpose, .episode = e, .valid = true},
            });
    return d->token;
}

static void appended(struct desk *d, uint64_t episode, uint64_t token, int result)
{
    step(d, (struct intake_event){.kind = INTAKE_APPENDED, .appended = {.episode = episode, .token = token, .result = result}});
}

static void expect_verdict(const struct desk *d, enum deliver_verdict verdict)
{
    const struct intake_effect *reply = find(d, INTAKE_REPLY);

    assert_non_null(reply);
    assert_int_equal(reply->reply.verdict, verdict);
}

static void test_durable_before_acknowledged(void **state)
{
    struct desk *d = *state;
    uint64_t token;

    open_iteration(d, 1, (uint64_t[]) { 10, 11 }, 2, 3);
    token = deliver(d, 10, 3, 1);
    assert_null(find(d, INTAKE_REPLY));
    assert_int_equal(d->out.items[0].kind, INTAKE_SEGMENT);
    assert_int_equal(d->out.items[1].kind, INTAKE_APPEND);
    assert_int_equal(d->out.items[1].append.token, token);
    assert_true(d->out.items[0].segment.stage == 4 && d->out.items[0].segment.iteration == 1);
    assert_true(d->out.items[1].append.stage == 4 && d->out.items[1].append.iteration == 1);
    appended(d, 10, token, 0);
    expect_verdict(d, DELIVER_ACCEPTED);
    assert_true(find(d, INTAKE_REPLY)->to == 1 && find(d, INTAKE_REPLY)->request == 77);
    assert_int_equal(find(d, INTAKE_SEND_JOURNALED)->journaled.n, 1);
}

/* Every append goes to the segment of its iteration, which is said when it is another than the last one's. */
static void test_segments(void **state)
{
    struct desk *d = *state;

    open_iteration(d, 1, (uint64_t[]) { 10, 11 }, 2, 3);
    open_iteration(d, 2, (uint64_t[]) { 20 }, 1, 3);
    (void)deliver(d, 10, 3, 1);
    assert_int_equal(find(d, INTAKE_SEGMENT)->segment.iteration, 1);
    (void)deliver(d, 20, 3, 1);
    assert_int_equal(find(d, INTAKE_SEGMENT)->segment.iteration, 2);
    (void)deliver(d, 11, 3, 1);
    assert_int_equal(find(d, INTAKE_SEGMENT)->segment.iteration, 1);
    open_iteration(d, 1, (uint64_t[]) { 10, 11, 12 }, 3, 3);
    (void)deliver(d, 12, 3, 1);
    assert_null(find(d, INTAKE_SEGMENT));
    assert_int_equal(find(d, INTAKE_APPEND)->append.iteration, 1);
}

/* A segment that no plan will close is sealed when all of its episodes are in or given up, once; one that a plan will close waits
 * for it, as more episodes may come. */
static void test_sealed_when_complete(void **state)
{
    struct desk *d = *state;
    struct intake_event open = {
        .kind = INTAKE_OPEN, .epoch = 1,
        .open = {.stage = 4, .iteration = 1, .episodes = (uint64_t[]) {12, 10, 11}, .n_episodes = 3, .policy_version = 3}};
    struct intake_status status;

    step(d, open);
    appended(d, 10, deliver(d, 10, 3, 1), 0);
    assert_null(find(d, INTAKE_SEAL));
    open.open.failed = (uint64_t[]) {11};
    open.open.n_failed = 1;
    step(d, open);
    assert_null(find(d, INTAKE_SEAL));
    intake_status(d->intake, &status);
    assert_true(status.stage == 4 && status.iteration == 1 && status.open == 3 && status.journaled == 1 && !status.writing);
    assert_int_equal(intake_stage_of(d->intake, 10), 4);
    assert_int_equal(intake_trained_stage_of(d->intake, 10), UINT32_MAX);
    appended(d, 12, deliver(d, 12, 3, 1), 0);
    assert_int_equal(find(d, INTAKE_SEAL)->segment.iteration, 1);
    step(d, open);
    assert_null(find(d, INTAKE_SEAL));

    open.open.iteration = 2;
    open.open.episodes = (uint64_t[]) {20};
    open.open.n_episodes = 1;
    open.open.n_failed = 0;
    open.open.trained_on = true;
    step(d, open);
    assert_null(find(d, INTAKE_SEAL));
    appended(d, 20, deliver(d, 20, 3, 1), 0);
    assert_null(find(d, INTAKE_SEAL));
    assert_int_equal(intake_trained_stage_of(d->intake, 20), 4);
}

/* An evaluation's episode is no training episode, whatever the worker calls it. */
static void test_another_purpose(void **state)
{
    struct intake_event open = {.kind = INTAKE_OPEN, .epoch = 7, .open = {.stage = 4, .iteration = 1, .policy_version = 3, .purpose = 3}};
    struct desk *d = *state;
    uint64_t token;

    open.open.episodes = (uint64_t[]) {10};
    open.open.n_episodes = 1;
    step(d, open);
    d->purpose = 4;
    token = deliver(d, 10, 3, 1);
    expect_verdict(d, DELIVER_REFUSED);
    assert_int_equal(find(d, INTAKE_RELEASE)->append.token, token);
    d->purpose = 3;
    appended(d, 10, deliver(d, 10, 3, 1), 0);
    expect_verdict(d, DELIVER_ACCEPTED);
}

/* Several are written at once: each worker hears of its own. */
static void test_each_hears_of_its_own(void **state)
{
    struct desk *d = *state;
    uint64_t tokens[3];

    open_iteration(d, 1, (uint64_t[]) { 10, 11, 12 }, 3, 3);
    for (uint8_t i = 0; i < 3; i++)
        tokens[i] = deliver(d, 10 + i, 3, i + 1);
    appended(d, 11, tokens[1], -EIO);
    assert_int_equal(find(d, INTAKE_BUSY)->to, 2);
    appended(d, 12, tokens[2], 0);
    assert_true(find(d, INTAKE_REPLY)->to == 3 && find(d, INTAKE_REPLY)->reply.episode == 12);
    appended(d, 10, tokens[0], 0);
    assert_true(find(d, INTAKE_REPLY)->to == 1 && find(d, INTAKE_REPLY)->reply.episode == 10);
    appended(d, 10, tokens[0], 0);
    assert_int_equal(d->out.n, 0);
}

static void test_failed_sync_acknowledges_nothing(void **state)
{
    struct desk *d = *state;
    uint64_t token;

    open_iteration(d, 1, (uint64_t[]) { 10 }, 1, 3);
    token = deliver(d, 10, 3, 1);
    appended(d, 10, token, -EIO);
    assert_null(find(d, INTAKE_REPLY));
    assert_non_null(find(d, INTAKE_BUSY));
    token = deliver(d, 10, 3, 1);
    appended(d, 10, token, 0);
    expect_verdict(d, DELIVER_ACCEPTED);
}

static void test_first_durable_one_counts(void **state)
{
    struct desk *d = *state;
    uint64_t token, again;

    open_iteration(d, 1, (uint64_t[]) { 10, 12 }, 2, 3);
    token = deliver(d, 10, 3, 1);
    again = deliver(d, 10, 3, 2);
    assert_non_null(find(d, INTAKE_BUSY));               /* not decided yet */
    assert_true(find(d, INTAKE_RELEASE)->append.token == again);
    appended(d, 10, token, 0);
    (void)deliver(d, 10, 3, 1);
    expect_verdict(d, DELIVER_DUPLICATE);
    (void)deliver(d, 10, 3, 2);
    expect_verdict(d, DELIVER_SUPERSEDED);
    assert_int_equal(find(d, INTAKE_REPLY)->reply.digest[0], 1);
    (void)deliver(d, 12, 2, 1);
    expect_verdict(d, DELIVER_SUPERSEDED);               /* another policy version than leased */
    (void)deliver(d, 11, 3, 1);
    expect_verdict(d, DELIVER_SUPERSEDED);               /* never was of an open iteration */
    (void)deliver(d, 13, 3, 1);
    assert_non_null(find(d, INTAKE_BUSY));               /* may be announced yet */
    step(d, (struct intake_event){.kind = INTAKE_DELIVER,
                                  .deliver = {.token = 99, .episode = {.episode = 12}, .text = "NaN in value[3]"}});
    expect_verdict(d, DELIVER_REFUSED);
    assert_string_equal(find(d, INTAKE_REPLY)->reply.text, "NaN in value[3]");
}

static void test_iterations_open_and_close(void **state)
{
    struct desk *d = *state;

    open_iteration(d, 1, (uint64_t[]) { 10, 11 }, 2, 3);
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.rows, 2);
    open_iteration(d, 1, (uint64_t[]) { 10, 11, 15 }, 3, 3);
    open_iteration(d, 1, (uint64_t[]) { 10, 11 }, 2, 3);     /* an old message: a replacement is not forgotten */
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.rows, 3);
    open_iteration(d, 2, (uint64_t[]) { 20 }, 1, 4);
    open_iteration(d, 3, (uint64_t[]) { 30 }, 1, 5);
    assert_int_equal(find(d, INTAKE_SEAL)->segment.iteration, 1);
    (void)deliver(d, 15, 3, 1);
    expect_verdict(d, DELIVER_SUPERSEDED);
    open_iteration(d, 1, (uint64_t[]) { 10, 11 }, 2, 3);
    assert_null(find(d, INTAKE_SEND_INVENTORY));             /* older than all that are open */
    step(d, (struct intake_event) { .kind = INTAKE_WELCOME, .epoch = 2 });
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.iteration, 3);
    step(d, (struct intake_event) { .kind = INTAKE_OPEN, .epoch = 1, .open = { .stage = 4, .iteration = 9 } });
    assert_int_equal(d->out.n, 0);                           /* of a coordinator that is no more */
}

static void test_journaled_is_said_until_acknowledged(void **state)
{
    struct desk *d = *state;
    uint64_t sequence;

    open_iteration(d, 1, (uint64_t[]) { 10, 11 }, 2, 3);
    appended(d, 10, deliver(d, 10, 3, 1), 0);
    sequence = find(d, INTAKE_SEND_JOURNALED)->journaled.sequence;
    appended(d, 11, deliver(d, 11, 3, 1), 0);
    assert_int_equal(find(d, INTAKE_SEND_JOURNALED)->journaled.n, 2);
    step(d, (struct intake_event) { .kind = INTAKE_JOURNALED_ACK, .journaled_ack = { sequence } });
    d->now_ms += 1000;
    step(d, (struct intake_event) { .kind = INTAKE_TICK });
    assert_int_equal(find(d, INTAKE_SEND_JOURNALED)->journaled.n, 1);
    assert_int_equal(find(d, INTAKE_SEND_JOURNALED)->journaled.episodes[0].episode, 11);
    step(d, (struct intake_event){.kind = INTAKE_JOURNALED_ACK,
                                  .journaled_ack = {find(d, INTAKE_SEND_JOURNALED)->journaled.sequence}});
    d->now_ms += 1000;
    step(d, (struct intake_event) { .kind = INTAKE_TICK });
    assert_null(find(d, INTAKE_SEND_JOURNALED));
}

static struct intake_event plan_of(const uint64_t *episodes, size_t n, uint8_t digest)
{
    return (struct intake_event){
        .kind = INTAKE_PLAN,
        .epoch = 1,
        .plan =
            {.stage = 4, .iteration = 1, .parent = 3, .version = 4, .episodes = episodes, .n_episodes = n, .digest = {digest}},
    };
}

static void test_plan(void **state)
{
    struct desk *d = *state;
    struct intake_event plan = plan_of((uint64_t[]) { 10, 11 }, 2, 5);
    struct intake_version made = { .number = 4, .parent = 3, .plan_digest = { 5 } };

    open_iteration(d, 1, (uint64_t[]) { 10, 11, 12 }, 3, 3);               /* 12 has failed by the time of the plan */
    appended(d, 10, deliver(d, 10, 3, 1), 0);
    step(d, plan);
    assert_null(find(d, INTAKE_TRAIN));
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.n, 1);       /* the coordinator sees what is missing */
    appended(d, 11, deliver(d, 11, 3, 1), 0);
    step(d, plan);
    assert_int_equal(find(d, INTAKE_TRAIN)->plan.n_episodes, 2);
    assert_non_null(find(d, INTAKE_SEAL));
    step(d, plan);
    assert_int_equal(d->out.n, 0);                                          /* said again: it trains already */
    step(d, (struct intake_event) { .kind = INTAKE_WELCOME, .epoch = 1 });
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.plan_digest[0], 5);
    (void)deliver(d, 12, 3, 1);
    expect_verdict(d, DELIVER_SUPERSEDED);                                  /* the segment is sealed */
    step(d, (struct intake_event) { .kind = INTAKE_TRAINED, .trained = { .version = made } });
    assert_int_equal(find(d, INTAKE_SEND_COMMITTED)->committed.number, 4);
    step(d, (struct intake_event) { .kind = INTAKE_COMMITTED_ACK, .committed_ack = { 0, 3 } });        /* late: of the one before */
    step(d, (struct intake_event) { .kind = INTAKE_COMMITTED_ACK, .committed_ack = { 1, 4 } });
    d->now_ms += 1000;
    step(d, (struct intake_event) { .kind = INTAKE_TICK });
    assert_non_null(find(d, INTAKE_SEND_COMMITTED));
    step(d, (struct intake_event) { .kind = INTAKE_COMMITTED_ACK, .committed_ack = { 0, 4 } });
    d->now_ms += 1000;
    step(d, (struct intake_event) { .kind = INTAKE_TICK });
    assert_null(find(d, INTAKE_SEND_COMMITTED));
    step(d, plan);
    assert_null(find(d, INTAKE_TRAIN));
    assert_non_null(find(d, INTAKE_SEND_COMMITTED));
    step(d, (struct intake_event) { .kind = INTAKE_WELCOME, .epoch = 2 });
    step(d, plan);
    assert_int_equal(d->out.n, 0);                                          /* of a coordinator that is no more */
    step(d, (struct intake_event) { .kind = INTAKE_WELCOME, .epoch = 1 });
    assert_int_equal(d->out.n, 0);
}

/* Renamed, then killed: the plan that comes again is answered from the manifest, nothing is trained twice. */
static void test_restart_after_commit(void **state)
{
    struct desk *d = *state;
    struct intake_record record = { .stage = 4, .iteration = 1, .episode = { .episode = 10, .digest = { 1 } } };
    struct intake_version versions[] = {
        { .number = 0 }, { .number = 4, .plan_digest = { 5 }, .digest = { 6 } }, { .kind = 1, .number = 2, .digest = { 7 } } };

    d->intake = intake_free(d->intake);
    assert_int_equal(intake_new(&d->intake), 0);
    assert_int_equal(intake_restore(d->intake, &record, 1, versions, 3), 0);
    (void)deliver(d, 10, 3, 2);
    expect_verdict(d, DELIVER_SUPERSEDED);                  /* journaled before the restart */
    (void)deliver(d, 11, 3, 2);
    assert_non_null(find(d, INTAKE_BUSY));                  /* not told yet what is open */
    step(d, plan_of((uint64_t[]) { 10 }, 1, 5));
    assert_null(find(d, INTAKE_TRAIN));
    assert_int_equal(find(d, INTAKE_SEND_COMMITTED)->committed.number, 4);
    step(d, (struct intake_event) { .kind = INTAKE_WELCOME, .epoch = 1 });
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.stage, UINT32_MAX);      /* none is open */
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.policy_version, 4);
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.policy_digest[0], 6);
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.prm_version, 2);
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.prm_digest[0], 7);
    open_iteration(d, 1, (uint64_t[]) { 10, 11 }, 2, 3);
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.n, 1);
}

/* A learner of weeks: what is over is not kept, also what a restart found; deliveries of it are still refused. */
static void test_what_is_over_is_forgotten(void **state)
{
    enum { ITERATIONS = 100, ROWS = 4 };
    static struct intake_record found[ITERATIONS * ROWS];
    struct desk *d = *state;
    struct intake_status status;

    for (uint32_t i = 0; i < ITERATIONS * ROWS; i++)
        found[i] = (struct intake_record) { .stage = 3, .iteration = i / ROWS, .episode = { .episode = i + 1 } };
    assert_int_equal(intake_restore(d->intake, found, ITERATIONS * ROWS, NULL, 0), 0);
    for (uint32_t k = 0; k < ITERATIONS; k++) {
        const uint64_t first = 1000 + k * ROWS, rows[ROWS] = { first, first + 1, first + 2, first + 3 };
        struct intake_event plan = plan_of(rows, ROWS, 0);
        struct intake_version made = { .number = k + 1, .parent = k };

        plan.plan.iteration = k;
        memcpy(plan.plan.digest, &first, sizeof first);
        memcpy(made.plan_digest, &first, sizeof first);
        open_iteration(d, k, rows, ROWS, k);
        for (int i = 0; i < ROWS; i++) {
            appended(d, rows[i], deliver(d, rows[i], k, 1), 0);
            step(d, (struct intake_event){.kind = INTAKE_JOURNALED_ACK,
                                          .journaled_ack = {find(d, INTAKE_SEND_JOURNALED)->journaled.sequence}});
        }
        step(d, plan);
        step(d, (struct intake_event) { .kind = INTAKE_TRAINED, .trained = { .version = made } });
        step(d, plan);
        assert_non_null(find(d, INTAKE_SEND_COMMITTED));
    }
    intake_status(d->intake, &status);
    assert_int_equal(status.records, INTAKE_OPEN_MAX * ROWS);
    assert_int_equal(status.versions, INTAKE_VERSIONS_KEPT);
    (void)deliver(d, 1000, 0, 1);
    expect_verdict(d, DELIVER_SUPERSEDED);
    (void)deliver(d, 1, 0, 1);
    expect_verdict(d, DELIVER_SUPERSEDED);
    step(d, (struct intake_event) { .kind = INTAKE_WELCOME, .epoch = 1 });
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.n, INTAKE_OPEN_MAX * ROWS);
    assert_int_equal(find(d, INTAKE_SEND_INVENTORY)->inventory.policy_version, ITERATIONS);
}

/* A restart knows from the index that an episode is there; how it ended is found out once it is asked about, and kept. */
static void test_outcomes_are_learnt_when_asked_about(void **state)
{
    struct desk *d = *state;
    struct intake_record record = {.stage = 4, .iteration = 1, .episode = {.episode = 5, .digest = {9}}};
    struct journaled_episode other = {.episode = 5, .digest = {8}, .steps = 3}, ended = {
        .episode = 5, .digest = {9}, .steps = 17, .success = true, .reward = 1.5f};
    const uint64_t episodes[] = {5, 6};
    const struct journaled_episode *said;

    assert_int_equal(intake_restore(d->intake, &record, 1, NULL, 0), 0);
    open_iteration(d, 1, episodes, 2, 0);
    said = find(d, INTAKE_SEND_INVENTORY)->inventory.episodes;
    assert_true(said->episode == 5 && !said->steps);
    intake_learn_outcome(d->intake, &other);        /* other bytes than those that are journaled */
    intake_learn_outcome(d->intake, &ended);
    open_iteration(d, 1, episodes, 2, 0);
    said = find(d, INTAKE_SEND_INVENTORY)->inventory.episodes;
    assert_true(said->steps == 17 && said->success && said->reward == 1.5f);
    (void)deliver(d, 5, 0, 9);
    assert_int_equal(find(d, INTAKE_REPLY)->reply.verdict, DELIVER_DUPLICATE);
}

/* However many policies there are: the reward models keep their places. */
static void test_versions_of_each_kind_are_kept(void **state)
{
    struct desk *d = *state;
    struct intake_version versions[2 + 3 * INTAKE_VERSIONS_KEPT] = {{ .kind = 1, .number = 1 }, { .kind = 1, .number = 2 }};
    struct intake_status status;

    for (uint32_t i = 2; i < ARRAY_SIZE(versions); i++)
        versions[i] = (struct intake_version) { .kind = 0, .number = i };
    assert_int_equal(intake_restore(d->intake, NULL, 0, versions, ARRAY_SIZE(versions)), 0);
    intake_status(d->intake, &status);
    assert_int_equal(status.versions, 2 + INTAKE_VERSIONS_KEPT);
}

/* Its iteration is over here, but the coordinator has not said that it knows of it: it is told until it has. */
static void test_what_nobody_knows_is_not_forgotten(void **state)
{
    struct desk *d = *state;
    struct intake_status status;

    open_iteration(d, 1, (uint64_t[]) { 10 }, 1, 0);
    appended(d, 10, deliver(d, 10, 0, 1), 0);
    for (uint32_t k = 2; k <= 1 + INTAKE_OPEN_MAX; k++)
        open_iteration(d, k, (uint64_t[]) { 10 * k }, 1, 0);
    d->now_ms += 60000;
    step(d, (struct intake_event) { .kind = INTAKE_TICK });
    assert_non_null(find(d, INTAKE_SEND_JOURNALED));
    assert_int_equal(find(d, INTAKE_SEND_JOURNALED)->journaled.n, 1);
    assert_int_equal(find(d, INTAKE_SEND_JOURNALED)->journaled.episodes[0].episode, 10);
    step(d, (struct intake_event){.kind = INTAKE_JOURNALED_ACK,
                                  .journaled_ack = {find(d, INTAKE_SEND_JOURNALED)->journaled.sequence}});
    open_iteration(d, 2 + INTAKE_OPEN_MAX, (uint64_t[]) { 50 }, 1, 0);
    intake_status(d->intake, &status);
    assert_int_equal(status.records, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_durable_before_acknowledged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_segments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sealed_when_complete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_purpose, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_each_hears_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failed_sync_acknowledges_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_first_durable_one_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_iterations_open_and_close, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_journaled_is_said_until_acknowledged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_plan, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_restart_after_commit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_over_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_versions_of_each_kind_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_nobody_knows_is_not_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_outcomes_are_learnt_when_asked_about, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
