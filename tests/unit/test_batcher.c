/* test_batcher.c - every job comes back once, a batch is of one version and never over its rows, arrival order within a
 * version. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/macro.h"
#include "serve/batcher.h"

enum { JOBS = 500, MAX_ROWS = 8 };

struct lab {
    struct loop *loop;
    struct batcher *batcher;
    unsigned done, refused, late;
    atomic_uint computed;               /* jobs */
    bool back[JOBS];
    unsigned last_of[3];                /* highest job number seen back, per version (one thread only) */
    bool out_of_order;
    atomic_bool mixed, too_many;        /* a batch of two versions; more rows than allowed */
    atomic_uint lanes_busy[4];
    atomic_bool shared_lane;
    atomic_bool held;                   /* nothing is computed to its end */
};

/* The model pointer carries the job's number: compute never looks into it. */
static void compute(void *state, unsigned lane, struct serve_job **jobs, unsigned n)
{
    struct lab *lab = state;
    unsigned rows = 0;

    if (atomic_fetch_add(&lab->lanes_busy[lane], 1) != 0)
        atomic_store(&lab->shared_lane, true);
    for (unsigned i = 0; i < n; i++) {
        rows += jobs[i]->rows;
        if (jobs[i]->version != jobs[0]->version)
            atomic_store(&lab->mixed, true);
        jobs[i]->status = GANTRY__STATUS__STATUS_OK;
    }
    while (atomic_load(&lab->held))
        sched_yield();
    atomic_fetch_add(&lab->computed, n);
    if (n > 1 && rows > MAX_ROWS)
        atomic_store(&lab->too_many, true);
    atomic_fetch_sub(&lab->lanes_busy[lane], 1);
}

static void done(void *arg, struct serve_job *job)
{
    struct lab *lab = arg;
    unsigned number = (unsigned)(uintptr_t)job->model;

    assert_false(lab->back[number]);
    lab->back[number] = true;
    lab->done++;
    lab->refused += job->status == GANTRY__STATUS__STATUS_SHUTTING_DOWN;
    lab->late += job->status == GANTRY__STATUS__STATUS_DEADLINE;
    if (number + 1 < lab->last_of[job->version])
        lab->out_of_order = true;
    lab->last_of[job->version] = number + 1;
    free(job);
}

static void open_lab(struct lab *lab, unsigned threads)
{
    *lab = (struct lab) {0};
    assert_int_equal(loop_new(&lab->loop), 0);
    assert_int_equal(batcher_new(lab->loop, &(struct batcher_options) {
        .threads = threads, .max_rows = MAX_ROWS, .compute = compute, .state = lab, .done = done, .arg = lab}, &lab->batcher), 0);
}

static void add_until(struct lab *lab, unsigned number, uint64_t version, unsigned rows, uint64_t deadline_ms)
{
    struct serve_job *job = calloc(1, sizeof *job);

    assert_non_null(job);
    *job = (struct serve_job) {.version = version, .model = (void *)(uintptr_t)number, .rows = rows, .deadline_ms = deadline_ms,
                               .status = GANTRY__STATUS__STATUS_INTERNAL};
    batcher_add(lab->batcher, job);
}

static void add(struct lab *lab, unsigned number, uint64_t version, unsigned rows)
{
    add_until(lab, number, version, rows, 0);
}

static void run(unsigned threads, bool ordered)
{
    struct lab lab;

    open_lab(&lab, threads);
    for (unsigned i = 0; i < JOBS; i++)
        add(&lab, i, i % 7 == 0 ? 2 : 1, 1 + i % 3);
    assert_int_equal(batcher_in_flight(lab.batcher), JOBS);
    while (lab.done < JOBS)
        loop_turn(lab.loop, true);
    assert_int_equal(lab.refused, 0);
    assert_int_equal(batcher_in_flight(lab.batcher), 0);
    assert_int_equal(batcher_totals(lab.batcher).jobs, JOBS);
    assert_true(batcher_totals(lab.batcher).batches < JOBS);        /* there were batches at all */
    assert_false(lab.mixed);
    assert_false(lab.too_many);
    assert_false(lab.shared_lane);
    assert_true(!ordered || !lab.out_of_order);
    lab.batcher = batcher_free(lab.batcher);
    loop_free(lab.loop);
}

