/* test_delivery.c - what a worker hands over: refused with a word where it is malformed, described for intake where it is not,
 * kept until it is answered. Over a real wire. */
#include <errno.h>
#include <math.h>

#include "learner/delivery.h"
#include "learner/episode_return.h"
#include "proto/trajectory.pb-c.h"
#include "tests/harness/spec_policy.h"
#include "tests/harness/wire_side.h"

enum { STEPS = 2, DIMS = 3, TOKENS = 2 * 4, SIDE = 2, FRAMES = (STEPS + 1) * SIDE * SIDE * 3 };

static struct table {
    struct side side;
    struct deliveries kept;
    struct intake_event event;
    struct admission terms;
    bool busy;                      /* the next answer, instead */
    unsigned taken;
    int verdict;                    /* of the reply; -1: none */
    bool answers;                   /* likewise */
    char text[200];
    uint8_t digest[SHA256_SIZE];
} table;

/* One trajectory that is as it should be; each test spoils it. */
static struct good {
    Gantry__Trajectory t;
    float action[STEPS * DIMS], label[STEPS * DIMS], logp[TOKENS], value[STEPS], progress[STEPS + 1], env_reward[STEPS],
        state[(STEPS + 1) * 2], hidden[STEPS * 3];
    uint32_t tokens[TOKENS];
    uint64_t step_version[STEPS];
    uint8_t frames[FRAMES + 1];
    size_t n_frames;
    unsigned n_parts;
} good;

static int set_up(void **state)
{
    (void)state;
    good = (struct good) {.t = GANTRY__TRAJECTORY__INIT, .n_frames = FRAMES, .n_parts = 1, .progress = {0, .25f, .75f},
                          .env_reward = {2, 3}, .step_version = {3, 3}};
    good.t.episode = 10;
    good.t.policy_version = 3;
    good.t.purpose = GANTRY__PURPOSE__PURPOSE_TRAIN;
    good.t.steps = STEPS;
    good.t.height = good.t.width = SIDE;
    good.t.action_dims = DIMS;
    good.t.success = true;
    good.t.member = 5;
    good.t.max_steps = 20;
#define LIST(name) good.t.name = good.name, good.t.n_##name = ARRAY_SIZE(good.name)
    LIST(action), LIST(label), LIST(logp), LIST(value), LIST(progress), LIST(env_reward), LIST(state), LIST(hidden),
        LIST(tokens), LIST(step_version);
    for (size_t i = 0; i < FRAMES; i++)
        good.frames[i] = (uint8_t)i;
    return 0;
}

static void serve(struct side *side, struct request *request)
{
    struct intake_effect effect = {.kind = INTAKE_REPLY};

    (void)side;
    assert_int_equal(delivery_take(&table.kept, request, &table.terms, &table.event), 0);
    assert_int_equal(table.kept.n, 1);
    table.taken++;
    effect.reply.episode = table.event.deliver.episode.episode;
    effect.reply.verdict = table.event.deliver.valid ? DELIVER_ACCEPTED : DELIVER_REFUSED;
    memcpy(effect.reply.digest, table.event.deliver.episode.digest, SHA256_SIZE);
    if (table.event.deliver.text)
        snprintf(effect.reply.text, sizeof effect.reply.text, "%s", table.event.deliver.text);
    if (table.event.deliver.valid) {
        const void *meta, *frames;
        size_t n_meta, n_frames;

        assert_int_equal(delivery_bytes(&table.kept, table.event.deliver.token, &meta, &n_meta, &frames, &n_frames), 0);
        assert_int_equal(n_meta, gantry__trajectory__get_packed_size(&good.t));
        assert_int_equal(n_frames, good.n_frames);
        assert_memory_equal(frames, good.frames, n_frames);
        assert_int_equal(delivery_bytes(&table.kept, table.event.deliver.token + 1, &meta, &n_meta, &frames, &n_frames),
                         -ENOENT);
    }
    delivery_answer(&table.kept, table.event.deliver.token + 1, &effect);       /* of another: nothing */
    assert_int_equal(table.kept.n, 1);
    delivery_answer(&table.kept, table.event.deliver.token, table.busy ? NULL : &effect);
    assert_int_equal(table.kept.n, 0);
    table.busy = false;
}

static void on_reply(int result, const struct message *reply, void *arg)
{
    const Gantry__DeliverReply *said = reply && result == 0 ? (const Gantry__DeliverReply *)reply->body : NULL;

    (void)arg;
    table.verdict = said ? (int)said->verdict : -1;
    if (said) {
        assert_int_equal(said->episode, 10);
        table.answers = said->answers;
        assert_int_equal(said->digest.len, SHA256_SIZE);
        memcpy(table.digest, said->digest.data, SHA256_SIZE);
        snprintf(table.text, sizeof table.text, "%s", said->text);
    }
    side_on_reply(result, reply, &table.side);
}

