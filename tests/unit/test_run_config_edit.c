/* test_run_config_edit.c - one file's values changed: what is asked for becomes so, and nothing else. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "daemon/run_config.h"
#include "daemon/run_config_edit.h"

static const char before[] = "# a comment\n"
                             "run: {dir: 'a: b', seed: 7}\n"
                             "suite:\n"
                             "policy: {init: models/tiny}\n"
                             "stages:\n"
                             "  - demos: {}\n"
                             "  - sft: {steps: 3}\n"
                             "  - sft: {steps: 4}\n"
                             "  - rl:\n"
                             "      preset: grpo\n"
                             "      name: last-one\n"
                             "  - eval:\n";

static int edit(const char *const *changes, int n, struct strbuf *out, struct error *error)
{
    return run_config_edit(before, sizeof before - 1, "a.yaml", changes, n, out, error);
}

static void check(const char *const *changes, int n, const char *after)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};

    assert_int_equal(edit(changes, n, &out, &error), 0);
    assert_string_equal(out.text, after);
}

static void test_layout(void **state _unused_)
{
    check(NULL, 0, "run: {dir: \"a: b\", seed: 7}\nsuite: \npolicy: {init: models/tiny}\nstages:\n  - demos: {}\n  - sft: {steps: 3}\n"
                   "  - sft: {steps: 4}\n  - rl: {preset: grpo, name: last-one}\n  - eval: \n");
}

static void test_changes(void **state _unused_)
{
    const char *const changes[] = {"run.seed=8", "suite.tasks=[pick_up_object, open_drawer]", "sft2.steps=90", "last-one.lr=1e-4",
                                   "eval.temperatures=[0.5, 1]", "run.name=x", "policy.base=", "status.http=\"127.0.0.1:1\"", "run.seed=9",
                                   "run.dir=runs/a b=c"};

    check(changes, 10,
          "run: {dir: \"runs/a b=c\", seed: 9, name: x}\nsuite: {tasks: [pick_up_object, open_drawer]}\n"
          "policy: {init: models/tiny, base: \"\"}\nstages:\n  - demos: {}\n  - sft: {steps: 3}\n  - sft: {steps: 90}\n"
          "  - rl: {preset: grpo, name: last-one, lr: 1e-4}\n  - eval: {temperatures: [0.5, 1]}\nstatus: {http: \"127.0.0.1:1\"}\n");
}

/* A preset's other values are still the preset's, and what is no default in the file is none afterwards. */
static void test_meaning(void **state _unused_)
{
    static struct run_config plain, changed;
    const char *const changes[] = {"last-one.lr=1e-4"};
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};

    assert_int_equal(run_config_parse(before, sizeof before - 1, "a.yaml", &plain, &error), 0);
    assert_int_equal(edit(changes, 1, &out, &error), 0);
    assert_int_equal(run_config_parse(out.text, out.length, "b.yaml", &changed, &error), 0);
    assert_true(plain.stages[3].rl.lr != 1e-4 && changed.stages[3].rl.lr == 1e-4);
    changed.stages[3].rl.lr = plain.stages[3].rl.lr;
    assert_memory_equal(&plain, &changed, sizeof plain);
}

/* Long lines are broken, and read the same. */
static void test_long_lines(void **state _unused_)
{
    static struct run_config config;
    const char *const changes[] = {
        "cluster.actors=[{device: cpu, threads: 1}, {device: cpu, threads: 2}, {device: cpu, threads: 3}, {device: cpu, threads: 4}, "
        "{device: cpu, threads: 5}]"};
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};

    assert_int_equal(edit(changes, 1, &out, &error), 0);
    assert_non_null(strstr(out.text, ",\n    "));
    assert_int_equal(run_config_parse(out.text, out.length, "b.yaml", &config, &error), 0);
    assert_int_equal(config.n_actors, 5);
    assert_int_equal(config.actors[4].threads, 5);
}

static void test_refusals(void **state _unused_)
{
    static const struct { const char *change, *message; } cases[] = {
        {"rll.lr=1", "a.yaml: no section or stage is called 'rll'; sections: run, suite, policy, prm, cluster, status, timing, "
                     "journal; stages: demos, sft, sft2, last-one, eval"},
        {"rl.lr=1", "a.yaml: no section or stage is called 'rl'; "},     /* it has a name */
        {"stages.lr=1", "a.yaml: no section or stage is called 'stages'; "},
        {"run.seed", "'run.seed' is no change; expected: PLACE.KEY=VALUE"},
        {"seed=8", "'seed=8' is no change"},
        {"seed=8.5", "'seed=8.5' is no change"},
        {"run.seed=8\nx: 1", "'run.seed=8 x: 1' is no change"},
        {"run.seed=[1", "run.seed=[1:2:1: not YAML"},
        {"run.seed=&a 1", "run.seed=&a 1:1:1: anchors"},
        {"run.seeed=1", "with these changes:1:29: run.seeed: unknown key; nearest: seed"},
        {"eval.n=0", "with these changes:"},
        {"last-one.name=sft", "with these changes:"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
        struct error error = {0};

        assert_int_equal(edit(&cases[i].change, 1, &out, &error), -EINVAL);
        if (strncmp(error.text, cases[i].message, strlen(cases[i].message)) != 0)
            fail_msg("%s: %s", cases[i].change, error.text);
        assert_int_equal(out.length, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout), cmocka_unit_test(test_changes), cmocka_unit_test(test_meaning),
        cmocka_unit_test(test_long_lines), cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
