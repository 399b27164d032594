/* Ranks that learn on the emulated device, or the one that GANTRY_TEST_DEVICE names, and meet in NCCL's stand-in; the real NCCL
 * as far as one rank goes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/emulate/test_device.h"
#include "tests/harness/gather_desk.h"
#include "tests/harness/nccl_stand_in.h"
#include "tests/harness/train_lab.h"
#include "train/device_group.h"

enum { RANKS = NCCL_RANKS, EPISODES = 4, AMPLE = 60000, SOON = 20000 };     /* SOON: gpu-check gives all of this program 40 s */

static const struct sft_config sft = {.steps = 1, .batch = 4, .lr = 1e-3, .clip = .5, .beta2 = .95, .weight_decay = .1,
                                      .lr_end = 1};

static struct gather_desk desk = GATHER_DESK;

static int gather(void *arg, const void *mine, size_t bytes, void *ret_all)
{
    assert_true(bytes <= 4096);                         /* gradients do not come this way */
    return gather_desk(&desk, *(int *)arg, mine, bytes, ret_all);
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

/* The stand-in frees what it sends when it comes back. */
static int upload(void *stream, void *there, const void *host, size_t bytes)
{
    int r = device->k->upload(stream, there, host, bytes);

    return r < 0 ? r : device->k->wait(stream);
}

/* The stand-in does at once what it is asked, in the device's memory. */
static void play_there(void)
{
    nccl_world.at_once = true;
    nccl_world.download = device->k->download;
    nccl_world.upload = upload;
}

static void fresh_trainer(struct rank *me)
{
    trainer_free(me->trainer);
    me->trainer = lab_trainer_on(lab_model(1), device, &me->group);
}

static void begin(struct rank *rank, int ranks)
{
    gather_desk_reset(&desk, ranks);
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
    struct trainer *alone = lab_trainer_on(lab_model(1), device, NULL);
    struct dataset *data = lab_demonstrations(alone->model, EPISODES);
    struct rank rank[RANKS];

    play_there();
    (void)lab_imitate(alone, data, &sft, 1);
    begin(rank, ranks);
    play_all(rank, ranks);
    for (int i = 0; i < ranks; i++) {
        assert_int_equal(rank[i].result, 0);
        lab_same_bits(rank[i].trainer, alone);
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

/* A rank is gone in the middle of a plan: the other comes out with -ECONNRESET, and the plan, begun again from the same weights
 * under a new group, ends as if nothing had happened. */
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
    struct trainer *alone = lab_trainer_on(lab_model(1), device, NULL);
    struct dataset *data = lab_demonstrations(alone->model, EPISODES);
    struct rank rank[RANKS];
    pthread_t thread;

    (void)state;
    play_there();
    (void)lab_imitate(alone, data, &sft, 1);
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
    play_there();
    play_all(rank, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(rank[i].result, 0);
        assert_int_equal(device_group_epoch(rank[i].device), 2);
        lab_same_bits(rank[i].trainer, alone);
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
    if (nccl_group_join(&calls, &id, 0, 1, SOON, &group, &error) < 0)
        fail_msg("%s", error.text);
    stream = (struct nccl_stream) {.handle = s->stream, .done = s->k->done};
    assert_int_equal(s->k->upload(s->stream, there, numbers, sizeof numbers), 0);
    assert_int_equal(nccl_group_all_reduce(group, there, NUMBERS, NCCL_FLOAT32, s->stream), 0);
    if (nccl_group_wait(group, &stream, SOON) < 0)
        fail_msg("%s", nccl_group_why(group));
    assert_int_equal(s->k->download(s->stream, back, there, sizeof back), 0);
    assert_memory_equal(back, numbers, sizeof back);
    nccl_group_free(group);
    s->k->release(there);
    device_stream_free(s);
}

/* The stand-in is called, and does all, where NCCL only puts something on a stream: what was put there before must not have been
 * left for that moment, or a call takes as long as a backward, and the watchdog takes it for stuck. */
static int setup(void **state)
{
    emulate_lazily(0);
    return test_device_setup(state);
}

static int teardown(void **state)
{
    (void)state;
    gather_desk_release(&desk);
    device = device_unref(device);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_rank_of_the_real_nccl),
        cmocka_unit_test_setup(test_two_ranks_change_nothing, nccl_world_reset),
        cmocka_unit_test_setup(test_four_ranks_change_nothing, nccl_world_reset),
        cmocka_unit_test_setup(test_a_rank_dies_and_comes_back, nccl_world_reset),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
