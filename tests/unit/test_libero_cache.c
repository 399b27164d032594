/* The cache of compiled LIBERO scenes: what comes out of it is what was compiled, and what is damaged in it is compiled anew.
 *
 * Needs LIBERO_ROOT and robosuite's files (make libero-assets); skips without. */
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/macro.h"
#include "sim/suites/libero/assets.h"
#include "sim/suites/libero/task.h"
#include "tests/harness/scratch.h"

enum { GOAL = 2, TASK = 7 };

static struct libero_assets assets;
static char scratch[SCRATCH_PATH], cache[SCRATCH_PATH + 8];

static struct libero_task *open_task(void)
{
    struct libero_task *task = NULL;
    struct error error = {0};

    if (libero_task_open(&assets, cache, &libero_suites[GOAL], TASK, &task, &error) < 0)
        fail_msg("%s", error.text);
    return task;
}

/* By another process, which has nothing in memory yet: 0 for success. */
static int open_elsewhere(void)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        struct libero_task *task = NULL;
        struct error error = {0};

        _exit(libero_task_open(&assets, cache, &libero_suites[GOAL], TASK, &task, &error) < 0);
    }
    return child < 0 || waitpid(child, &status, 0) < 0 || status != 0;
}

/* The working directory is an empty one, since MuJoCo left to itself writes a log there. */
static int set_up(void **state)
{
    struct error error = {0};

    (void)state;
    if (libero_assets_find(&(struct sim_options){0}, &assets, &error) < 0) {
        printf("skipped: %s\n", error.text);
        exit(0);
    }
    scratch_new(scratch);
    snprintf(cache, sizeof(cache), "%s/cache", scratch);
    return chdir(scratch) < 0 || open_elsewhere();
}

static int tear_down(void **state)
{
    (void)state;
    libero_assets_release(&assets);
    return chdir("/") < 0 || remove_tree(scratch) < 0;
}

static void first_of(const char *pattern, char ret_path[256])
{
    char all[256];
    glob_t found;

    snprintf(all, sizeof(all), "%s/%s", cache, pattern);
    assert_int_equal(glob(all, 0, NULL, &found), 0);
    snprintf(ret_path, 256, "%s", found.gl_pathv[0]);
    globfree(&found);
}

static void flip(const char *path, size_t at)
{
    FILE *file = fopen(path, "r+e");
    int byte;

    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    byte = fgetc(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
}

/* Its number of textures, which lies before the digest's reach; a byte of the model; a byte of a picture. */
static void test_damaged(void **state)
{
    static const struct { const char *pattern; size_t at; } damages[] = { { "*.mjb", 8 }, { "*.mjb", 5000 }, { "textures/*", 9 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        _cleanup_free_ char *before = NULL, *after = NULL;
        char path[256];
        size_t n_before, n_after;

        first_of(damages[i].pattern, path);
        assert_int_equal(file_read(path, SIZE_MAX, &before, &n_before), 0);
        flip(path, damages[i].at);
        assert_int_equal(open_elsewhere(), 0);
        assert_int_equal(file_read(path, SIZE_MAX, &after, &n_after), 0);
        assert_int_equal(n_after, n_before);
        assert_memory_equal(after, before, n_before);
        assert_int_equal(access("MUJOCO_LOG.TXT", F_OK), -1);
    }
}

static void test_same(void **state)
{
    struct libero_task *first, *second;

    (void)state;
    first = open_task();
    second = open_task();
    assert_int_equal(first->model->ngeom, second->model->ngeom);
    assert_memory_equal(first->model->body_mass, second->model->body_mass, sizeof(double) * (size_t)first->model->nbody);
    assert_memory_equal(first->model->tex_adr, second->model->tex_adr, sizeof(int) * (size_t)first->model->ntex);
    assert_ptr_equal(first->model->tex_data, second->model->tex_data);      /* pictures lie once in memory */
    libero_task_close(first);
    libero_task_close(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_same),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