static void test_one_thread(void **state _unused_) { run(1, true); }
static void test_threads(void **state _unused_) { run(4, false); }

/* What arrived together is divided among the threads that are idle, and travels together where there is one. */
static void test_shares(void **state _unused_)
{
    static const struct { unsigned threads, batches; } cases[] = {{1, 1}, {2, 2}, {4, 4}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct lab lab;

        open_lab(&lab, cases[i].threads);
        for (int round = 1; round <= 3; round++) {
            for (unsigned k = 0; k < MAX_ROWS / 2; k++)
                add(&lab, (unsigned)round * MAX_ROWS + k, 1, 2);
            while (lab.done < (unsigned)round * MAX_ROWS / 2)
                loop_turn(lab.loop, true);
            assert_int_equal(batcher_totals(lab.batcher).batches, (unsigned)round * cases[i].batches);
            assert_int_equal(batcher_totals(lab.batcher).rows, round * MAX_ROWS);
        }
        lab.batcher = batcher_free(lab.batcher);
        loop_free(lab.loop);
    }
}

/* A job with more rows than a batch may have travels alone; it is not stuck. */
static void test_large_job(void **state _unused_)
{
    struct lab lab;

    open_lab(&lab, 1);
    add(&lab, 0, 1, 1);
    add(&lab, 1, 1, MAX_ROWS * 3);
    add(&lab, 2, 1, 1);
    while (lab.done < 3)
        loop_turn(lab.loop, true);
    lab.batcher = batcher_free(lab.batcher);
    loop_free(lab.loop);
}

/* What nobody waits for any more is answered, not computed, wherever it stands in the queue; what comes after it is. */
static void test_late_jobs(void **state _unused_)
{
    struct lab lab;

    open_lab(&lab, 1);
    for (unsigned i = 0; i < 40; i++)
        add_until(&lab, i, 1 + i % 2, 1, i % 4 == 3 ? 1 : i % 4 == 2 ? clock_mono_ms() + 3600000 : 0);
    for (unsigned i = 40; i < 44; i++)
        add_until(&lab, i, 1, 1, 1);
    while (lab.done < 44)
        loop_turn(lab.loop, true);
    assert_int_equal(lab.late, 14);
    assert_int_equal(lab.computed, 30);
    assert_int_equal(batcher_in_flight(lab.batcher), 0);
    add(&lab, 44, 1, 1);
    while (lab.done < 45)
        loop_turn(lab.loop, true);
    lab.batcher = batcher_free(lab.batcher);
    loop_free(lab.loop);
}

/* A batch that does not end is told from a queue that is long. */
static void test_how_long(void **state _unused_)
{
    struct lab lab;

    open_lab(&lab, 2);
    assert_int_equal(batcher_oldest_ms(lab.batcher), 0);
    atomic_store(&lab.held, true);
    for (unsigned round = 0; round < 2; round++) {      /* the second lane begins later, and does not count */
        uint64_t before = batcher_oldest_ms(lab.batcher);

        add(&lab, round, 1, 1);
        while (batcher_oldest_ms(lab.batcher) < before + 5)
            loop_turn(lab.loop, false);
    }
    assert_true(batcher_oldest_ms(lab.batcher) >= 10);
    atomic_store(&lab.held, false);
    while (lab.done < 2)
        loop_turn(lab.loop, true);
    assert_int_equal(batcher_oldest_ms(lab.batcher), 0);
    lab.batcher = batcher_free(lab.batcher);
    loop_free(lab.loop);
}

/* Jobs that still wait when the server leaves are answered, not forgotten. */
static void test_leaving(void **state _unused_)
{
    struct lab lab;

    open_lab(&lab, 1);
    for (unsigned i = 0; i < 20; i++)
        add(&lab, i, 1, 1);
    lab.batcher = batcher_free(lab.batcher);
    assert_int_equal(lab.done, 20);
    assert_int_equal(lab.refused, 20);          /* nothing had been dispatched: that waits for the turn's end */
    loop_free(lab.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread), cmocka_unit_test(test_threads), cmocka_unit_test(test_shares),
        cmocka_unit_test(test_large_job), cmocka_unit_test(test_late_jobs), cmocka_unit_test(test_how_long),
        cmocka_unit_test(test_leaving),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
