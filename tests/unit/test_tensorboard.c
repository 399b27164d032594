/* One scalar's record, byte for byte as an independent writer makes it (masked CRCs, Event protobuf). */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "run/tensorboard.h"
#include "tests/harness/scratch.h"

/* wall_time 1234.5, step 300, "rl/success" 0.625 */
static const uint8_t golden[] = {
    0x21, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x7b, 0xec, 0xf6, 0x09, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x4a, 0x93, 0x40, 0x10, 0xac, 0x02, 0x2a, 0x13, 0x0a, 0x11, 0x0a, 0x0a, 0x72, 0x6c, 0x2f, 0x73,
    0x75, 0x63, 0x63, 0x65, 0x73, 0x73, 0x15, 0x00, 0x00, 0x20, 0x3f, 0xfb, 0x2d, 0x00, 0x53,
};

static void test_record(void **state)
{
    char dir[SCRATCH_PATH], path[512] = "";
    _cleanup_free_ char *bytes = NULL;
    struct tensorboard *tb;
    struct dirent *item;
    size_t n;
    DIR *d;

    (void)state;
    scratch_new(dir);
    assert_int_equal(tensorboard_open(dir, &tb), 0);
    assert_int_equal(tensorboard_scalar(tb, 1234500, 300, "rl/success", 0.625f), 0);
    assert_int_equal(tensorboard_flush(tb), 0);
    tensorboard_close(tb);
    d = opendir(dir);
    while ((item = readdir(d)))
        if (!strncmp(item->d_name, "events.out.tfevents.", 20))
            snprintf(path, sizeof path, "%s/%s", dir, item->d_name);
    closedir(d);
    assert_int_equal(file_read(path, 4096, &bytes, &n), 0);
    assert_true(n > sizeof golden);         /* the file's version event comes first */
    assert_memory_equal(bytes + n - sizeof golden, golden, sizeof golden);
    assert_int_equal(remove_tree(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_record)};

    return cmocka_run_group_tests_name("tensorboard", tests, NULL, NULL);
}
