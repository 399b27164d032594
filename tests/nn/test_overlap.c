/* Ranks on CPUs: gradients are exchanged bucket by bucket while shards are still computed, and nothing of it changes a bit. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "nn/ops/op.h"
#include "tests/harness/gather_desk.h"
#include "tests/harness/small_net.h"
#include "train/buckets.h"

enum { RANKS = 2, BUCKET = 500, PATIENCE_S = 60 };

/* ---- buckets ----------------------------------------------------------------------------------------------- */

static void test_buckets_cover_all_once(void **state)
{
    /* unsorted, with padding, with a hole, longer than a bucket */
    const struct adamw_range ranges[] = {{.begin = 4000, .end = 4010}, {.begin = 0, .end = 30}, {.begin = 32, .end = 1700},
                                         {.begin = 4016, .end = 4020}};
    struct buckets b;
    int64_t floats = 0;

    (void)state;
    assert_int_equal(buckets_make(ranges, ARRAY_SIZE(ranges), BUCKET, &b), 0);
    assert_int_equal(b.n, 1 + 4);
    for (int i = 0; i < b.n; i++) {
        assert_true(b.list[i].end > b.list[i].begin && b.list[i].end - b.list[i].begin <= BUCKET);
        assert_true(i == 0 || b.list[i].end <= b.list[i - 1].begin);
        floats += b.list[i].end - b.list[i].begin;
    }
    assert_int_equal(floats, 1700 + 20);
    assert_int_equal(b.list[0].begin, 4000);
    assert_int_equal(b.list[0].end, 4020);
    assert_int_equal(b.inside[0], 2);
    assert_int_equal(b.inside[b.n - 1], 2);     /* 0..500: the first range, and the beginning of the second */
    assert_int_equal(b.span[1].begin, 1);       /* which has a part in all but the first */
    assert_int_equal(b.span[1].end, 4);
    buckets_release(&b);
}

static int told[8], n_told;

static int tell(void *arg, int bucket)
{
    (void)arg;
    told[n_told++] = bucket;
    return bucket == 4 ? -EIO : 0;
}

static void test_buckets_are_told_in_order(void **state)
{
    const struct adamw_range ranges[] = {{.begin = 0, .end = 400}, {.begin = 400, .end = 1000}, {.begin = 1000, .end = 2500}};
    struct bucket_watch watch;
    struct buckets b;
    int r = 0;

    (void)state;
    n_told = 0;
    assert_int_equal(buckets_make(ranges, ARRAY_SIZE(ranges), BUCKET, &b), 0);
    assert_int_equal(bucket_watch_init(&watch, &b, tell, NULL), 0);
    tape_watch_begin(watch.tape);
    tape_watch_note(watch.tape, 400);
    tape_watch_record(watch.tape);              /* number 0 */
    tape_watch_note(watch.tape, 1000);
    tape_watch_record(watch.tape);
    assert_true(tape_watch_return(watch.tape, &r));
    assert_int_equal(r, 0);
    assert_int_equal(n_told, 0);                /* nobody uses the first range, but it is in the last bucket */
    assert_int_equal(tape_watch_replayed(watch.tape), 0);
    assert_int_equal(n_told, 0);
    assert_int_equal(tape_watch_replayed(watch.tape), -EIO);
    assert_int_equal(n_told, 5);
    for (int i = 0; i < n_told; i++)
        assert_int_equal(told[i], i);
    bucket_watch_release(&watch);
    buckets_release(&b);
}

/* ---- ranks are threads ------------------------------------------------------------------------------------------ */

static struct gather_desk desk = GATHER_DESK;

struct rank {
    struct small_net *net;
    int rank, tries[SHARDS], result;
    bool overlapped, waits;             /* waits: the backward's last record, for the first exchange */
    int outgrown;                       /* so often the tape is too small, after the way back */
    float *grad;
    int gathers;
};

static int gather(void *arg, const void *mine, size_t bytes, void *ret_all)
{
    struct rank *me = arg;

    me->gathers++;
    return gather_desk(&desk, me->rank, mine, bytes, ret_all);
}