/* What `good` has become is delivered and answered. */
static void deliver(void)
{
    const struct wire_part parts[2] = {{.bytes = good.frames, .size = good.n_frames}, {.bytes = good.frames, .size = 1}};
    const struct wire_call call = {.kind = WIRE_KIND(DELIVER), .body = &good.t.base, .parts = parts, .n_parts = good.n_parts,
                                   .deadline_ms = 60000, .on_reply = on_reply};

    assert_int_equal(wire_call(table.side.client, &call, NULL), 0);
    lab_until_count(&table.side.lab, &table.side.replies, table.side.replies + 1);
}

static void expect_refused(const char *why)
{
    deliver();
    if (table.verdict != DELIVER_REFUSED || !strstr(table.text, why))
        fail_msg("\"%s\" instead of \"%s\"", table.verdict == DELIVER_REFUSED ? table.text : "accepted", why);
    (void)set_up(NULL);
}

static void expect_accepted(void)
{
    deliver();
    if (table.verdict != DELIVER_ACCEPTED)
        fail_msg("%s", table.text);
    (void)set_up(NULL);
}

static int open_table(void **state)
{
    (void)state;
    table = (struct table) {0};
    side_open(&table.side, 0, 0);
    table.side.serve = serve;
    return 0;
}

static int close_table(void **state)
{
    (void)state;
    deliveries_free(&table.kept);
    side_close(&table.side);
    return 0;
}

static void test_described(void **state)
{
    const struct journaled_episode *e = &table.event.deliver.episode;
    uint8_t packed[512], digest[SHA256_SIZE];
    struct sha256 sha;
    size_t n = gantry__trajectory__pack(&good.t, packed);

    (void)state;
    sha256_init(&sha);
    sha256_add(&sha, packed, n);
    sha256_add(&sha, good.frames, FRAMES);
    sha256_end(&sha, digest);
    deliver();
    assert_int_equal(table.verdict, DELIVER_ACCEPTED);
    assert_int_equal(table.event.deliver.policy_version, 3);
    assert_true(e->episode == 10 && e->success && !e->timeout && e->steps == STEPS && e->member == 5);
    assert_true(e->progress_end == .75f && e->reward == 5);
    assert_memory_equal(e->digest, digest, SHA256_SIZE);        /* as the journal takes it */
    assert_memory_equal(table.digest, digest, SHA256_SIZE);
}

/* What cannot be taken just now comes again, and is another delivery. */
static void test_busy(void **state)
{
    unsigned taken = table.taken;

    (void)state;
    table.busy = true;
    expect_accepted();
    assert_int_equal(table.taken, taken + 2);
}

static uint32_t ends[] = {0, STEPS}, early[] = {0, 1}, late[] = {1, STEPS}, back[] = {0, 1, 1, STEPS};

/* One answer of all actions: pictures of the two observations that somebody looks at. */
static void draw_ends(void)
{
    good.t.observed = ends;
    good.t.n_observed = 2;
    good.t.turns = ends;
    good.t.n_turns = 1;
    good.n_frames = FRAMES / (STEPS + 1) * 2;
}

#define SPOIL(how, why)                                                      \
    do {                                                                     \
        how;                                                                 \
        expect_refused(why);                                                 \
    } while (0)

static void test_shapes(void **state)
{
    (void)state;
    SPOIL(good.n_parts = 0, "one raw frame");
    SPOIL(good.n_parts = 2, "one raw frame");
    SPOIL(good.t.steps = 0, "out of range");
    SPOIL(good.t.steps = 100001, "out of range");
    SPOIL(good.t.height = 0, "out of range");
    SPOIL(good.t.height = 4097, "out of range");
    SPOIL(good.t.width = 0, "out of range");
    SPOIL(good.t.width = 4097, "out of range");
    SPOIL(good.t.images = 9, "out of range");
    SPOIL(good.n_frames = FRAMES - 1, "pictures are not");
    SPOIL(good.n_frames = FRAMES + 1, "pictures are not");
    SPOIL(good.t.images = 2, "pictures are not");
    SPOIL(good.t.n_progress = STEPS, "progress must have");
    SPOIL(good.t.n_env_reward = 1, "env_reward must have");
    SPOIL(good.t.n_value = 1, "value must have");
    SPOIL(good.t.n_step_version = 1, "step_version is not");
    SPOIL(good.step_version[STEPS - 1] = 2, "step_version is not");
    SPOIL(good.t.action_dims = 0, "actions or labels");
    SPOIL(good.t.n_action -= DIMS, "actions or labels");
    SPOIL(good.t.n_label--, "actions or labels");
    SPOIL(good.t.n_state--, "robot's state");
    SPOIL(good.t.n_hidden--, "hidden states are not equally many");
    SPOIL(draw_ends(); good.t.n_turns = 2; good.t.turn_hidden = good.hidden; good.t.n_turn_hidden = 3,
          "hidden states are not equally many");
    SPOIL(good.t.n_tokens--, "differ in number");
    SPOIL(good.t.n_tokens = good.t.n_logp = TOKENS - 1, "tokens are missing");
    SPOIL(good.t.n_tokens = good.t.n_logp = 0, "tokens are missing");
    SPOIL(good.t.n_tokens = good.t.n_logp = 0; good.t.purpose = GANTRY__PURPOSE__PURPOSE_ROLLOUT, "tokens are missing");
}

