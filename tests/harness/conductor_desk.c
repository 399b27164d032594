#include "tests/harness/conductor_desk.h"

const char *const desk_settings[RUN_MAX_STAGES] = { "a: 1", "b: 2", "c: 3", "d: 4", "e: 5", "f: 6" };

/* Without a trial's halves, which are kept when an episode has both. */
static void memory_text(const struct desk *d, struct strbuf *out)
{
    struct plan_memory memory = *conductor_memory(d->c);

    memory.shadow = (struct shadow) {0};
    strbuf_reset(out);
    assert_int_equal(plan_memory_write(&memory, out), 0);
}

/* What a later life would begin with is what this one knows. */
static void expect_memory_kept(struct desk *d)
{
    struct strbuf now = STRBUF_INIT;

    memory_text(d, &now);
    if (desk_find(d, CONDUCTOR_PUT_BLOB))
        memory_text(d, &d->kept);
    assert_string_equal(d->kept.text, now.text);
    strbuf_release(&now);
}

void desk_step(struct desk *d, struct conductor_event event)
{
    event.epoch = event.epoch ? event.epoch : EPOCH;
    event.request = event.request ? event.request : 1;
    assert_int_equal(conductor_step(d->c, &event, d->now_ms, &d->out), 0);
    for (size_t i = 0, sent = 0; i < d->out.n; i++) {       /* all of the ledger before all of the messages */
        sent |= d->out.items[i].kind > CONDUCTOR_LAST_LEDGER;
        assert_true(!sent || d->out.items[i].kind > CONDUCTOR_LAST_LEDGER);
        if (d->out.items[i].kind != CONDUCTOR_OPEN_ITERATION)
            continue;
        d->stage = d->out.items[i].open.stage;
        d->iteration = d->out.items[i].open.iteration;
        d->n_opened = d->out.items[i].open.n_episodes;
        memcpy(d->opened, d->out.items[i].open.episodes, d->n_opened * sizeof(*d->opened));
    }
    expect_memory_kept(d);
}

const struct conductor_effect *desk_find(const struct desk *d, enum conductor_effect_kind kind)
{
    for (size_t i = 0; i < d->out.n; i++)
        if (d->out.items[i].kind == kind)
            return &d->out.items[i];
    return NULL;
}

size_t desk_count(const struct desk *d, enum conductor_effect_kind kind)
{
    size_t n = 0;

    for (size_t i = 0; i < d->out.n; i++)
        n += d->out.items[i].kind == kind;
    return n;
}

/* ---- a run of stages, members, and what they say -------------------------------------------------------- */

struct stage_config *desk_add_stage(struct desk *d, enum stage_kind kind, const char *name)
{
    struct stage_config *stage = &d->config.stages[d->config.n_stages++];

    stage->kind = kind;
    snprintf(stage->name, sizeof(stage->name), "%s", name);
    return stage;
}

void desk_start(struct desk *d, const struct conductor_restored *restored, uint64_t epoch)
{
    struct conductor_setup setup = { .config = &d->config, .stage_settings = desk_settings, .run = 8, .epoch = epoch };
    struct error error = { 0 };

    d->c = conductor_free(d->c);
    assert_int_equal(conductor_new(&setup, &d->c), 0);
    if (conductor_restore(d->c, restored ? restored : &(struct conductor_restored) { 0 }, d->now_ms, &error) < 0)
        fail_msg("%s", error.text);
    memory_text(d, &d->kept);
}

void desk_hello(struct desk *d, uint32_t name, enum member_role role, uint64_t instance)
{
    struct member member = { .role = role, .instance = instance, .slots = 4, .pid = (uint32_t)instance };

    snprintf(member.host, sizeof(member.host), "here");
    desk_step(d, (struct conductor_event) { .kind = CONDUCTOR_HELLO, .from = name, .hello = { .member = member } });
    d->member[name] = desk_find(d, CONDUCTOR_WELCOME)->welcome.member;
}

void desk_inventory(struct desk *d, uint32_t stage, uint32_t iteration, uint32_t rows, const struct journaled_episode *episodes,
                      size_t n)
{
    desk_step(d, (struct conductor_event) {
        .kind = CONDUCTOR_INVENTORY, .member = d->member[LEARNER],
        .inventory = { .stage = stage, .iteration = iteration, .rows = rows, .episodes = episodes, .n_episodes = n },
    });
}

