/* torch.save's files: the tensors are those safetensors has, whatever view they were; what is no tensor is refused by name. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/torch_file.h"

static void same(const char *pt, const char *expected)
{
    _cleanup_(torch_file_closep) struct torch_file *file = NULL;
    _cleanup_(safetensors_closep) struct safetensors *st = NULL;
    const struct st_tensor *list;
    struct error error = {0};
    int n;

    if (torch_file_open(pt, &file, &error) < 0 || safetensors_open(expected, &st, &error) < 0)
        fail_msg("%s", error.text);
    list = torch_file_tensors(file, &n);
    assert_int_equal(n, st->count);
    for (int i = 0; i < n; i++) {
        const struct st_tensor *want = safetensors_find(st, list[i].name);

        if (!want)
            fail_msg("%s: there is no %s", expected, list[i].name);
        assert_int_equal(list[i].dtype, want->dtype);
        assert_int_equal(list[i].ndim, want->ndim);
        assert_memory_equal(list[i].dim, want->dim, (size_t)want->ndim * sizeof(want->dim[0]));
        assert_int_equal(list[i].bytes, want->bytes);
        assert_memory_equal(list[i].data, want->data, want->bytes);
    }
}

static void test_own_files(void **state)
{
    (void)state;
    same("tests/golden/torch/plain.pt", "tests/golden/torch/plain.safetensors");
    same("tests/golden/torch/module.pt", "tests/golden/torch/module.safetensors");
    same("tests/golden/torch/views.pt", "tests/golden/torch/views.safetensors");
}

/* The side files of an OpenVLA-OFT checkpoint. */
static void test_oft_files(void **state)
{
    static const char *const names[] = {"action_head", "proprio_projector"};
    const char *goldens = getenv("GANTRY_GOLDENS");

    (void)state;
    if (!goldens) {
        print_message("GANTRY_GOLDENS is not set: no OpenVLA-OFT side files\n");
        skip();
    }
    for (int i = 0; i < 2; i++) {
        char pt[4096], expected[4096];

        snprintf(pt, sizeof(pt), "%s/openvla/tiny224/golden/oft/%s--100_checkpoint.pt", goldens, names[i]);
        snprintf(expected, sizeof(expected), "%s/openvla/tiny224/golden/oft/%s.safetensors", goldens, names[i]);
        same(pt, expected);
    }
}

static void refused(const char *name, const void *bytes, size_t n, int errnum, const char *words)
{
    struct torch_file *file = NULL;
    struct error error = {0};
    int r = torch_file_parse(name, bytes, n, &file, &error);

    assert_null(file);
    if (r != -errnum || !strstr(error.text, words) || !strstr(error.text, name))
        fail_msg("%s: %d, %s; expected %d and '%s'", name, r, error.text, -errnum, words);
}

static void test_refused(void **state)
{
    static const struct { const char *name; int errnum; const char *words; } files[] = {
        {"hostile.pt", EPERM, "system"},
        {"far.pt", EINVAL, "tensor x: reaches beyond its storage of 16 bytes"},
        {"number.pt", EINVAL, "epoch: found a number, expected a tensor"},
        {"many.pt", EFBIG, "names of more than 64 MB"},
    };
    char *bytes;
    size_t n;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        char path[128];

        snprintf(path, sizeof(path), "tests/golden/torch/%s", files[i].name);
        assert_int_equal(file_read(path, 1 << 20, &bytes, &n), 0);
        refused(files[i].name, bytes, n, files[i].errnum, files[i].words);
        free(bytes);
    }
    refused("text.pt", "not an archive", 14, EINVAL, "ZIP");
    assert_int_equal(file_read("tests/golden/torch/plain.pt", 1 << 20, &bytes, &n), 0);
    refused("cut.pt", bytes, n / 2, EINVAL, "ZIP");
    free(bytes);
}

/* The entry of a storage is renamed, in its own header and in the directory. */
static void test_missing_storage(void **state)
{
    static const char name[] = "views/data/0";
    char *bytes, *at;
    size_t n;
    int hits = 0;

    (void)state;
    assert_int_equal(file_read("tests/golden/torch/views.pt", 1 << 20, &bytes, &n), 0);
    for (at = bytes; (at = memmem(at, n - (size_t)(at - bytes), name, sizeof(name) - 1)); at++, hits++)
        at[sizeof(name) - 2] = '7';
    assert_true(hits >= 2);
    refused("renamed.pt", bytes, n, ENOENT, "its storage views/data/0 is not in the archive");
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_files),
        cmocka_unit_test(test_oft_files),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_missing_storage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
