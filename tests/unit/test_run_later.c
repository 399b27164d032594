/* Stages that a run was given after it had begun (daemon/run_later.h). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "daemon/run_later.h"
#include "tests/harness/scratch.h"

#define HEAD "run: {name: a}\npolicy: {init: models/tiny}\nstages:\n  - demos: {episodes: 4}\n  - sft: {steps: 2}\n"
#define EVALS "stages:\n - eval: {policies: [last], first_state: 7}\n - eval: {policies: [sft]}\n"

static char run_dir[SCRATCH_PATH];
static struct run_config old, now;
static struct error error;

static void parse(const char *text, struct run_config *ret)
{
    if (run_config_parse(text, strlen(text), "run.yaml", ret, &error) < 0)
        fail_msg("%s", error.text);
}

static void put(const char *name, const char *text)
{
    char path[SCRATCH_PATH + 32];

    snprintf(path, sizeof path, "%s/%s", run_dir, name);
    assert_int_equal(atomic_file_write(path, text, strlen(text)), 0);
}

static bool is_there(const char *name)
{
    char path[SCRATCH_PATH + 32];

    snprintf(path, sizeof path, "%s/%s", run_dir, name);
    return access(path, F_OK) == 0;
}

static int join(const char *text)
{
    int added = -7, r;

    parse(text, &now);
    r = run_later_join(run_dir, &old, &now, &added, &error);
    assert_true(r == 0 || added == -7);
    return r < 0 ? r : added;
}

static void expect_stages(const char *expected)
{
    _cleanup_(strbuf_release) struct strbuf names = STRBUF_INIT;

    for (int i = 0; i < now.n_stages; i++)
        strbuf_addf(&names, "%s%s", i ? " " : "", now.stages[i].name);
    assert_string_equal(names.text, expected);
}

static int set_up(void **state)
{
    (void)state;
    parse(HEAD, &old);
    scratch_new(run_dir);
    return 0;
}

/* Evaluations stay between the old stages and the new, in the user's file and in the run's own. */
static void test_they_keep_their_places(void **state)
{
    int added = -7;

    (void)state;
    put("evals.yaml", EVALS);
    assert_int_equal(join(HEAD), 0);
    expect_stages("demos sft");
    assert_true(is_there("evals.yaml"));
    assert_int_equal(join(HEAD "  - rl: {preset: grpo}\n"), 1);
    expect_stages("demos sft later1 later2 rl");
    assert_int_equal(now.stages[2].eval.first_state, 7);
    assert_true(is_there("evals-2.yaml") && !is_there("evals.yaml"));
    assert_int_equal(join(HEAD "  - rl: {preset: grpo}\n"), 1);       /* killed before config.yaml was written: the same again */
    expect_stages("demos sft later1 later2 rl");
    assert_int_equal(join(HEAD), 0);                      /* or not further after all: they are behind the old ones still */
    assert_int_equal(run_later_append(run_dir, &now, &error), 0);
    expect_stages("demos sft later1 later2");

    assert_int_equal(join(HEAD "  - rl: {preset: grpo}\n"), 1);
    old = now;                                            /* config.yaml */
    assert_int_equal(join(HEAD "  - rl: {preset: grpo}\n"), 0);
    expect_stages("demos sft later1 later2 rl");
    now = old;                                            /* the run by its directory: they are in its file already */
    assert_int_equal(run_later_join(run_dir, &old, &now, &added, &error), 0);
    assert_int_equal(added, 0);
    expect_stages("demos sft later1 later2 rl");
    put("evals.yaml", EVALS);                             /* asked again, about the newer policy */
    assert_int_equal(run_later_append(run_dir, &now, &error), 0);
    expect_stages("demos sft later1 later2 rl later3 later4");
    assert_int_equal(join(HEAD "  - rl: {preset: grpo}\n  - sft: {}\n"), 1);
    expect_stages("demos sft later1 later2 rl later3 later4 sft2");
    assert_true(is_there("evals-5.yaml") && is_there("evals-2.yaml"));
}

/* What is refused leaves everything as it was. */
static void test_refused(void **state)
{
    _cleanup_(strbuf_release) struct strbuf many = STRBUF_INIT;

    (void)state;
    put("evals.yaml", EVALS);
    assert_int_equal(join("run: {name: a}\npolicy: {init: models/tiny}\nstages:\n  - demos: {episodes: 5}\n  - sft: {steps: 2}\n"
                          "  - rl: {preset: grpo}\n"), -ESTALE);
    assert_non_null(strstr(error.text, "stages[0].demos.episodes is 4 there and 5 here"));
    assert_non_null(strstr(error.text, "put stages behind its last"));
    assert_int_equal(join("run: {name: a, seed: 8}\npolicy: {init: models/tiny}\nstages:\n  - demos: {episodes: 4}\n  - sft: {steps: 2}\n"),
                     -ESTALE);
    assert_null(strstr(error.text, "behind its last"));
    assert_int_equal(join("run: {name: a}\npolicy: {init: models/tiny}\nstages:\n  - demos: {episodes: 4}\n"), -ESTALE);
    put("evals.yaml", "stages:\n - demos: {}\n");
    assert_int_equal(join(HEAD "  - rl: {preset: grpo}\n"), -EINVAL);
    assert_non_null(strstr(error.text, "evals.yaml: stages[0] is no eval stage"));
    assert_true(is_there("evals.yaml"));
    put("evals.yaml", EVALS);
    strbuf_adds(&many, HEAD);
    for (int i = 2; i < RUN_MAX_STAGES - 1; i++)
        strbuf_adds(&many, "  - sft: {}\n");
    assert_int_equal(join(many.text), -E2BIG);
}

/* A new stage's paths are read from where its user is; the others are spelled as the run has them. */
static void test_paths_of_new_stages(void **state)
{
    char here[256], expected[300];

    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    snprintf(expected, sizeof expected, "%s/sets/more", here);
    assert_int_equal(join(HEAD "  - demos: {from: sets/more}\n"), 1);
    assert_string_equal(now.stages[2].demos.from, expected);
    assert_string_equal(now.policy_init, "models/tiny");
    snprintf(old.policy_init, sizeof old.policy_init, "%s/models/tiny", here);
    assert_int_equal(join(HEAD), 0);                /* the same file, which the user names as before */
    assert_string_equal(now.policy_init, old.policy_init);
}

/* A name of the user's is no evaluation's. */
static void test_names(void **state)
{
    static const struct { enum stage_kind kind; const char *name; bool later; } cases[] = {
        {STAGE_EVAL, "later1", true}, {STAGE_EVAL, "later12", true}, {STAGE_EVAL, "later", false}, {STAGE_EVAL, "later1b", false},
        {STAGE_EVAL, "eval", false}, {STAGE_SFT, "later1", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct stage_config stage = {.kind = cases[i].kind};

        snprintf(stage.name, sizeof stage.name, "%s", cases[i].name);
        assert_int_equal(run_later_is(&stage), cases[i].later);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_they_keep_their_places, set_up),
        cmocka_unit_test_setup(test_refused, set_up),
        cmocka_unit_test_setup(test_paths_of_new_stages, set_up),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
