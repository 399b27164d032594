#include "tests/harness/libero_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/atomic_file.h"

struct libero_lab libero = {.options = {.cache = libero.cache}};

int libero_lab_find(void **state)
{
    struct error error = {0};

    (void)state;
    scratch_new(libero.cache);
    if (libero_assets_find(&libero.options, &libero.assets, &error) < 0)
        snprintf(libero.missing, sizeof(libero.missing), "%s", error.text);
    return 0;
}

int libero_lab_clean_up(void **state)
{
    (void)state;
    libero_assets_release(&libero.assets);
    return remove_tree(libero.cache);
}

void libero_lab_need_files(void)
{
    if (libero.missing[0]) {
        printf("skipped: %s\n", libero.missing);
        skip();
    }
}

const char *libero_lab_need_goldens(void)
{
    const char *goldens = getenv("GANTRY_GOLDENS");
    char path[4096];

    libero_lab_need_files();
    snprintf(path, sizeof(path), "%s/libero/models", goldens ? goldens : "");
    if (!goldens || access(path, R_OK) < 0) {
        printf("skipped: GANTRY_GOLDENS holds no libero/models\n");
        skip();
    }
    return goldens;
}

struct libero_task *libero_lab_open(int suite, int index)
{
    struct libero_task *task = NULL;
    struct error error = {0};

    if (libero_task_open(&libero.assets, libero.cache, &libero_suites[suite], index, &task, &error) < 0)
        fail_msg("%s", error.text);
    return task;
}
