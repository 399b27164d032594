/* test_import_refused.c - demonstrations that cannot be read get one line that names file, episode and field, and leave nothing
 * behind. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/npz_write.h"
#include "nn/models/openvla.h"
#include "tests/harness/import_lab.h"
#include "tests/harness/scratch.h"

static void damaged_records_are_named(void **state)
{
    const char *path = scratch_at("bad.tfrecord");
    char *bytes;
    size_t n;
    struct import_options o = import_options_of("rlds");

    (void)state;
    assert_int_equal(file_read(IMPORT_SET "/rlds/bowl-train.tfrecord-00000-of-00001", 1 << 20, &bytes, &n), 0);
    bytes[200] ^= 1;
    assert_int_equal(file_write(path, bytes, n), 0);
    import_refused("rlds", path, NULL, "bad.tfrecord: the record at byte 0 has a wrong checksum");
    bytes[200] ^= 1;
    bytes[2] ^= 1;
    assert_int_equal(file_write(path, bytes, n), 0);
    import_refused("rlds", path, NULL, "a length with a wrong checksum");
    bytes[2] ^= 1;
    assert_int_equal(file_write(path, bytes, n - 5), 0);
    import_refused("rlds", path, NULL, "is cut short");
    assert_int_equal(file_write(path, bytes, n), 0);
    o.source.images = "front";
    import_refused("rlds", path, &o, "bad.tfrecord: episode 0: no feature front (--images, --action, --state, --instruction name "
                              "others); there are: steps/action, steps/observation/state");
    o.source.images = NULL;
    o.source.state = "language_instruction";
    import_refused("rlds", path, &o, "language_instruction: 9 byte strings, expected 1 numbers for each of 9 steps");
    free(bytes);
}

static void damaged_hdf5_is_named(void **state)
{
    const char *path = scratch_at("bad.hdf5");
    char *bytes;
    size_t n;
    struct import_options o = import_options_of("libero-hdf5");

    (void)state;
    assert_int_equal(file_read(IMPORT_SET "/hdf5/pick_up_the_bowl_demo.hdf5", 1 << 20, &bytes, &n), 0);
    assert_int_equal(file_write(path, bytes, n / 2), 0);
    import_refused("libero-hdf5", path, NULL, "bad.hdf5: ");
    import_refused("libero-hdf5", IMPORT_SET "/expected.json", NULL, "expected.json: no HDF5 file");
    o.source.images = "agentview_rgb,front_rgb";
    import_refused("libero-hdf5", IMPORT_SET "/hdf5", &o,
                   "pick_up_the_bowl_demo.hdf5: data/demo_0: no dataset data/demo_0/obs/front_rgb");
    o.source.images = "ee_states";
    import_refused("libero-hdf5", IMPORT_SET "/hdf5", &o,
                   "obs/ee_states: expected pictures of shape [9,height,width,3], not [9,6]");
    import_refused("libero-hdf5", scratch_dir, NULL, "bad.hdf5");
    free(bytes);
}

/* An instruction that was cut; nothing behind it is read (AddressSanitizer sees it). */
static void text_cut_inside_a_character(void **state)
{
    struct error error = {0};
    struct npz npz;

    (void)state;
    assert_int_equal(npz_create(scratch_at("cut.npz"), &npz, &error), 0);
    for (const char *const *text = (const char *const[]) {"ab\xc3", "ab\xe2\x82", "ab\xf0", NULL}; *text; text++) {
        char *copy = strdup(*text);

        assert_int_equal(npz_add_text(&npz, "instruction", copy, &error), -EINVAL);
        assert_non_null(strstr(error.text, "ends inside a character"));
        free(copy);
    }
    assert_int_equal(npz_close(&npz, &error), 0);
}

static void wrong_arrays_are_named(void **state)
{
    static const float action[2][7] = {{.1f}, {NAN}};
    static const uint8_t image[3 * 16 * 16 * 3];
    const char *path = scratch_at("wrong.npz");
    struct error error = {0};
    struct npz npz;

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(npz_create(path, &npz, &error), 0);
        assert_int_equal(npz_add(&npz, "action", "<f4", (size_t[]){2, 7}, 2, action, &error), 0);
        if (i)
            assert_int_equal(npz_add(&npz, "image", "|u1", (size_t[]){i == 1 ? 3 : 2, 16, 16, 3}, 4, image, &error), 0);
        assert_int_equal(npz_add_text(&npz, "instruction", "öffne die Schublade", &error), 0);
        assert_int_equal(npz_close(&npz, &error), 0);
        import_refused("npz", path, NULL,
                i == 0   ? "wrong.npz: "
                : i == 1 ? "wrong.npz: image: expected u8 of shape [2,height,width,3]"
                         : "wrong.npz: action of step 1: number 0 is nan");
    }
    import_refused("npz", scratch_at("nothing"), NULL, "No such file");
    import_refused("parquet", IMPORT_SET, &(struct import_options){.format = "parquet", .chain = "render", .name = "x"},
            "there is no format 'parquet'");
}

/* What no policy can hold would be refused by its sft only, hours later. */
static void more_numbers_than_a_policy_has(void **state)
{
    static const struct { size_t action, state; const char *said; } cases[] = {
        {IMPORT_MAX_ACTION, IMPORT_MAX_STATE, NULL},
        {IMPORT_MAX_ACTION + 1, 2, "wide.npz: actions of 17 numbers, policies have at most 16: --action names another field"},
        {7, IMPORT_MAX_STATE + 1,
         "wide.npz: a state of 33 numbers, policies take at most 32: --state names another field, or none"},
    };
    static const float numbers[2 * 64] = {.5f, .25f};
    static const uint8_t image[2 * IMPORT_PICTURE];
    const char *path = scratch_at("wide.npz");
    struct error error = {0};
    struct npz npz;

    (void)state;
    assert_int_equal(IMPORT_MAX_ACTION, OPENVLA_MAX_ACTION_DIMS);
    assert_int_equal(IMPORT_MAX_STATE, OPENVLA_MAX_PROPRIO);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(npz_create(path, &npz, &error), 0);
        assert_int_equal(npz_add(&npz, "action", "<f4", (size_t[]){2, cases[i].action}, 2, numbers, &error), 0);
        assert_int_equal(npz_add(&npz, "state", "<f4", (size_t[]){2, cases[i].state}, 2, numbers, &error), 0);
        assert_int_equal(npz_add(&npz, "image", "|u1", (size_t[]){2, IMPORT_SIDE, IMPORT_SIDE, 3}, 4, image, &error), 0);
        assert_int_equal(npz_add_text(&npz, "instruction", "pick up the bowl", &error), 0);
        assert_int_equal(npz_close(&npz, &error), 0);
        if (cases[i].said)
            import_refused("npz", path, NULL, cases[i].said);
        else
            dataset_close(import_into(scratch_at("as-wide-as-may-be"), "npz", path, NULL));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damaged_records_are_named, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(damaged_hdf5_is_named, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(text_cut_inside_a_character, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(wrong_arrays_are_named, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(more_numbers_than_a_policy_has, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
