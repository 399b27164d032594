/* test_metrics.c - the text is what Prometheus reads. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "daemon/metrics.h"
#include "daemon/probe.h"

static void test_text(void **state _unused_)
{
    _cleanup_(metrics_freep) struct metrics *m = metrics_new();
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct metric *steps = metrics_counter(m, "steps_total", "", "steps");
    struct metric *level = metrics_gauge(m, "level", "member=\"3\"", "a level");

    metric_set(metrics_counter(m, "steps_total", "role=\"b\"", "steps"), 2);
    assert_ptr_equal(metrics_counter(m, "steps_total", "", "steps"), steps);
    metric_set(steps, 1.5);
    metric_set(level, -1);
    metrics_write(m, &out);
    assert_string_equal(out.text,
        "# HELP steps_total steps\n# TYPE steps_total counter\nsteps_total 1.5\nsteps_total{role=\"b\"} 2\n"
        "# HELP level a level\n# TYPE level gauge\nlevel{member=\"3\"} -1\n");
}

/* Prometheus' words for what is no number. */
static void test_numbers(void **state _unused_)
{
    static const struct { double value; const char *text; } cases[] = {
        {NAN, "x NaN\n"}, {INFINITY, "x +Inf\n"}, {-INFINITY, "x -Inf\n"}, {0.1, "x 0.10000000000000001\n"},
    };
    _cleanup_(metrics_freep) struct metrics *m = metrics_new();
    struct metric *x = metrics_gauge(m, "x", "", "x");

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;

        metric_set(x, cases[i].value);
        metrics_write(m, &out);
        assert_string_equal(strstr(out.text, "\nx ") + 1, cases[i].text);
    }
}

static double number_of(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    while (at && at > text && at[-1] != '\n')
        at = strstr(at + 1, name);
    assert_non_null(at);
    return strtod(at + strlen(name), NULL);
}

static void test_process(void **state _unused_)
{
    double fds;
    int fd;
    _cleanup_(metrics_freep) struct metrics *m = metrics_new();
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;

    metrics_add_process(m);
    metrics_write(m, &out);
    assert_non_null(strstr(out.text, "process_resident_memory_bytes "));
    assert_non_null(strstr(out.text, "process_cpu_seconds_total "));
    assert_null(strstr(out.text, "process_resident_memory_bytes 0\n"));
    assert_null(strstr(out.text, "process_cpu_seconds_total 0\n"));
    fds = number_of(out.text, "process_open_fds ");
    fd = dup(STDERR_FILENO);
    strbuf_reset(&out);
    metrics_write(m, &out);
    assert_true(number_of(out.text, "process_open_fds ") == fds + 1);
    close(fd);
    assert_true(process_rss_bytes() > 100000);
    assert_true(process_peak_rss_bytes() > 100000);
    metric_set(NULL, 1);            /* a metric that could not be made does nothing */
}

static enum probe_state tell(struct strbuf *detail, void *arg)
{
    enum probe_state state = *(enum probe_state *)arg;

    if (state == PROBE_BUSY)
        strbuf_adds(detail, "loading");
    return state;
}

static void test_probes(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    enum probe_state a = PROBE_READY, b = PROBE_BUSY;
    struct probes probes = {0};

    assert_int_equal(probe_add(&probes, "ledger", tell, &a), 0);
    assert_int_equal(probe_add(&probes, "model", tell, &b), 0);
    assert_true(probes_live(&probes, true, &out));
    assert_string_equal(out.text, "ledger ready\nmodel busy loading\n");
    strbuf_reset(&out);
    assert_false(probes_ready(&probes, false, &out));
    assert_string_equal(out.text, "ledger ready\nmodel busy\n");
    b = PROBE_READY;
    assert_true(probes_ready(&probes, true, &out));
    a = PROBE_DOWN;
    assert_false(probes_live(&probes, true, &out));
    for (int i = 2; i < PROBE_MAX; i++)
        assert_int_equal(probe_add(&probes, "more", tell, &a), 0);
    assert_int_equal(probe_add(&probes, "too many", tell, &a), -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text), cmocka_unit_test(test_numbers), cmocka_unit_test(test_process),
        cmocka_unit_test(test_probes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
