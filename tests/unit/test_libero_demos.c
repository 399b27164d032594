/* Files of LIBERO's demonstrations as they are about: with other attributes, played again and so without any, of the other
 * picture convention, with long names; and those that cannot be taken, in words that say what to do. Each is a changed copy of
 * tests/golden/import/hdf5. */
#include <errno.h>
#define H5_USE_110_API 1
#include <hdf5.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "data/libero_instruction.h"
#include "data/source.h"
#include "tests/harness/scratch.h"

#define GOLDEN "tests/golden/import/hdf5/pick_up_the_bowl_demo.hdf5"
enum { STEPS = 9, SIDE = 16, ROW = SIDE * 3, PICTURE = SIDE * ROW };

static char path[SCRATCH_PATH + 300];

/* A copy under that name, open for changes; its group data. The caller closes both. */
static hid_t copy_as(const char *name, hid_t *ret_data)
{
    _cleanup_free_ char *bytes = NULL;
    size_t n;
    hid_t file;

    snprintf(path, sizeof path, "%s/%s", scratch_dir, name);
    assert_int_equal(file_read(GOLDEN, 1 << 20, &bytes, &n), 0);
    assert_int_equal(file_write(path, bytes, n), 0);
    file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    *ret_data = H5Gopen2(file, "data", H5P_DEFAULT);
    assert_true(*ret_data >= 0);
    return file;
}

static void set_text(hid_t object, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR), id;

    H5Tset_size(type, strlen(text) + 1);
    id = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0 && H5Awrite(id, type, text) >= 0);
    H5Aclose(id);
    H5Sclose(space);
    H5Tclose(type);
}

/* The first camera of demo_0, as numbers of that type in the file. */
static void set_pictures(hid_t data, hid_t type, const uint8_t *bytes)
{
    static const char *const name = "demo_0/obs/agentview_rgb";
    hid_t space = H5Screate_simple(4, (hsize_t[]){STEPS, SIDE, SIDE, 3}, NULL), id;

    assert_true(H5Ldelete(data, name, H5P_DEFAULT) >= 0);
    id = H5Dcreate2(data, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0 && H5Dwrite(id, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) >= 0);
    H5Dclose(id);
    H5Sclose(space);
}

static void first_of(const char *from, struct source_episode *ret)
{
    _cleanup_(source_closep) struct source *source = NULL;
    struct error error = {0};

    if (source_open("libero-hdf5", from, NULL, &source, &error) < 0 || source_next(source, ret, &error) != 1)
        fail_msg("%s", error.text);
}

static void refused(const char *from, const char *what)
{
    _cleanup_(source_closep) struct source *source = NULL;
    struct source_episode episode;
    struct error error = {0};

    if (source_open("libero-hdf5", from, NULL, &source, &error) >= 0)
        assert_true(source_next(source, &episode, &error) < 0);
    if (!strstr(error.text, what))
        fail_msg("%s\nexpected: %s", error.text, what);
}

static void instruction_is_what_the_file_says(void **state)
{
    static const char *const cases[][3] = {
        {"{\"language_instruction\": \"turn on the stove\"}", "x", "turn on the stove"},
        {"{\"language_instruction\": \"\\\"turn on the stove\\\"\"}", "x", "turn on the stove"},
        {"{\"language_instruction\": [\"\\\"\", \"o\", \"n\", \"\\\"\"]}", "x", "on"},
        {"", "turn_on_the_stove", "turn on the stove"},
        {"{}", "KITCHEN_SCENE3_turn_on_the_stove", "turn on the stove"},
        {"no JSON", "LIVING_ROOM_SCENE10_put_both_in_the_basket", "put both in the basket"},
        {"", "KITCHEN_SCENE3", "KITCHEN SCENE3"}};
    char text[32] = "as before";

    (void)state;
    assert_int_equal(libero_instruction("", "a_name_of_more_than_thirty-one_bytes", text, sizeof text), -ENAMETOOLONG);
    assert_string_equal(text, "as before");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(libero_instruction(cases[i][0], cases[i][1], text, sizeof text), 0);
        assert_string_equal(text, cases[i][2]);
    }
}

/* What OpenVLA's script writes when it plays LIBERO's demonstrations again: no attributes. */
static void without_attributes_the_name_says_it(void **state)
{
    static const char *const task = "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket";
    struct source_episode e;
    char name[128];
    hid_t data, file;

    (void)state;
    snprintf(name, sizeof name, "%s_demo.hdf5", task);
    file = copy_as(name, &data);
    assert_true(H5Adelete(data, "problem_info") >= 0);
    H5Gclose(data);
    H5Fclose(file);
    first_of(path, &e);
    assert_string_equal(e.task, task);
    assert_string_equal(e.instruction, "put both the alphabet soup and the tomato sauce in the basket");
    source_episode_release(&e);
}