void desk_confirm(struct desk *d)
{
    desk_inventory(d, d->stage, d->iteration, (uint32_t)d->n_opened, NULL, 0);
}

struct journaled_episode desk_played(uint64_t episode, bool success)
{
    return (struct journaled_episode) { .episode = episode, .digest = { (uint8_t)episode, 1 }, .success = success, .steps = 5 };
}

void desk_journaled(struct desk *d, uint64_t episode, bool success)
{
    struct journaled_episode e = desk_played(episode, success);

    desk_step(d, (struct conductor_event){
                .kind = CONDUCTOR_JOURNALED, .member = d->member[LEARNER], .journaled = {d->stage, d->iteration, &e, 1}});
}

void desk_ready(struct desk *d, uint32_t name, enum version_kind kind, uint64_t version)
{
    desk_step(d, (struct conductor_event){
                .kind = CONDUCTOR_VERSION_STATE,
                .member = d->member[name],
                .version_state = {.kind = kind, .version = version, .ready = true},
            });
}

const struct conductor_effect *desk_request(struct desk *d, uint32_t name, uint32_t slots)
{
    desk_step(d, (struct conductor_event) {
        .kind = CONDUCTOR_LEASE_REQUEST, .member = d->member[name], .lease_request = { slots } });
    return desk_find(d, CONDUCTOR_GRANT);
}

void desk_worker_exits(struct desk *d, uint64_t instance, bool crashed)
{
    desk_step(d,
         (struct conductor_event){.kind = CONDUCTOR_EXIT,
                                  .exit = {.host = "here", .pid = (uint32_t)instance, .crashed = crashed, .text = "signal 11"}});
}

void desk_committed(struct desk *d, const struct conductor_plan *plan, const uint64_t *trained, size_t n, bool gate)
{
    struct conductor_event event = {
        .kind = CONDUCTOR_COMMITTED,
        .member = d->member[LEARNER],
        .committed = {.version = {.kind = plan->kind,
                                  .number = plan->version,
                                  .parent = plan->parent,
                                  .gate_passed = gate,
                                  .digest = {(uint8_t)plan->version}},
                      .trained = trained,
                      .n_trained = n},
    };

    memcpy(event.committed.plan_digest, plan->digest, SHA256_SIZE);
    if (d->gate_text)
        snprintf(event.committed.version.gate_text, sizeof event.committed.version.gate_text, "%s", d->gate_text);
    desk_step(d, event);
}

int desk_set_up(void **state)
{
    static struct desk d;

    d = (struct desk) { .now_ms = 1000000 };
    d.config = (struct run_config){
        .seed = 7, .n_tasks = 2, .prm_init = "policy", .heartbeat_ms = 1000, .lease_ttl_ms = 10000, .first_step_ms = 60000};
    snprintf(d.config.tasks[0], sizeof(d.config.tasks[0]), "reach");
    snprintf(d.config.tasks[1], sizeof(d.config.tasks[1]), "open");
    *state = &d;
    return 0;
}

int desk_tear_down(void **state)
{
    struct desk *d = *state;

    d->c = conductor_free(d->c);
    conductor_effects_release(&d->out);
    strbuf_release(&d->kept);
    return 0;
}

/* A single stage of demonstrations, `episodes` of them, opened and known to the learner. */
void desk_demos(struct desk *d, int episodes)
{
    desk_add_stage(d, STAGE_DEMOS, "demos")->demos =
        (struct demos_config) { .episodes = episodes, .style = "slow", .max_steps = 40 };
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_confirm(d);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
}

/* A single rl stage, first train iteration open and known. */
void desk_rl(struct desk *d, int episodes, int max_staleness)
{
    struct rl_config *rl_config = &desk_add_stage(d, STAGE_RL, "rl")->rl;

    *rl_config = (struct rl_config) { .iterations = 3, .episodes = episodes, .temperature = 1, .max_staleness = max_staleness };
    desk_start(d, NULL, EPOCH);
    desk_hello(d, LEARNER, MEMBER_LEARNER, 40);
    desk_inventory(d, LEDGER_ALL, LEDGER_ALL, 0, NULL, 0);
    desk_hello(d, WORKER, MEMBER_WORKER, 10);
    desk_hello(d, ACTOR, MEMBER_ACTOR, 30);
    desk_ready(d, ACTOR, KIND_POLICY, 0);
    desk_confirm(d);
}
