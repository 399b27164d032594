/* test_serve.c - a model server as a member of a run: what it answers while versions come and go, what it tells the coordinator,
 * how it leaves. */
#include "tests/harness/serve_lab.h"

#include <errno.h>
#include <sysexits.h>

#include "base/atomic_file.h"
#include "base/clock.h"

static void assert_answers(struct serve_lab *lab, uint64_t version, float progress)
{
    assert_int_equal(serve_lab_ask(lab, version, 1, false), 0);
    assert_true(lab->progress == progress);
}

/* A version is served once it is ready, and until its last request has been answered; a bad one is refused beside it. */
static void test_versions(void **state _unused_)
{
    struct serve_lab lab;
    unsigned before;

    serve_lab_open(&lab, serve_lab_config, false);
    serve_lab_publish(&lab, 3, "3");
    serve_lab_publish(&lab, 4, "nan");
    serve_lab_publish(&lab, 5, "5");
    assert_int_equal(lifecycle_phase(lab.lifecycle), LIFECYCLE_RUNNING);
    assert_int_equal(serve_lab_ask(&lab, 3, 1, false), -ESTALE);
    assert_string_equal(lab.text, "version 3 is not held here");
    serve_lab_gates.hold_load = true;
    serve_lab_want(&lab, 0, 1, (const uint64_t[]) {3});
    LAB_UNTIL(&lab, serve_lab_gates.loading);
    assert_int_equal(serve_lab_ask(&lab, 3, 1, false), -EAGAIN);
    assert_string_equal(lab.text, "version 3 is being loaded");
    serve_lab_gates.hold_load = false;
    LAB_UNTIL(&lab, serve_lab_said(&lab, 3));
    assert_true(serve_lab_said(&lab, 3)->ready);
    assert_answers(&lab, 3, 3);

    assert_int_equal(serve_lab_ask(&lab, 3, 0, false), -EBADMSG);
    assert_string_equal(lab.text, "there are no images");
    before = lab.replies;
    serve_lab_call(&lab, WIRE_KIND(ACT), 3, 1, false);
    LAB_UNTIL(&lab, lab.replies > before);
    assert_int_equal(lab.result, -EBADMSG);
    assert_string_equal(lab.text, "a prm-server does not answer this kind of request");
    LAB_UNTIL(&lab, lab.refused_total == 1);

    serve_lab_want(&lab, 0, 1, (const uint64_t[]) {4});
    LAB_UNTIL(&lab, serve_lab_said(&lab, 4));
    assert_false(serve_lab_said(&lab, 4)->ready);
    assert_string_equal(serve_lab_said(&lab, 4)->text, "the probe gave numbers that are not finite");
    assert_int_equal(serve_lab_ask(&lab, 4, 1, false), -ESTALE);
    assert_answers(&lab, 3, 3);                /* the old one goes on serving */

    serve_lab_gates.hold_compute = true;
    before = lab.replies;
    serve_lab_call(&lab, WIRE_KIND(SCORE), 3, 1, false);
    LAB_UNTIL(&lab, serve_lab_gates.computing);
    serve_lab_want(&lab, 0, 1, (const uint64_t[]) {5});
    LAB_UNTIL(&lab, serve_lab_said(&lab, 5));
    assert_int_equal(serve_lab_gates.unloaded, 0);
    serve_lab_gates.hold_compute = false;
    LAB_UNTIL(&lab, lab.replies > before);
    assert_true(lab.result == 0 && lab.progress == 3);
    LAB_UNTIL(&lab, serve_lab_gates.unloaded == 1);
    assert_int_equal(serve_lab_ask(&lab, 3, 1, false), -ESTALE);
    assert_answers(&lab, 5, 5);
    serve_lab_close(&lab);
    assert_int_equal(serve_lab_gates.unloaded, 2);
}

