/* Training on the emulated device, or the one that GANTRY_TEST_DEVICE names: the optimiser there, bf16 weights with masters, resume,
 * and ranks that meet in NCCL's stand-in. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/device/device.h"
#include "tests/emulate/test_device.h"
#include "tests/harness/nccl_stand_in.h"
#include "tests/harness/train_lab.h"
#include "train/checkpoint.h"
#include "train/device_group.h"

enum { RANKS = NCCL_RANKS, EPISODES = 4, AMPLE = 60000 };

static const struct sft_config sft = {.steps = 1, .batch = 4, .lr = 1e-3, .clip = .5, .beta2 = .95, .weight_decay = .1, .lr_end = 1};

static struct device *device;

static int setup(void **state)
{
    (void)state;
    device = test_device_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    device = device_unref(device);
    return 0;
}

static struct trainer *make(struct openvla *model, struct device *on, const struct group *group)
{
    struct trainer *t = NULL;

    device_set_process(on);
    assert_int_equal(trainer_new(model, 1, group, &t), 0);
    device_set_process(NULL);
    assert_ptr_equal(model->params.device, on);
    return t;
}

static struct sft_result learn(struct trainer *t, struct dataset *data, uint64_t seed)
{
    struct sft_result result;
    struct error error = {0};

    data->model = t->model;
    if (objective_sft(t, data, &sft, &(struct objective) {.seed = seed}, &result, &error) < 0)
        fail_msg("%s", error.text);
    return result;
}

static double distance(const float *a, const float *b, int64_t n)
{
    double sum = 0, norm = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];

        sum += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(sum / (norm > 0 ? norm : 1));
}

static void same_bits(struct trainer *a, struct trainer *b)
{
    assert_int_equal(trainer_fetch(a), 0);
    assert_int_equal(trainer_fetch(b), 0);
    assert_memory_equal(a->params->values, b->params->values, (size_t)a->params->numel * sizeof(float));
    for (int i = 0; i < TRAIN_PARTS; i++) {
        size_t bytes = (size_t)(a->parts[i].end - a->parts[i].begin) * sizeof(float);

        if (!bytes)
            continue;
        assert_int_equal(a->parts[i].adamw.step, b->parts[i].adamw.step);
        assert_memory_equal(a->parts[i].adamw.m, b->parts[i].adamw.m, bytes);
        assert_memory_equal(a->parts[i].adamw.v, b->parts[i].adamw.v, bytes);
    }
}

/* ---- one rank ----------------------------------------------------------------------------------------------- */

/* What passes compute there differs from the CPU's numbers in their last bits; AdamW's first steps divide by a gradient's own size and
 * make much of that where it is next to nothing: moments are held to the gradient's bound, values to a part of what they moved. */
static void test_updates_as_on_the_cpu(void **state)
{
    struct trainer *here = make(lab_model(1), NULL, NULL), *there = make(lab_model(1), device, NULL);
    struct openvla *before = lab_model(1);
    struct dataset *data = lab_demonstrations(here->model, EPISODES);
    struct sft_result a = learn(here, data, 1), b = learn(there, data, 1);
    const struct part *trunk = &here->parts[TRAIN_TRUNK];
    int64_t numel = here->params->numel;
    float *moved[2] = {malloc((size_t)numel * sizeof(float)), malloc((size_t)numel * sizeof(float))};

    (void)state;
    assert_true(fabs(a.last_loss / b.last_loss - 1) < 1e-5);
    assert_null(there->grad);
    assert_memory_equal(there->params->values, before->params.values, (size_t)numel * sizeof(float));  /* nothing has come here */
    assert_int_equal(trainer_fetch(there), 0);
    assert_int_equal(there->parts[TRAIN_TRUNK].adamw.step, sft.steps);
    for (int64_t i = 0; i < numel; i++) {
        moved[0][i] = here->params->values[i] - before->params.values[i];
        moved[1][i] = there->params->values[i] - before->params.values[i];
    }
    assert_true(distance(there->parts[TRAIN_TRUNK].adamw.m, trunk->adamw.m, trunk->end - trunk->begin) < 1e-4);
    assert_true(distance(there->parts[TRAIN_TRUNK].adamw.v, trunk->adamw.v, trunk->end - trunk->begin) < 1e-4);
    assert_true(distance(moved[1], moved[0], numel) < 5e-3);
    dataset_free(data);
    openvla_free(before);
    trainer_free(here);
    trainer_free(there);
    free(moved[0]);
    free(moved[1]);
}