/* Pictures as the run has them. */
static void test_the_runs_pictures(void **state)
{
    static struct run_config run = {.image = SIDE, .cameras = 1, .chain = "render"};

    (void)state;
    table.terms.run = &run;
    expect_accepted();                          /* who does not say, drew them so */
    good.t.image_chain = (char *)"render";
    expect_accepted();
    SPOIL(good.t.image_chain = (char *)"plain", "suite.chain");
    SPOIL(good.t.height = 2 * SIDE; good.t.width = SIDE / 2, "suite.image");
    SPOIL(good.t.height = SIDE / 2; good.t.width = 2 * SIDE, "suite.image");
    run.cameras = 2;
    SPOIL((void)0, "suite.cameras");
    table.terms.run = NULL;
    good.t.image_chain = (char *)"plain";
    expect_accepted();
}

static void test_numbers(void **state)
{
    (void)state;
    SPOIL(good.state[5] = NAN, "robot's state is not finite");
    SPOIL(good.hidden[STEPS * 3 - 1] = NAN, "a hidden state is not finite");
    SPOIL(draw_ends(); good.hidden[2] = INFINITY; good.t.n_hidden = 0; good.t.turn_hidden = good.hidden; good.t.n_turn_hidden = 3,
          "a hidden state is not finite");
    SPOIL(good.progress[STEPS] = INFINITY, "progress score or reward");
    SPOIL(good.env_reward[1] = NAN, "progress score or reward");
    SPOIL(good.logp[TOKENS - 1] = -INFINITY, "log-probability or value");
    SPOIL(good.value[1] = NAN, "log-probability or value");
    SPOIL(good.action[STEPS * DIMS - 1] = NAN, "action or label");
    SPOIL(good.label[0] = NAN, "action or label");
}

/* What need not be there. */
static void test_optional(void **state)
{
    (void)state;
    good.t.n_progress = good.t.n_env_reward = good.t.n_value = good.t.n_step_version = 0;
    good.t.n_label = good.t.n_state = good.t.n_hidden = 0;
    expect_accepted();
    assert_true(table.event.deliver.episode.progress_end == 0 && table.event.deliver.episode.reward == 1);  /* a success */
    good.t.n_tokens = good.t.n_logp = 0;
    good.t.purpose = GANTRY__PURPOSE__PURPOSE_DEMO;
    expect_accepted();
    good.t.images = 1;
    expect_accepted();
}

static void test_drawn(void **state)
{
    (void)state;
    draw_ends();
    expect_accepted();
    SPOIL(draw_ends(); good.n_frames = FRAMES, "pictures are not");
    SPOIL(draw_ends(); good.t.observed = early, "first or its last");
    SPOIL(draw_ends(); good.t.observed = late, "first or its last");
    SPOIL(draw_ends(); good.t.observed = back; good.t.n_observed = 4, "do not ascend");
    SPOIL(draw_ends(); good.t.turns = early; good.t.n_turns = 2, "asked about an observation");
    SPOIL(draw_ends(); good.t.n_turns = 0, "asked about an observation");
}

/* The return is what it is trained on: shaped by progress, paid for success. */
static void test_return(void **state)
{
    const struct rl_config env = {.reward = REWARD_ENV, .w_env = 1, .gamma = 1};
    const struct rl_config sparse = {.reward = REWARD_SPARSE, .w_success = 4, .gamma = 1};

    (void)state;
    table.terms.rl = &sparse;
    expect_accepted();
    assert_true(table.event.deliver.episode.reward == 4);
    good.t.success = false;
    expect_accepted();
    assert_true(table.event.deliver.episode.reward == 0);
    table.terms.rl = &env;
    expect_accepted();
    assert_true(table.event.deliver.episode.reward == 5);
    good.t.n_env_reward = 0;                    /* of an environment that gives none: success */
    good.t.n_progress = 0;
    expect_accepted();
    assert_true(table.event.deliver.episode.reward == 1);
}

