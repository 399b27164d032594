#include "tests/harness/import_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/harness/scratch.h"

struct import_options import_options_of(const char *format)
{
    struct import_options o;

    assert_int_equal(import_defaults(format, &o, NULL), 0);
    o.name = "libero";
    o.size = IMPORT_SIDE;
    o.drop_no_ops = true;
    o.gripper = GRIPPER_LIBERO;
    return o;
}

struct dataset_dir *import_into(const char *to, const char *format, const char *from, const struct import_options *options)
{
    struct import_options own = options ? *options : import_options_of(format);
    struct dataset_dir *dir = NULL;
    struct dataset_info info;
    struct error error = {0};

    if (dataset_import(from, to, &own, &info, &error) < 0 || dataset_open(to, &dir, &error) < 0)
        fail_msg("%s", error.text);
    return dir;
}

void import_refused(const char *format, const char *from, const struct import_options *options, const char *what)
{
    struct import_options own = options ? *options : import_options_of(format);
    struct dataset_info info;
    struct error error = {0};

    assert_true(dataset_import(from, scratch_at("bad"), &own, &info, &error) < 0);
    if (!strstr(error.text, what))
        fail_msg("%s\nexpected: %s", error.text, what);
    assert_int_not_equal(access(scratch_at("bad"), F_OK), 0);
}