static void test_resume_changes_nothing(void **state)
{
    char dir[] = "/tmp/gantry-test-device.XXXXXX", command[128];
    struct trainer *whole = make(lab_model(1), device, NULL), *resumed;
    struct dataset *data = lab_demonstrations(whole->model, EPISODES);
    struct openvla *loaded = NULL;
    struct error error = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)learn(whole, data, 1);
    if (checkpoint_save(whole, dir, &error) < 0 || openvla_load(dir, &loaded, &error) < 0)
        fail_msg("%s", error.text);
    resumed = make(loaded, device, NULL);
    assert_int_equal(checkpoint_load_state(resumed, dir, &error), 0);
    (void)learn(whole, data, 2);
    (void)learn(resumed, data, 2);
    same_bits(whole, resumed);
    trainer_reset(whole);               /* moments are forgotten there, too; values stay */
    assert_int_equal(trainer_fetch(whole), 0);
    assert_memory_equal(whole->params->values, resumed->params->values, (size_t)whole->params->numel * sizeof(float));
    for (int64_t i = 0; i < whole->parts[TRAIN_TRUNK].end - whole->parts[TRAIN_TRUNK].begin; i++)
        assert_true(whole->parts[TRAIN_TRUNK].adamw.m[i] == 0);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    dataset_free(data);
    trainer_free(whole);
    trainer_free(resumed);
}

static void test_bf16_weights_have_masters(void **state)
{
    char dir[] = "/tmp/gantry-test-device.XXXXXX", command[128];
    struct openvla *fresh = lab_model(1), *loaded = NULL, *before = NULL;
    struct trainer *t;
    struct dataset *data;
    struct error error = {0};
    const struct part *trunk;
    int hidden = 0;

    (void)state;
    assert_non_null(mkdtemp(dir));
    if (openvla_save(fresh, dir, "BF16", &error) < 0 || openvla_load(dir, &loaded, &error) < 0 || openvla_load(dir, &before, &error) < 0)
        fail_msg("%s", error.text);
    t = make(loaded, device, NULL);
    assert_int_equal(trainer_use_bf16(t), 0);
    data = lab_demonstrations(t->model, EPISODES);
    (void)learn(t, data, 1);
    assert_int_equal(trainer_fetch(t), 0);
    trunk = &t->parts[TRAIN_TRUNK];
    for (int i = 0; i < trunk->n; i++)
        for (int64_t k = trunk->ranges[i].begin; k < trunk->ranges[i].end; k++) {
            float master = t->masters[k - trunk->begin];

            assert_int_equal(float_to_bf16(master), float_to_bf16(t->params->values[k]));
            hidden += t->params->values[k] == before->params.values[k] && master != before->params.values[k];
        }
    assert_true(hidden > 100);          /* steps too small for bf16 are not lost */
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    dataset_free(data);
    openvla_free(fresh);
    openvla_free(before);
    trainer_free(t);
}

static void test_a_gradient_that_is_no_number_is_skipped(void **state)
{
    struct trainer *t = make(lab_model(1), device, NULL);
    struct dataset *data = lab_demonstrations(t->model, EPISODES);
    float *values = t->params->values, kept = values[t->parts[TRAIN_TRUNK].ranges[1].begin];

    (void)state;
    values[t->parts[TRAIN_TRUNK].ranges[0].begin] = NAN;
    assert_int_equal(params_pack(t->params, true), 0);
    assert_int_equal(learn(t, data, 1).skipped, sft.steps);
    assert_int_equal(trainer_fetch(t), 0);
    assert_true(values[t->parts[TRAIN_TRUNK].ranges[1].begin] == kept);
    assert_int_equal(t->parts[TRAIN_TRUNK].adamw.step, 0);
    dataset_free(data);
    trainer_free(t);
}

