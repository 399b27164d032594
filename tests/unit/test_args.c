/* test_args.c - a daemon's command line: what it takes, what it refuses, in words and with the exit status of sysexits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/args.h"

enum {
    ALL = ARGS_JOIN | ARGS_RUN_DIR | ARGS_CONFIG | ARGS_DEVICE | ARGS_THREADS | ARGS_LISTEN | ARGS_KEY | ARGS_CACHE | ARGS_RANK |
          ARGS_NAME | ARGS_RENDER | ARGS_SIMULATOR,
};
static const struct args_about about = {.role = "tester", .doc = "Tests.", .takes = ALL, .needs = ARGS_JOIN | ARGS_RANK};

/* In a child, which argp ends by itself: its exit status; what it said. */
static int parse(const char *const *words, const struct args_about *of, char *ret_said, size_t size)
{
    char *argv[24] = {(char *)"gantry-tester"};
    int pipes[2], status, argc = 1;
    size_t n = 0;
    ssize_t got;
    pid_t child;

    while (words[argc - 1])
        argv[argc] = (char *)words[argc - 1], argc++;
    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        struct args a;

        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        args_parse(argc, argv, of, &a);
        dprintf(STDOUT_FILENO, "%s %s %s %s %u %u %s %s %s %u %s %s %s %d %d", a.join, a.run_dir, a.config, a.device, a.threads,
                a.slots, a.listen, a.key, a.cache, a.rank, a.name, a.render, a.simulator, (int)a.log_level, a.die_with_parent);
        _exit(0);
    }
    close(pipes[1]);
    while ((got = read(pipes[0], ret_said + n, size - 1 - n)) > 0)
        n += (size_t)got;
    ret_said[n] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_taken(void **state _unused_)
{
    static const char *const all[] = {"--join=j", "--run-dir=r", "--config=c", "--device=d", "--threads=256", "--listen=l",
                                      "--key=k", "--cache=C", "--rank=1023", "--name=n", "--render=g", "--simulator=S",
                                      "--log-level=debug", "--die-with-parent", NULL};
    static const char *const few[] = {"-j", "j", "-r", "r", "-c", "c", "-d", "d", "-t", "1", "-l", "l", "-k", "k", "-C", "C",
                                      "-R", "0", "-n", "n", NULL};
    static const char *const slots[] = {"-s", "64", "-j", "j", NULL}, *const many[] = {"-s", "65", "-j", "j", NULL};
    static const char *const version[] = {"--version", NULL};
    const struct args_about worker = {.role = "tester", .doc = "Tests.", .takes = ARGS_JOIN | ARGS_SLOTS,
                                      .needs = ARGS_JOIN | ARGS_SLOTS};
    const struct args_about needy = {.role = "tester", .doc = "Tests.", .takes = ALL, .needs = ALL};
    char said[4096];

    assert_int_equal(parse(all, &needy, said, sizeof said), 0);
    assert_string_equal(said, "j r c d 256 0 l k C 1023 n g S 3 1");
    setenv("GANTRY_LOG_LEVEL", "error", 1);
    assert_int_equal(parse(few, &about, said, sizeof said), 0);
    assert_string_equal(said, "j r c d 1 0 l k C 0 n (null) (null) 0 0");
    unsetenv("GANTRY_LOG_LEVEL");
    assert_int_equal(parse(slots, &worker, said, sizeof said), 0);
    assert_non_null(strstr(said, " 0 64 "));
    assert_non_null(strstr(said, " 2 0"));
    assert_int_equal(parse(many, &worker, said, sizeof said), EX_USAGE);
    assert_int_equal(parse(few, &needy, said, sizeof said), EX_USAGE);
    assert_non_null(strstr(said, "--render is needed"));
    assert_int_equal(parse(version, &about, said, sizeof said), 0);
    assert_int_equal(strncmp(said, "gantry-tester ", 14), 0);
}

static void test_refused(void **state _unused_)
{
    static const struct { const char *words[4], *said; } cases[] = {
        {{NULL}, "--join is needed"},
        {{"-j", "j", "x"}, "'x': no argument is expected, only options"},
        {{"-j", "j", "--slots=3"}, "unrecognized option '--slots=3'"},      /* this one plays nothing */
        {{"-j", "j", "-t0"}, "--threads: '0' is not a number from 1 to 256"},
        {{"-j", "j", "-t257"}, "--threads: '257' is not a number from 1 to 256"},
        {{"-j", "j", "-t1x"}, "--threads: '1x' is not a number from 1 to 256"},
        {{"-j", "j", "--threads="}, "--threads: '' is not a number from 1 to 256"},
        {{"-j", "j", "-R-1"}, "--rank: '-1' is not a number from 0 to 1023"},
        {{"-j", "j", "-R1024"}, "--rank: '1024' is not a number from 0 to 1023"},
        {{"-j", "j", "-R99999999999999999999"}, "is not a number from 0 to 1023"},
        {{"-j", "j", "-Lloud"}, "--log-level: 'loud' is not error, warn, info or debug"},
    };
    char said[4096];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse(cases[i].words, &about, said, sizeof said), EX_USAGE);
        if (!strstr(said, cases[i].said))
            fail_msg("%s", said);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_taken), cmocka_unit_test(test_refused)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