/* The first record of the pass, so the last of its way back: by then something must have gone to the other rank, or it waits in
 * vain. */
static void wait_for_exchange(struct tape *tape, void *context)
{
    struct rank *me = context;
    struct timespec until;

    (void)tape;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&desk.lock);
    while (me->waits && desk.round == 0)
        if (pthread_cond_timedwait(&desk.changed, &desk.lock, &until) == ETIMEDOUT)
            break;
    if (me->waits && desk.round == 0)
        me->result = -ETIMEDOUT;
    pthread_mutex_unlock(&desk.lock);
}

static int shard(struct tape *tape, int number, int first, int last, void *arg)
{
    struct rank *me = arg;
    bool is_last = number == (me->rank + 1) * SHARDS / RANKS - 1;
    int r = small_net_pass(me->net, tape, first, last, is_last ? wait_for_exchange : NULL, me);

    return r < 0 ? r : me->tries[number]++ < me->outgrown ? -ENOBUFS : 0;
}

static void *play(void *arg)
{
    struct rank *me = arg;
    struct group group = {.rank = me->rank, .ranks = RANKS, .gather = gather, .arg = me};
    struct shards *shards = NULL;
    int r = shards_new(me->net->params.numel, 1, &group, &shards);

    if (r >= 0) {
        shards_exchange(shards, me->overlapped, BUCKET);
        r = shards_gradient(shards, me->net->ranges, me->net->n_ranges, SMALL_SAMPLES, shard, me, me->grad);
    }
    me->result = me->result < 0 ? me->result : r;
    shards_free(shards);
    return NULL;
}

static void play_both(struct small_net *net, struct rank *rank, struct rank like)
{
    pthread_t thread[RANKS];

    gather_desk_reset(&desk, RANKS);
    for (int i = 0; i < RANKS; i++) {
        rank[i] = like;
        rank[i].rank = i;
        rank[i].net = net;
        rank[i].grad = calloc((size_t)net->params.numel, sizeof(float));
        assert_int_equal(pthread_create(&thread[i], NULL, play, &rank[i]), 0);
    }
    for (int i = 0; i < RANKS; i++)
        pthread_join(thread[i], NULL);
}

static float *alone(struct small_net *net)
{
    struct rank one = {.net = net, .grad = calloc((size_t)net->params.numel, sizeof(float))};
    struct shards *shards = NULL;

    assert_int_equal(shards_new(net->params.numel, 1, NULL, &shards), 0);
    assert_int_equal(shards_gradient(shards, net->ranges, net->n_ranges, SMALL_SAMPLES, shard, &one, one.grad), 0);
    shards_free(shards);
    return one.grad;
}

static void same_as_alone(struct small_net *net, const struct rank like)
{
    float *expected = alone(net);
    struct rank rank[RANKS];

    play_both(net, rank, like);
    for (int i = 0; i < RANKS; i++) {
        assert_int_equal(rank[i].result, 0);
        assert_memory_equal(rank[i].grad, expected, (size_t)net->params.numel * sizeof(float));
        assert_int_equal(rank[i].gathers, (net->params.numel + BUCKET - 1) / BUCKET);
        free(rank[i].grad);
    }
    free(expected);
}

static void test_exchanged_on_the_way_back(void **state)
{
    same_as_alone(*state, (struct rank) {.overlapped = true, .waits = true});
}

static void test_exchanged_afterwards(void **state) { same_as_alone(*state, (struct rank) {0}); }

/* Parts of a gradient are with the other rank when the tape turns out to be too small: the pass is run again, they are not sent
 * again. */
static void test_a_tape_that_is_too_small(void **state)
{
    same_as_alone(*state, (struct rank) {.overlapped = true, .waits = true, .outgrown = 2});
}