/* The contract between actor and learner (docs/method.md), both on the device: without a step what the learner finds is what the actor
 * sampled by. */
static void test_without_a_step_the_ratio_is_one(void **state)
{
    const struct rl_config rl = {
        .temperature = 1, .reward = REWARD_PROGRESS, .w_progress = 1, .w_success = 1, .advantage = ADVANTAGE_GAE, .gamma = .99, .lambda = .95,
        .epochs = 1, .minibatch = 4, .clip_low = .2, .clip_high = .2, .lr = 0, .clip = 1, .beta2 = .95, .kl = KL_NONE,
        .value_coef = .5, .value_width = 16, .value_epochs = 1, .value_lr = 1e-3, .value_detach = true,
    };
    struct openvla *policy = lab_model(1), *actor = lab_model(1);
    struct trainer *t;
    struct dataset *data = NULL;
    struct ppo_result result;
    struct error error = {0};

    (void)state;
    assert_int_equal(openvla_add_value_head(policy, 16, 0, 9), 0);
    assert_int_equal(openvla_add_value_head(actor, 16, 0, 9), 0);
    params_use_device(&actor->params, device, false);
    assert_int_equal(openvla_pack(actor, false), 0);
    t = make(policy, device, NULL);
    assert_int_equal(dataset_new(actor, &data), 0);
    for (uint64_t id = 1; id <= 2; id++)
        lab_add_episode(data, actor, id, 2, false, id == 1);
    dataset_sort(data);
    data->model = policy;
    if (objective_ppo(t, NULL, data, &rl, &(struct objective) {.seed = 7, .stage = 1, .version = 3}, &result, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(result.updates > 0 && result.gradient_norm > 0);
    assert_true(result.logp_gap_max <= 1e-5);
    assert_true(fabs(result.ratio_mean - 1) < 1e-4 && fabs(result.ratio_max - 1) < 1e-3);
    assert_true(result.clip_fraction == 0);
    dataset_free(data);
    openvla_free(actor);
    trainer_free(t);
}

/* ---- ranks ------------------------------------------------------------------------------------------------------ */

/* The host's gather among threads: a fast rank is at most one round ahead. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned round;
    int here, ranks;
    char words[2][RANKS][4096];
} desk = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int gather(void *arg, const void *mine, size_t bytes, void *ret_all)
{
    unsigned round;

    assert_true(bytes <= sizeof desk.words[0][0]);      /* gradients do not come this way */
    pthread_mutex_lock(&desk.lock);
    round = desk.round;
    memcpy(desk.words[round % 2][*(int *)arg], mine, bytes);
    if (++desk.here == desk.ranks) {
        desk.here = 0;
        desk.round++;
        pthread_cond_broadcast(&desk.changed);
    }
    while (desk.round == round)
        pthread_cond_wait(&desk.changed, &desk.lock);
    for (int i = 0; i < desk.ranks; i++)
        memcpy((char *)ret_all + (size_t)i * bytes, desk.words[round % 2][i], bytes);
    pthread_mutex_unlock(&desk.lock);
    return 0;
}

struct rank {
    int rank, result;
    bool absent;                /* agrees, and then takes no part */
    struct group group;
    struct device_group *device;
    struct trainer *trainer;
    struct dataset *data;
};

static void *play(void *arg)
{
    struct rank *me = arg;
    struct sft_result result;
    struct error error = {0};

    me->result = device_group_agree(me->device, AMPLE, &error);
    if (me->result < 0 || me->absent)
        return NULL;
    me->data->model = me->trainer->model;
    me->result = objective_sft(me->trainer, me->data, &sft, &(struct objective) {.seed = 1}, &result, &error);
    return NULL;
}

static void play_all(struct rank *rank, int ranks)
{
    pthread_t thread[RANKS];

    nccl_world.joined = 0;
    for (int i = 0; i < ranks; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, play, &rank[i]), 0);
    for (int i = 0; i < ranks; i++)
        pthread_join(thread[i], NULL);
}

