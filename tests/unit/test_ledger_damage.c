/* Seeded damages to a real ledger, to the log a crash left beside it, and to its mark: what is read is what was committed, to the
 * last row, or the ledger is refused by name. CORRUPTIONS=1000000 is the long form, CORRUPTION_SEED another sequence,
 * CORRUPTION_FIRST where in it to begin. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "run/ledger.h"
#include "tests/harness/damage.h"
#include "tests/harness/scratch.h"

enum { ITERATIONS = 6, RUNS = 2 };      /* run 0 is damaged, run 1 has the same shape and other rows */
enum which { CLOSED, CRASHED, LOG, MARK, FILES };       /* closed: as a clean end left it; the others: as a kill left them */
static const char *const which_names[FILES] = {"closed", "with a log", "the log", "the mark"};

static char root[SCRATCH_PATH], path[96];
static char *bytes[RUNS][FILES];
static size_t sizes[RUNS][FILES], marks[FILES][1024], n_marks[FILES];
static struct strbuf states[RUNS];
static size_t refused[DAMAGES][FILES], whole[DAMAGES][FILES];
static uint64_t current;        /* the damage under test: a failure names it */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

#define MUST(r) assert_int_equal(r, 0)

static void add_iteration(struct ledger *ledger, int run, uint32_t i)
{
    char memory[5000], metrics[] = "{\"loss\":0.25,\"kl\":0.01}";
    struct ledger_iteration iteration = {.stage = 1, .iteration = i, .name = "rl", .purpose = 3, .policy_version = i,
                                         .state = PROGRESS_DONE, .first_episode = 8 * i + 1, .last_episode = 8 * i + 8,
                                         .start_ms = 5, .plan_digest = {1}};
    struct ledger_version version = {.kind = KIND_POLICY, .number = i + 1, .parent = i, .stage = 1, .iteration = i, .digest = {7},
                                     .dir = "policies/v000003", .gate_passed = true, .metrics = metrics, .committed_ms = 9};

    MUST(ledger_begin(ledger));
    MUST(ledger_put_iteration(ledger, &iteration));
    for (uint32_t k = 1; k <= 8; k++) {
        struct ledger_episode e = {.episode = 8 * i + k, .stage = 1, .iteration = i, .purpose = 3, .split = 1,
                                   .task = "open_drawer",
                                   .state_seed = UINT64_MAX - k, .policy_version = i, .temperature = .6f, .max_steps = 40,
                                   .sample_key = (uint64_t)run, .success = k % 2, .steps = 17, .member = k, .reward = -.0f,
                                   .progress_end = .75f, .digest = {(uint8_t)k, (uint8_t)run}};

        MUST(ledger_add_episode(ledger, &e));
        MUST(ledger_episode_journaled(ledger, &e));
        MUST(ledger_episode_ended(ledger, e.episode, k == 8 ? EPISODE_STALE : EPISODE_TRAINED, k == 8 ? "too old" : NULL));
    }
    MUST(ledger_add_version(ledger, &version));
    MUST(ledger_add_scalar(ledger, 1, i, "success", .25 * i));
    memset(memory, 'a' + (int)i, sizeof memory);
    MUST(ledger_put_blob(ledger, "memory", memory, sizeof memory - 1000 * (i % 3)));   /* pages of an earlier one are free now */
    MUST(ledger_commit(ledger));
}