static void a_name_is_cut_between_characters(void **state)
{
    struct source_episode e = {0};
    char text[EPISODE_TASK_MAX + 8];

    (void)state;
    memset(text, 'a', sizeof text);
    memcpy(text + EPISODE_TASK_MAX - 2, "\xc3\xbc ", 4);        /* the last byte that has room is the first of two */
    source_name_task(&e, text);
    assert_int_equal(strlen(e.task), EPISODE_TASK_MAX - 2);
    memcpy(text + EPISODE_TASK_MAX - 3, "\xc3\xbc b", 5);       /* both have room */
    source_name_task(&e, text);
    assert_int_equal(strlen(e.task), EPISODE_TASK_MAX - 1);
    source_name_task(&e, "two words");
    assert_string_equal(e.task, "two_words");
}

/* The same pictures, written with the top row first and said so, are the same pictures. */
static void either_picture_convention(void **state)
{
    struct source_episode here, there;
    uint8_t *turned = malloc(STEPS * PICTURE);
    hid_t data, file;

    (void)state;
    first_of(GOLDEN, &here);
    assert_int_equal(here.steps, STEPS);
    for (int t = 0; t < STEPS; t++)
        for (int y = 0; y < SIDE; y++)
            memcpy(turned + t * PICTURE + (SIDE - 1 - y) * ROW, here.pictures[t * here.cameras].rgb + y * ROW, ROW);
    file = copy_as("a_demo.hdf5", &data);
    set_pictures(data, H5T_STD_U8LE, turned);
    set_text(data, "macros_image_convention", "opencv");
    H5Gclose(data);
    H5Fclose(file);
    first_of(path, &there);
    for (int t = 0; t < STEPS; t++)
        assert_memory_equal(here.pictures[t * here.cameras].rgb, there.pictures[t * there.cameras].rgb, PICTURE);
    source_episode_release(&here);
    source_episode_release(&there);
    free(turned);
}

/* An episode that was begun and never stepped is one of no steps, not a fault of the file. */
static void without_steps_is_no_fault(void **state)
{
    static const char *const name = "demo_0/actions";
    hid_t data, file = copy_as("a_demo.hdf5", &data), space = H5Screate_simple(2, (hsize_t[]){0, 7}, NULL), id;
    struct source_episode e;

    (void)state;
    assert_true(H5Ldelete(data, name, H5P_DEFAULT) >= 0);
    id = H5Dcreate2(data, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(id >= 0);
    H5Dclose(id);
    H5Sclose(space);
    H5Gclose(data);
    H5Fclose(file);
    first_of(path, &e);
    assert_int_equal(e.steps, 0);
    assert_non_null(strstr(e.where, "a_demo.hdf5: data/demo_0"));
    source_episode_release(&e);
}

static void what_cannot_be_taken_says_why(void **state)
{
    uint8_t *black = calloc(STEPS, PICTURE);
    _cleanup_free_ char *bytes = NULL;
    hid_t data, file;
    size_t n;

    (void)state;
    file = copy_as("float_demo.hdf5", &data);
    set_pictures(data, H5T_IEEE_F32LE, black);
    H5Gclose(data);
    H5Fclose(file);
    refused(path, "agentview_rgb: expected pictures of bytes, 0 to 255, not of other numbers");
    file = copy_as("wrist_demo.hdf5", &data);
    assert_true(H5Ldelete(data, "demo_0/obs/eye_in_hand_rgb", H5P_DEFAULT) >= 0);
    H5Gclose(data);
    H5Fclose(file);
    refused(path, "no dataset data/demo_0/obs/eye_in_hand_rgb: --images names the cameras");
    file = copy_as("state_demo.hdf5", &data);
    assert_true(H5Ldelete(data, "demo_0/obs/gripper_states", H5P_DEFAULT) >= 0);
    H5Gclose(data);
    H5Fclose(file);
    refused(path, "no dataset data/demo_0/obs/gripper_states: --state names other fields, or none");
    assert_int_equal(file_read(GOLDEN, 1 << 20, &bytes, &n), 0);
    assert_int_equal(file_write(path, bytes, n / 2), 0);
    refused(path, "no HDF5 file: truncated file");
    free(black);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instruction_is_what_the_file_says),
        cmocka_unit_test_setup_teardown(without_attributes_the_name_says_it, scratch_set_up, scratch_tear_down),
        cmocka_unit_test(a_name_is_cut_between_characters),
        cmocka_unit_test_setup_teardown(either_picture_convention, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(without_steps_is_no_fault, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_taken_says_why, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