static void fresh_trainer(struct rank *me)
{
    trainer_free(me->trainer);
    me->trainer = make(lab_model(1), device, &me->group);
}

static void begin(struct rank *rank, int ranks)
{
    desk.ranks = ranks;
    desk.here = 0;
    for (int i = 0; i < ranks; i++) {
        rank[i] = (struct rank) {.rank = i};
        rank[i].group = (struct group) {.rank = i, .ranks = ranks, .gather = gather, .arg = &rank[i].rank};
        assert_int_equal(device_group_new(&nccl_stand_in, &rank[i].group, &rank[i].device), 0);
        rank[i].group.device = rank[i].device;
        fresh_trainer(&rank[i]);
        rank[i].data = lab_demonstrations(rank[i].trainer->model, EPISODES);
    }
}

static void end(struct rank *rank, int ranks)
{
    for (int i = 0; i < ranks; i++) {
        trainer_free(rank[i].trainer);
        dataset_free(rank[i].data);
        device_group_free(rank[i].device);
    }
}

static void ranks_change_nothing(int ranks)
{
    struct trainer *alone = make(lab_model(1), device, NULL);
    struct dataset *data = lab_demonstrations(alone->model, EPISODES);
    struct rank rank[RANKS];

    nccl_world.at_once = true;
    (void)learn(alone, data, 1);
    begin(rank, ranks);
    play_all(rank, ranks);
    for (int i = 0; i < ranks; i++) {
        assert_int_equal(rank[i].result, 0);
        same_bits(rank[i].trainer, alone);
    }
    assert_true(ranks == 2 ? nccl_world.reductions >= sft.steps : nccl_world.gathers >= sft.steps);
    end(rank, ranks);
    dataset_free(data);
    trainer_free(alone);
}

static void test_two_ranks_change_nothing(void **state)
{
    (void)state;
    ranks_change_nothing(2);
}

static void test_four_ranks_change_nothing(void **state)
{
    (void)state;
    ranks_change_nothing(4);
}

/* A rank is gone in the middle of a plan: the other comes out with -ECONNRESET, and the plan, begun again from the same weights under a new
 * group, ends as if nothing had happened. */
static void *abort_when_reducing(void *arg)
{
    for (bool reducing = false; !reducing; sched_yield()) {
        pthread_mutex_lock(&nccl_world.lock);
        reducing = nccl_world.reductions > 0;
        pthread_mutex_unlock(&nccl_world.lock);
    }
    device_group_abort(arg, "rank 1 is gone");
    return NULL;
}

static void test_a_rank_dies_and_comes_back(void **state)
{
    struct trainer *alone = make(lab_model(1), device, NULL);
    struct dataset *data = lab_demonstrations(alone->model, EPISODES);
    struct rank rank[RANKS];
    pthread_t thread;

    (void)state;
    nccl_world.at_once = true;
    (void)learn(alone, data, 1);
    begin(rank, 2);
    rank[1].absent = true;
    assert_int_equal(pthread_create(&thread, NULL, abort_when_reducing, rank[0].device), 0);
    play_all(rank, 2);
    pthread_join(thread, NULL);
    assert_int_equal(rank[0].result, -ECONNRESET);
    assert_string_equal(nccl_group_why(device_group_nccl(rank[0].device)), "rank 1 is gone");

    device_group_free(rank[1].device);                          /* its next life knows nothing */
    assert_int_equal(device_group_new(&nccl_stand_in, &rank[1].group, &rank[1].device), 0);
    rank[1].group.device = rank[1].device;
    rank[1].absent = false;
    for (int i = 0; i < 2; i++)
        fresh_trainer(&rank[i]);
    nccl_world_reset(NULL);
    nccl_world.at_once = true;
    play_all(rank, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rank[i].result, 0);
        assert_int_equal(device_group_epoch(rank[i].device), 2);
        same_bits(rank[i].trainer, alone);
    }
    end(rank, 2);
    dataset_free(data);
    trainer_free(alone);
}