/* Everything that is ever read of it, but for what this opening added. */
static void state_of(struct ledger *ledger, bool opened_to_write, struct strbuf *state)
{
    struct ledger_run run = *ledger_run(ledger);
    struct ledger_stage *stages;
    struct ledger_iteration *iterations;
    struct ledger_episode *episodes;
    struct ledger_version *versions;
    struct ledger_scalar *scalars;
    struct ledger_event *events;
    void *blob;
    size_t n;

    run.epoch -= opened_to_write;
    strbuf_reset(state);
    strbuf_add(state, &run, sizeof run);
    MUST(ledger_stages(ledger, &stages, &n));
    strbuf_add(state, stages, n * sizeof *stages);
    MUST(ledger_iterations(ledger, &iterations, &n));
    strbuf_add(state, iterations, n * sizeof *iterations);
    MUST(ledger_episodes(ledger, LEDGER_ALL, 0, &episodes, &n));
    strbuf_add(state, episodes, n * sizeof *episodes);
    free(episodes);
    for (uint32_t i = 0; i < ITERATIONS; i++) {         /* found through the index */
        MUST(ledger_episodes(ledger, 1, i, &episodes, &n));
        strbuf_add(state, episodes, n * sizeof *episodes);
        free(episodes);
    }
    MUST(ledger_versions(ledger, &versions, &n));
    for (size_t i = 0; i < n; i++) {
        struct ledger_version v = versions[i];

        strbuf_adds(state, v.metrics);
        v.metrics = NULL;
        strbuf_add(state, &v, sizeof v);
    }
    ledger_versions_free(versions, n);
    MUST(ledger_scalars(ledger, NULL, &scalars, &n));
    strbuf_add(state, scalars, n * sizeof *scalars);
    MUST(ledger_get_blob(ledger, "memory", &blob, &n));
    strbuf_add(state, blob, n);
    MUST(ledger_events(ledger, 0, SIZE_MAX, &events, &n));
    strbuf_add(state, events, (n - opened_to_write) * sizeof *events);
    assert_false(state->failed);
    free(stages); free(iterations); free(scalars); free(blob); free(events);
}

static void write_bytes(const char *ending, const char *content, size_t n)
{
    _cleanup_close_ int fd = -1;
    char name[sizeof path + 8];

    snprintf(name, sizeof name, "%s%s", path, ending);
    if (!content) {
        (void)unlink(name);
        return;
    }
    fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, n), n);
}

static void take(int run, enum which which, const char *ending)
{
    char name[sizeof path + 8];

    snprintf(name, sizeof name, "%s%s", path, ending);
    MUST(file_read(name, 1 << 24, &bytes[run][which], &sizes[run][which]));
}

static void make(int run)
{
    struct ledger_run create = {.id = 0xabc0u + (unsigned)run, .seed = 7, .config_digest = {9}, .created_ms = 1};
    struct ledger_stage stage = {.stage = 1, .name = "rl", .kind = "rl", .state = PROGRESS_OPEN, .start_ms = 5, .wall_s = 2.5};
    struct ledger *ledger;
    struct error error;

    snprintf(path, sizeof path, "%s/%d.sqlite", root, run);
    MUST(ledger_open(path, &create, &ledger, &error));
    MUST(ledger_begin(ledger));
    MUST(ledger_put_stage(ledger, &stage));
    MUST(ledger_commit(ledger));
    for (uint32_t i = 0; i < ITERATIONS / 2; i++)
        add_iteration(ledger, run, i);
    ledger_close(ledger);
    MUST(ledger_open(path, &create, &ledger, &error));      /* a second life, which is killed */
    for (uint32_t i = ITERATIONS / 2; i < ITERATIONS; i++)
        add_iteration(ledger, run, i);
    take(run, CRASHED, "");
    take(run, LOG, "-wal");
    take(run, MARK, "-mark");
    state_of(ledger, false, &states[run]);
    ledger_close(ledger);
    take(run, CLOSED, "");
}