/* What is in flight is answered, nothing more is taken, the coordinator is told, and the exit status says who sent it away. */
static void test_leaves(void **state _unused_)
{
    for (int sent_away = 0; sent_away < 2; sent_away++) {
        struct serve_lab lab;
        unsigned before;

        serve_lab_open(&lab, serve_lab_config, false);
        serve_lab_publish(&lab, 3, "3");
        serve_lab_want(&lab, 0, 1, (const uint64_t[]) {3});
        LAB_UNTIL(&lab, serve_lab_said(&lab, 3));
        serve_lab_gates.hold_compute = true;
        before = lab.replies;
        serve_lab_call(&lab, WIRE_KIND(SCORE), 3, 1, false);
        LAB_UNTIL(&lab, serve_lab_gates.computing);
        lab.drain = true;
        lab.sent_away = sent_away;
        LAB_UNTIL(&lab, lifecycle_phase(lab.lifecycle) == LIFECYCLE_DRAINING);
        assert_int_equal(serve_lab_ask(&lab, 3, 1, false), -ESHUTDOWN);
        assert_int_equal(lab.byes, 0);
        serve_lab_gates.hold_compute = false;
        LAB_UNTIL(&lab, lifecycle_phase(lab.lifecycle) == LIFECYCLE_STOPPED);
        assert_int_equal(lab.byes, 1);
        assert_int_equal(lifecycle_exit_code(lab.lifecycle), sent_away ? LIFECYCLE_SENT_AWAY : 0);
        LAB_UNTIL(&lab, lab.replies == before + 2);
        assert_true(lab.result == 0 && lab.progress == 3);
        serve_lab_close(&lab);
    }
}

/* A version on trial scores whole episodes once more, after they have been answered by the other; how they differ is told. */
static void test_trial(void **state _unused_)
{
    struct serve_lab lab;
    unsigned said;

    serve_lab_open(&lab, serve_lab_config, false);
    serve_lab_publish(&lab, 3, "3");
    serve_lab_publish(&lab, 4, "4.5");
    serve_lab_want(&lab, 4, 2, (const uint64_t[]) {3, 4});
    LAB_UNTIL(&lab, serve_lab_said(&lab, 3) && serve_lab_said(&lab, 4));
    assert_answers(&lab, 3, 3);                /* no whole episode */
    assert_int_equal(serve_lab_ask(&lab, 4, 1, true), 0);        /* nothing to compare it with */
    assert_int_equal(serve_lab_ask(&lab, 3, 1, true), 0);
    assert_true(lab.progress == 3);
    LAB_UNTIL(&lab, lab.trials);
    assert_true(lab.trial.member == SERVE_LAB_MEMBER && lab.trial.version == 3 && lab.trial.shadow == 4);
    assert_true(lab.trial.difference == 1.5f);
    assert_int_equal(lab.trials, 1);
    said = lab.n_said;
    serve_lab_want(&lab, 0, 2, (const uint64_t[]) {3, 4});
    LAB_UNTIL(&lab, lab.n_said > said);      /* it has the list */
    assert_int_equal(serve_lab_ask(&lab, 3, 1, true), 0);
    assert_answers(&lab, 3, 3);
    assert_int_equal(lab.trials, 1);
    serve_lab_close(&lab);
}

static const char *in(const struct serve_lab *lab, const char *name)
{
    static char path[SCRATCH_PATH + 128];

    snprintf(path, sizeof path, "%s/%s", lab->dir, name);
    return path;
}

static void put(const char *path, const char *text)
{
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
}

#define CACHE "cache/0000000000000077-prm_server/prms/"

/* Where the run's directory is not seen, whatever lies at its path, versions come from the learner; one that is whole and does
 * not load is refused; what is wanted stays in the cache, the rest goes. */
static void test_elsewhere(void **state _unused_)
{
    struct serve_lab lab;

    serve_lab_open(&lab, serve_lab_config, true);
    assert_int_equal(mkdir_p(in(&lab, "prms/v000003"), 0700), 0);
    put(in(&lab, "prms/v000003/manifest.json"), "{}");
    serve_lab_publish(&lab, 3, "3");
    serve_lab_publish(&lab, 4, "other");
    serve_lab_publish(&lab, 5, "5");
    serve_lab_want(&lab, 0, 2, (const uint64_t[]) {4, 3});
    LAB_UNTIL(&lab, serve_lab_said(&lab, 3) && serve_lab_said(&lab, 4));
    assert_true(serve_lab_said(&lab, 3)->ready);
    assert_false(serve_lab_said(&lab, 4)->ready);
    assert_string_equal(serve_lab_said(&lab, 4)->text, "no format that is known here");
    assert_answers(&lab, 3, 3);
    serve_lab_want(&lab, 0, 2, (const uint64_t[]) {3, 5});
    LAB_UNTIL(&lab, serve_lab_said(&lab, 5) && serve_lab_said(&lab, 5)->ready);
    assert_int_equal(access(in(&lab, CACHE "v000004"), F_OK), -1);
    assert_int_equal(access(in(&lab, CACHE "v000003/model.txt"), F_OK), 0);
    assert_int_equal(access(in(&lab, CACHE "v000005/model.txt"), F_OK), 0);
    serve_lab_close(&lab);
}