/* An episode as a policy of three numbers and an end token plays it. */
static void play_by_the_policy(void)
{
    const struct openvla_config *c = &table.terms.policy->config;

    (void)set_up(NULL);
    good.t.instruction = (char *)"open the drawer";
    good.t.temperature = 1.5f;
    good.t.end_token = true;
    good.t.n_hidden = 0;
    for (int i = 0; i < TOKENS; i++)
        good.tokens[i] = (uint32_t)(c->vocab - 1 - i);
}

/* What nobody but the policy knows to be wrong: in the journal it would keep its iteration from ever ending. */
static void test_the_policy(void **state)
{
    _cleanup_(openvla_freep) struct openvla *policy = spec_policy(1);
    static struct run_config run = {.image = SIDE, .cameras = 1, .chain = "render", .policy_support = "action", .policy_eos_in_logp = true};
    const struct rl_config rl = {.temperature = 1.5, .reward = REWARD_PROGRESS, .w_progress = 1, .gamma = 1};
    static char long_text[4000];

    (void)state;
    memset(long_text, 'a', sizeof long_text - 1);
    policy->config.image_height = policy->config.image_width = SIDE;
    policy->config.action_dims = DIMS;
    table.terms = (struct admission) {&run, &rl, policy};
#define ADMIT(how)            \
    do {                      \
        play_by_the_policy(); \
        how;                  \
        expect_accepted();    \
    } while (0)
#define REFUSE(how, why)      \
    do {                      \
        play_by_the_policy(); \
        SPOIL(how, why);      \
    } while (0)
    ADMIT((void)0);
    ADMIT(good.state[1] = 2e9f);                /* which the policy does not read */
    ADMIT(good.t.max_steps = 1000000);
    REFUSE(good.logp[TOKENS - 1] = .5f, "a log-probability is not a number below 0");
    REFUSE(good.tokens[3] = 5, "a token is no action id");
    REFUSE(good.tokens[3] = (uint32_t)policy->config.vocab, "a token is no action id");
    REFUSE(good.t.n_tokens = good.t.n_logp = STEPS * DIMS, "tokens or log-probabilities are missing");
    assert_true(table.answers);                 /* an actor's fault */
    REFUSE(good.t.end_token = false, "it has no end tokens");
    REFUSE(good.t.n_hidden = STEPS * 3, "its hidden states are of another size");
    REFUSE(good.progress[1] = 1.5f, "a progress score is missing or not in [0,1]");
    assert_true(table.answers);
    REFUSE(good.env_reward[1] = 2e6f, "a reward of the environment");
    assert_false(table.answers);
    REFUSE(good.action[1] = -2e6f, "an action or label");
    REFUSE(good.t.max_steps = 1, "more steps than its limit");
    REFUSE(good.t.max_steps = UINT32_MAX, "a limit that is none");
    REFUSE(good.t.full_support = true, "policy.support");
    REFUSE(good.t.temperature = 1, "the stage's temperature");
    REFUSE(good.t.temperature = NAN, "the stage's temperature");
    REFUSE(good.t.n_progress = 0, "it has no progress scores");
    REFUSE(good.t.instruction = long_text, "the instruction is too long");
    assert_false(table.answers);                /* the simulator's */
    REFUSE(good.t.purpose = GANTRY__PURPOSE__PURPOSE_ROLLOUT; good.t.temperature = NAN, "its temperature is none");
    ADMIT(good.t.purpose = GANTRY__PURPOSE__PURPOSE_ROLLOUT; good.t.temperature = 0);
    ADMIT(good.t.purpose = GANTRY__PURPOSE__PURPOSE_EVAL; good.t.temperature = 0; good.logp[1] = .5f);  /* is only counted */
    policy->config.action_dims = DIMS + 1;
    REFUSE((void)0, "its actions have 3 numbers, the policy's 4");
    policy->config.action_dims = DIMS;
    policy->config.image_height = 2 * SIDE;
    REFUSE((void)0, "pictures of 2x2, the model wants 4x2");

    policy->config.image_height = SIDE;
    REFUSE(good.t.purpose = GANTRY__PURPOSE__PURPOSE_DEMO; good.label[2] = 1.5f, "its action labels are missing");
    ADMIT(good.t.purpose = GANTRY__PURPOSE__PURPOSE_DEMO; good.t.n_tokens = good.t.n_logp = 0; good.label[2] = -1);
    table.terms = (struct admission) {0};
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_described), TEST(test_busy), TEST(test_shapes), TEST(test_the_runs_pictures), TEST(test_numbers), TEST(test_optional), TEST(test_drawn),
        TEST(test_return), TEST(test_the_policy),
    };

    return cmocka_run_group_tests_name("delivery", tests, open_table, close_table);
}