static void test_an_exchange_that_breaks(void **state)
{
    struct small_net *net = *state;
    struct rank rank[RANKS];

    desk.fail_at = 3;
    play_both(net, rank, (struct rank) {.overlapped = true});
    desk.fail_at = 0;
    for (int i = 0; i < RANKS; i++) {
        assert_int_equal(rank[i].result, -ECONNRESET);
        assert_int_equal(rank[i].gathers, 3);
        free(rank[i].grad);
    }
}

struct stopping { struct small_net *net; atomic_bool stop; int passes; };

static int stop_in_the_second(struct tape *tape, int number, int first, int last, void *arg)
{
    struct stopping *s = arg;

    (void)number;
    if (++s->passes == 2)
        atomic_store(&s->stop, true);
    return small_net_pass(s->net, tape, first, last, NULL, NULL);
}

/* Who is to stop ends the pass it is in, begins no other, and can be asked again for the same bits. */
static void test_stopped_between_passes(void **state)
{
    struct small_net *net = *state;
    struct stopping s = {.net = net};
    float *expected = alone(net), *grad = calloc((size_t)net->params.numel, sizeof *grad);
    struct shards *shards = NULL;
    struct rank one = {.net = net};

    assert_int_equal(shards_new(net->params.numel, 1, NULL, &shards), 0);
    shards_stop_by(shards, &s.stop);
    for (int infer = 0; infer < 2; infer++) {
        s.passes = 0;
        atomic_store(&s.stop, false);
        assert_int_equal(infer ? shards_infer(shards, SMALL_SAMPLES, 1, stop_in_the_second, &s)
                               : shards_gradient(shards, net->ranges, net->n_ranges, SMALL_SAMPLES, stop_in_the_second, &s, grad),
                         -ECANCELED);
        assert_int_equal(s.passes, 2);
    }
    atomic_store(&s.stop, false);
    assert_int_equal(shards_gradient(shards, net->ranges, net->n_ranges, SMALL_SAMPLES, shard, &one, grad), 0);
    assert_memory_equal(grad, expected, (size_t)net->params.numel * sizeof(float));
    shards_free(shards);
    free(expected);
    free(grad);
}

/* An op that does not say which gradients it will add to is found out: wrong sums never leave. */
static void add_in_silence(struct tape *tape, void *context)
{
    const struct small_net *net = context;

    assert_null(param_gradient(tape, net->weight[SMALL_LAYERS - 1]));   /* told long since */
}

static void test_what_is_added_too_late(void **state)
{
    struct small_net *net = *state;
    float *grad = calloc((size_t)net->params.numel, sizeof *grad);
    struct bucket_watch watch;
    struct buckets b;
    struct tape tape;

    n_told = 0;
    assert_int_equal(buckets_make(net->ranges, net->n_ranges, 1 << 20, &b), 0);
    assert_int_equal(bucket_watch_init(&watch, &b, tell, NULL), 0);
    tape_init(&tape, true);
    assert_int_equal(tape_reserve(&tape, 4 << 20), 0);
    tape.watch = watch.tape;
    tape.param_grad = grad;
    tape_begin(&tape);
    assert_int_equal(small_net_pass(net, &tape, 0, 2, add_in_silence, net), -ENOTRECOVERABLE);
    assert_int_equal(n_told, 0);
    bucket_watch_release(&watch);
    buckets_release(&b);
    tape_release(&tape);
    free(grad);
}

static int make(void **state)
{
    static struct small_net net;

    small_net_make(&net);
    *state = &net;
    return 0;
}

static int drop(void **state)
{
    struct small_net *net = *state;

    small_net_release(net);
    gather_desk_release(&desk);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_cover_all_once),
        cmocka_unit_test(test_buckets_are_told_in_order),
        cmocka_unit_test(test_exchanged_on_the_way_back),
        cmocka_unit_test(test_exchanged_afterwards),
        cmocka_unit_test(test_a_tape_that_is_too_small),
        cmocka_unit_test(test_an_exchange_that_breaks),
        cmocka_unit_test(test_stopped_between_passes),
        cmocka_unit_test(test_what_is_added_too_late),
    };

    return cmocka_run_group_tests(tests, make, drop);
}