/* What is not wanted any more is not brought to its end; what lies in the cache damaged is no fault of the version. */
static void test_brings_again(void **state _unused_)
{
    _cleanup_free_ char *manifest = NULL;
    struct serve_lab lab;
    unsigned beats;
    size_t n;

    serve_lab_open(&lab, serve_lab_config, true);
    serve_lab_publish(&lab, 3, "3");
    serve_lab_publish(&lab, 5, "5");
    lab.withheld = 3;
    serve_lab_want(&lab, 0, 1, (const uint64_t[]) {3});
    LAB_UNTIL(&lab, lab.asked_in_vain);
    assert_int_equal(serve_lab_ask(&lab, 3, 1, false), -EAGAIN);
    serve_lab_want(&lab, 0, 1, (const uint64_t[]) {5});
    LAB_UNTIL(&lab, serve_lab_said(&lab, 5));
    assert_true(serve_lab_said(&lab, 5)->ready);
    assert_null(serve_lab_said(&lab, 3));

    assert_int_equal(file_read(in(&lab, "run/prms/v000003/manifest.json"), 1 << 20, &manifest, &n), 0);
    assert_int_equal(mkdir_p(in(&lab, CACHE "v000003"), 0700), 0);
    put(in(&lab, CACHE "v000003/model.txt"), "7");
    put(in(&lab, CACHE "v000003/manifest.json"), manifest);
    serve_lab_want(&lab, 0, 2, (const uint64_t[]) {5, 3});
    LAB_UNTIL(&lab, access(in(&lab, CACHE "v000003"), F_OK) < 0);
    beats = lab.beats;
    LAB_UNTIL(&lab, lab.beats > beats + 1);
    assert_int_equal(serve_lab_ask(&lab, 3, 1, false), -EAGAIN);
    assert_null(serve_lab_said(&lab, 3));
    serve_lab_close(&lab);
}

/* The end comes while a version is being read, and a request waits behind one that is computed: nothing is left behind. */
static void test_ends_in_the_middle(void **state _unused_)
{
    struct serve_lab lab;

    serve_lab_open(&lab, serve_lab_config, false);
    serve_lab_publish(&lab, 3, "3");
    serve_lab_publish(&lab, 4, "4");
    serve_lab_want(&lab, 0, 1, (const uint64_t[]) {3});
    LAB_UNTIL(&lab, serve_lab_said(&lab, 3));
    serve_lab_gates.hold_load = serve_lab_gates.hold_compute = true;
    serve_lab_want(&lab, 0, 2, (const uint64_t[]) {3, 4});
    serve_lab_call(&lab, WIRE_KIND(SCORE), 3, 1, false);
    serve_lab_call(&lab, WIRE_KIND(SCORE), 3, 1, false);
    LAB_UNTIL(&lab, serve_lab_gates.loading && serve_lab_gates.computing);
    serve_lab_gates.hold_load = serve_lab_gates.hold_compute = false;
    serve_lab_close(&lab);
    assert_int_equal(serve_lab_gates.unloaded, 2);
}

/* A run that this build does not understand is not served. */
static void test_other_run(void **state _unused_)
{
    struct serve_lab lab;

    serve_lab_open(&lab, "suite: {image: 32, other: 7}\n", true);
    LAB_UNTIL(&lab, lifecycle_phase(lab.lifecycle) == LIFECYCLE_STOPPED);
    assert_int_equal(lifecycle_exit_code(lab.lifecycle), EX_CONFIG);
    serve_lab_close(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions), cmocka_unit_test(test_leaves), cmocka_unit_test(test_trial),
        cmocka_unit_test(test_elsewhere), cmocka_unit_test(test_brings_again), cmocka_unit_test(test_ends_in_the_middle),
        cmocka_unit_test(test_other_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