static int setup(void **state)
{
    (void)state;        /* in memory where there is such a place: the long form writes a million files */
    scratch_new_in_memory(root);
    for (int run = 0; run < RUNS; run++) {
        strbuf_init(&states[run]);
        make(run);
    }
    snprintf(path, sizeof path, "%s/ledger.sqlite", root);
    for (enum which f = 0; f < FILES; f++) {
        size_t step = f == LOG ? 4096 + 24 : 4096;      /* pages, and frames of pages */

        for (size_t at = f == LOG ? 32 : 0; at < sizes[0][f] && n_marks[f] < ARRAY_SIZE(marks[f]) - 1; at += step)
            marks[f][n_marks[f]++] = at;
        marks[f][n_marks[f]++] = sizes[0][f];
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    print_message("the last damage was number %zu\n", (size_t)current);
    for (int run = 0; run < RUNS; run++) {
        strbuf_release(&states[run]);
        for (enum which f = 0; f < FILES; f++)
            free(bytes[run][f]);
    }
    return remove_tree(root);
}

static struct damage_file as_target(int run, enum which which)
{
    return (struct damage_file) {.bytes = bytes[run][which], .size = sizes[run][which], .marks = marks[which],
                                 .n_marks = n_marks[which]};
}

static const struct damage_file *stranger(struct philox *p)
{
    static struct damage_file other;

    other = as_target((int)philox_below(p, RUNS), philox_below(p, FILES));
    return &other;
}

/* True: opened, and nothing is missing or other than it was. */
static bool opens_as_it_was(bool to_write)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_(strbuf_release) struct strbuf state = STRBUF_INIT;
    struct ledger_run create = {.id = 1, .config_digest = {9}};
    struct error error;
    int r = to_write ? ledger_open(path, &create, &ledger, &error) : ledger_open_readonly(path, &ledger, &error);

    if (r < 0) {
        assert_non_null(strstr(error.text, path));
        assert_true(r == -EBADMSG || r == -ENOTSUP);
        return false;
    }
    state_of(ledger, to_write, &state);
    assert_int_equal(state.length, states[0].length);
    assert_memory_equal(state.text, states[0].text, state.length);
    return true;
}

/* The files as they were, but for `which`. */
static void lay_out(enum which which, const char *copy, size_t n)
{
    bool closed = which == CLOSED;

    write_bytes("-shm", NULL, 0);
    write_bytes("", which < LOG ? copy : bytes[0][CRASHED], which < LOG ? n : sizes[0][CRASHED]);
    write_bytes("-wal", closed ? NULL : which == LOG ? copy : bytes[0][LOG], which == LOG ? n : sizes[0][LOG]);
    write_bytes("-mark", which == MARK ? copy : bytes[0][MARK], which == MARK ? n : sizes[0][MARK]);
}

static void test_damage_is_never_believed(void **state)
{
    uint64_t count = number_from("CORRUPTIONS", 1000), seed = number_from("CORRUPTION_SEED", 7);
    size_t room = 0;
    _cleanup_free_ char *copy = NULL;

    (void)state;
    for (enum which f = 0; f < FILES; f++) {
        lay_out(f, bytes[0][f], sizes[0][f]);
        assert_true(opens_as_it_was(false));
        lay_out(f, bytes[0][f], sizes[0][f]);
        assert_true(opens_as_it_was(true));
        room = MAX(room, sizes[0][f]);
    }
    copy = malloc(room);
    assert_non_null(copy);
    for (uint64_t i = number_from("CORRUPTION_FIRST", 0); i < count; i++) {
        struct philox p = philox_at(seed, PHILOX_TEST, i, 1, 0);
        enum which which = philox_below(&p, 8) ? philox_below(&p, MARK) : MARK;
        enum damage kind = philox_below(&p, DAMAGES);
        struct damage_file target = as_target(0, which), twin = as_target(1, which);
        size_t n;

        while (!damage_draw(&p, kind, &target, &twin, stranger, copy, &n))
            ;
        current = i;
        lay_out(which, copy, n);
        (opens_as_it_was(philox_below(&p, 2)) ? whole : refused)[kind][which]++;
    }
    for (enum which f = 0; f < FILES; f++)
        for (int k = 0; k < DAMAGES; k++)
            print_message("%-12s %-14s %9zu refused %9zu whole\n", which_names[f], damage_name(k), refused[k][f], whole[k][f]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_damage_is_never_believed, setup, teardown)};

    return cmocka_run_group_tests_name("ledger_damage", tests, NULL, NULL);
}