/* The real NCCL with one rank, on a real device: bootstrap, a sum over its stream, and leaving in order. */
static void test_one_rank_of_the_real_nccl(void **state)
{
    enum { NUMBERS = 1000 };
    struct nccl_calls calls;
    struct nccl_group *group = NULL;
    struct device_stream *s = NULL;
    struct nccl_stream stream;
    struct nccl_id id;
    struct error error = {0};
    float numbers[NUMBERS], back[NUMBERS], *there;

    (void)state;
    if (!getenv("GANTRY_TEST_DEVICE") || nccl_calls_open(NULL, &calls, &error) < 0) {
        print_message("SKIP NCCL on a device: %s\n", error.text[0] ? error.text : "this one is emulated");
        skip();
    }
    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = (float)i;
    assert_int_equal(device_stream_new(device, &s), 0);
    assert_int_equal(s->k->alloc(sizeof numbers, (void **)&there), 0);
    assert_int_equal(nccl_group_make_id(&calls, &id, &error), 0);
    if (nccl_group_join(&calls, &id, 0, 1, AMPLE, &group, &error) < 0)
        fail_msg("%s", error.text);
    stream = (struct nccl_stream) {.handle = s->stream, .done = s->k->done};
    assert_int_equal(s->k->upload(s->stream, there, numbers, sizeof numbers), 0);
    assert_int_equal(nccl_group_all_reduce(group, there, NUMBERS, NCCL_FLOAT32, s->stream), 0);
    assert_int_equal(nccl_group_wait(group, &stream, AMPLE), 0);
    assert_int_equal(s->k->download(s->stream, back, there, sizeof back), 0);
    assert_memory_equal(back, numbers, sizeof back);
    nccl_group_free(group);
    s->k->release(there);
    device_stream_free(s);
}

/* A device that falls off: the pass fails, the driver's words are kept, and whoever watches learns of it once and for all. */
static struct device_kernels failing;
static bool gone;

static int wait_or_fail(void *stream) { return gone ? -EIO : device->k->wait(stream); }
static const char *gone_text(void) { return "the GPU has fallen off the bus"; }

static void test_a_device_falls_off(void **state)
{
    struct device *other = NULL;
    struct trainer *t;
    struct dataset *data;
    struct sft_result result;
    struct error error = {0};

    (void)state;
    failing = *device->k;
    failing.wait = wait_or_fail;
    failing.last_error = gone_text;
    gone = false;
    assert_int_equal(device_wrap(&failing, device->ordinal, &other, NULL), 0);
    t = make(lab_model(1), other, NULL);
    data = lab_demonstrations(t->model, EPISODES);
    assert_null(device_lost(other));
    gone = true;
    assert_int_equal(objective_sft(t, data, &sft, &(struct objective) {.seed = 1}, &result, &error), -EIO);
    assert_string_equal(device_lost(other), "the GPU has fallen off the bus");
    assert_int_equal(t->parts[TRAIN_TRUNK].adamw.step, 0);
    assert_false(device_ask(other));
    device_unref(other);
    other = NULL;

    /* it says so wherever somebody asks after a failure, not only where a pass begins; a failure that is not the device's is none */
    assert_int_equal(device_wrap(&failing, device->ordinal, &other, NULL), 0);
    gone = false;
    assert_true(device_ask(other) && !device_lost(other) && device_ask(NULL));
    gone = true;
    assert_false(device_ask(other));
    assert_string_equal(device_lost(other), "the GPU has fallen off the bus");
    dataset_free(data);
    trainer_free(t);
    device_unref(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_updates_as_on_the_cpu),
        cmocka_unit_test(test_resume_changes_nothing),
        cmocka_unit_test(test_bf16_weights_have_masters),
        cmocka_unit_test(test_a_gradient_that_is_no_number_is_skipped),
        cmocka_unit_test(test_without_a_step_the_ratio_is_one),
        cmocka_unit_test(test_a_device_falls_off),
        cmocka_unit_test(test_one_rank_of_the_real_nccl),
        cmocka_unit_test_setup(test_two_ranks_change_nothing, nccl_world_reset),
        cmocka_unit_test_setup(test_four_ranks_change_nothing, nccl_world_reset),
        cmocka_unit_test_setup(test_a_rank_dies_and_comes_back, nccl_world_reset),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
