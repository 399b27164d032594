/* Demonstrations of others: the same two from LIBERO's HDF5, RLDS and npz become the same data set, with numpy's statistics; out
 * and in again it is the same to the byte; bad files get one line that names file, episode and field. tests/golden/import is made
 * by tests/ref/make_import_data.py. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/crc32c.h"
#include "base/npz_write.h"
#include "base/strbuf.h"
#include "data/export.h"
#include "data/import.h"
#include "data/tf_example.h"
#include "image/tf_image.h"
#include "nn/models/openvla.h"
#include "tests/harness/scratch.h"

#define SET "tests/golden/import"
enum { SIDE = 16, PICTURE = SIDE * SIDE * 3, STEPS = 13 };

static const char *in_root(const char *name)
{
    static char path[64][256];
    static int turn;
    char *ret = path[turn++ % 64];

    snprintf(ret, sizeof path[0], "%s/%s", scratch_dir, name);
    return ret;
}

static struct import_options options_of(const char *format)
{
    struct import_options o;

    assert_int_equal(import_defaults(format, &o, NULL), 0);
    o.name = "libero";
    o.size = SIDE;
    o.drop_no_ops = true;
    o.gripper = GRIPPER_LIBERO;
    return o;
}

static struct dataset_dir *import(const char *format, const char *from, const char *to, const struct import_options *o)
{
    struct import_options own = o ? *o : options_of(format);
    struct dataset_dir *dir = NULL;
    struct dataset_info info;
    struct error error = {0};

    if (dataset_import(from, to, &own, &info, &error) < 0 || dataset_open(to, &dir, &error) < 0)
        fail_msg("%s", error.text);
    return dir;
}

/* ---- numbers and pictures ---------------------------------------------------------------------------- */

static void compare_figures(const json_t *want, const json_t *got, double tolerance)
{
    const char *key;
    json_t *list;

    json_object_foreach((json_t *)want, key, list) for (size_t i = 0; i < json_array_size(list); i++)
    {
        const json_t *a = json_array_get(list, i), *b = json_array_get(json_object_get(got, key), i);

        assert_non_null(b);
        if (json_is_boolean(a) ? json_typeof(a) != json_typeof(b) : fabs(json_number_value(a) - json_number_value(b)) > tolerance)
            fail_msg("%s[%zu]: %g, numpy says %g", key, i, json_number_value(b), json_number_value(a));
    }
}

static void check_statistics(const char *dir, double tolerance)
{
    char path[300];
    json_t *want = json_load_file(SET "/expected.json", 0, NULL), *got, *mine;

    snprintf(path, sizeof path, "%s/dataset_statistics.json", dir);
    got = json_load_file(path, 0, NULL);
    mine = json_object_get(got, "libero");
    assert_non_null(mine);
    compare_figures(json_object_get(want, "action"), json_object_get(mine, "action"), tolerance);
    compare_figures(json_object_get(want, "proprio"), json_object_get(mine, "proprio"), tolerance);
    assert_int_equal(json_integer_value(json_object_get(mine, "num_transitions")), STEPS);
    assert_int_equal(json_integer_value(json_object_get(mine, "num_trajectories")), 2);
    json_decref(want);
    json_decref(got);
}

/* make_import_data.py's picture of demonstration 0. */
static void drawn(int t, bool wrist, uint8_t ret[PICTURE])
{
    for (int i = 0; i < SIDE * SIDE; i++) {
        int x = i % SIDE, y = wrist ? SIDE - 1 - i / SIDE : i / SIDE;
        uint8_t c[3] = {(uint8_t)(x * 7 + t * 5), (uint8_t)(y * 7), (uint8_t)(x + y + t * 9)};

        for (int k = 0; k < 3; k++)
            ret[3 * i + (wrist ? 2 - k : k)] = c[k];
    }
}

static void check_pictures(const struct dataset_dir *dir, bool camera)
{
    static const int kept[] = {0, 1, 4, 5, 6, 7, 8, 8}; /* the steps that do something, and the last one again */
    Gantry__Trajectory *t = NULL;
    uint8_t *frames = NULL, plain[PICTURE], want[PICTURE];
    size_t n;

    assert_int_equal(dataset_get(dir, 0, &t, &frames, &n, NULL), 0);
    assert_int_equal(n, 8 * 2 * PICTURE);
    for (int i = 0; i < 8; i++)
        for (int wrist = 0; wrist < 2; wrist++) {
            drawn(kept[i], wrist, plain);
            memcpy(want, plain, PICTURE);
            if (camera)
                assert_int_equal(tf_evaluation_picture(plain, SIDE, SIDE, SIDE, SIDE, want), 0);
            assert_memory_equal(frames + (2 * i + wrist) * PICTURE, want, PICTURE);
        }
    assert_string_equal(t->instruction, "pick up the bowl");
    assert_string_equal(t->task, "pick_up_the_bowl");
    assert_int_equal(t->steps, 7);
    assert_true(t->success && t->label_units && t->purpose == GANTRY__PURPOSE__PURPOSE_DEMO);
    assert_true(t->action[6] == -1 && t->label[6] == 1); /* open */
    assert_true(t->action[6 * 7 + 6] == 1 && t->label[6 * 7 + 6] == 0);
    gantry__trajectory__free_unpacked(t, NULL);
    free(frames);
}

static void three_formats_one_data_set(void **state)
{
    static const struct {
        const char *format, *from;
        bool camera;
        double tolerance;
    } cases[] = {
        {"libero-hdf5", SET "/hdf5", true, 1e-12},
        {"rlds", SET "/rlds", false, 1e-6},
        {"npz", SET "/npz", false, 1e-12},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *to = in_root(cases[i].format);
        struct dataset_dir *dir = import(cases[i].format, cases[i].from, to, NULL);

        assert_int_equal(dir->info.episodes, 2);
        assert_int_equal(dir->info.steps, STEPS);
        assert_int_equal(dir->info.no_ops, 2);
        assert_int_equal(dir->info.failed, 1);
        assert_int_equal(dir->info.cameras, 2);
        assert_int_equal(dir->info.state, 8);
        check_statistics(to, cases[i].tolerance);
        check_pictures(dir, cases[i].camera);
        dataset_close(dir);
    }
}

static void out_and_in_again_is_the_same(void **state)
{
    struct dataset_dir *first = import("libero-hdf5", SET "/hdf5", in_root("first"), NULL), *second;
    struct import_options back = options_of("npz");
    uint8_t digest[2][SHA256_SIZE];
    struct export_result result;
    struct error error = {0};

    (void)state;
    if (dataset_export(first->journal, first->entries, 2, in_root("out"), &(struct export_options){0}, &result, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(result.episodes, 2);
    assert_int_equal(result.steps, STEPS);
    back.chain = TF_EVALUATION_CHAIN;
    second = import("npz", in_root("out"), in_root("second"), &back);
    dataset_digest(first, digest[0]);
    dataset_digest(second, digest[1]);
    assert_memory_equal(digest[0], digest[1], SHA256_SIZE);
    dataset_close(first);
    dataset_close(second);
}

static void refused(const char *format, const char *from, const struct import_options *o, const char *what);

static void other_sizes_are_resized_or_refused(void **state)
{
    struct import_options o = options_of("npz");
    struct dataset_info info;
    struct error error = {0};
    uint8_t plain[PICTURE], want[12 * 12 * 3], *frames;
    Gantry__Trajectory *t;
    struct dataset_dir *dir;
    size_t n;

    (void)state;
    o.size = 12;
    assert_int_equal(dataset_import(SET "/npz", in_root("refused"), &o, &info, &error), -EINVAL);
    assert_non_null(strstr(error.text, "episode_0.npz: camera 0: pictures of 16x16, wanted 12x12; the chain render resizes where --size"));
    assert_int_not_equal(access(in_root("refused"), F_OK), 0); /* nothing is left behind */
    o.chain = "plain";
    o.resize = true;
    refused("npz", SET "/npz", &o, "the chain plain does not resize");
    drawn(1, false, plain);
    for (int lanczos = 0; lanczos < 2; lanczos++) { /* render: as the suite remote does it with what a simulator shows */
        o.chain = lanczos ? CHAIN_LANCZOS : "render";
        dir = import("npz", SET "/npz", in_root(lanczos ? "lanczos" : "bicubic"), &o);
        assert_int_equal(dataset_get(dir, 0, &t, &frames, &n, NULL), 0);
        assert_int_equal(lanczos ? tf_resize_lanczos3(plain, SIDE, SIDE, 12, 12, want)
                                 : image_resize_bicubic(plain, SIDE, SIDE, 12, 12, want), 0);
        assert_memory_equal(frames + 2 * sizeof want, want, sizeof want);
        gantry__trajectory__free_unpacked(t, NULL);
        free(frames);
        dataset_close(dir);
    }
}

/* ---- bad files ----------------------------------------------------------------------------------------- */

static void refused(const char *format, const char *from, const struct import_options *o, const char *what)
{
    struct import_options own = o ? *o : options_of(format);
    struct dataset_info info;
    struct error error = {0};

    assert_true(dataset_import(from, in_root("bad"), &own, &info, &error) < 0);
    if (!strstr(error.text, what))
        fail_msg("%s\nexpected: %s", error.text, what);
    assert_int_not_equal(access(in_root("bad"), F_OK), 0);
}

static void damaged_records_are_named(void **state)
{
    const char *path = in_root("bad.tfrecord");
    char *bytes;
    size_t n;
    struct import_options o = options_of("rlds");

    (void)state;
    assert_int_equal(file_read(SET "/rlds/bowl-train.tfrecord-00000-of-00001", 1 << 20, &bytes, &n), 0);
    bytes[200] ^= 1;
    assert_int_equal(file_write(path, bytes, n), 0);
    refused("rlds", path, NULL, "bad.tfrecord: the record at byte 0 has a wrong checksum");
    bytes[200] ^= 1;
    bytes[2] ^= 1;
    assert_int_equal(file_write(path, bytes, n), 0);
    refused("rlds", path, NULL, "a length with a wrong checksum");
    bytes[2] ^= 1;
    assert_int_equal(file_write(path, bytes, n - 5), 0);
    refused("rlds", path, NULL, "is cut short");
    assert_int_equal(file_write(path, bytes, n), 0);
    o.source.images = "front";
    refused("rlds", path, &o, "bad.tfrecord: episode 0: no feature front (--images, --action, --state, --instruction name "
                              "others); there are: steps/action, steps/observation/state");
    o.source.images = NULL;
    o.source.state = "language_instruction";
    refused("rlds", path, &o, "language_instruction: 9 byte strings, expected 1 numbers for each of 9 steps");
    free(bytes);
}

static void damaged_hdf5_is_named(void **state)
{
    const char *path = in_root("bad.hdf5");
    char *bytes;
    size_t n;
    struct import_options o = options_of("libero-hdf5");

    (void)state;
    assert_int_equal(file_read(SET "/hdf5/pick_up_the_bowl_demo.hdf5", 1 << 20, &bytes, &n), 0);
    assert_int_equal(file_write(path, bytes, n / 2), 0);
    refused("libero-hdf5", path, NULL, "bad.hdf5: ");
    refused("libero-hdf5", SET "/expected.json", NULL, "expected.json: no HDF5 file");
    o.source.images = "agentview_rgb,front_rgb";
    refused("libero-hdf5", SET "/hdf5", &o, "pick_up_the_bowl_demo.hdf5: data/demo_0: no dataset data/demo_0/obs/front_rgb");
    o.source.images = "ee_states";
    refused("libero-hdf5", SET "/hdf5", &o, "obs/ee_states: expected pictures of shape [9,height,width,3], not [9,6]");
    refused("libero-hdf5", scratch_dir, NULL, "bad.hdf5");
    free(bytes);
}

/* An instruction that was cut; nothing behind it is read (AddressSanitizer sees it). */
static void text_cut_inside_a_character(void **state)
{
    struct error error = {0};
    struct npz npz;

    (void)state;
    assert_int_equal(npz_create(in_root("cut.npz"), &npz, &error), 0);
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
    const char *path = in_root("wrong.npz");
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
        refused("npz", path, NULL,
                i == 0   ? "wrong.npz: "
                : i == 1 ? "wrong.npz: image: expected u8 of shape [2,height,width,3]"
                         : "wrong.npz: action of step 1: number 0 is nan");
    }
    refused("npz", in_root("nothing"), NULL, "No such file");
    refused("parquet", SET, &(struct import_options){.format = "parquet", .chain = "render", .name = "x"},
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
    static const uint8_t image[2 * PICTURE];
    const char *path = in_root("wide.npz");
    struct error error = {0};
    struct npz npz;

    (void)state;
    assert_int_equal(IMPORT_MAX_ACTION, OPENVLA_MAX_ACTION_DIMS);
    assert_int_equal(IMPORT_MAX_STATE, OPENVLA_MAX_PROPRIO);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(npz_create(path, &npz, &error), 0);
        assert_int_equal(npz_add(&npz, "action", "<f4", (size_t[]){2, cases[i].action}, 2, numbers, &error), 0);
        assert_int_equal(npz_add(&npz, "state", "<f4", (size_t[]){2, cases[i].state}, 2, numbers, &error), 0);
        assert_int_equal(npz_add(&npz, "image", "|u1", (size_t[]){2, SIDE, SIDE, 3}, 4, image, &error), 0);
        assert_int_equal(npz_add_text(&npz, "instruction", "pick up the bowl", &error), 0);
        assert_int_equal(npz_close(&npz, &error), 0);
        if (cases[i].said)
            refused("npz", path, NULL, cases[i].said);
        else
            dataset_close(import("npz", path, in_root("as-wide-as-may-be"), NULL));
    }
}

/* ---- episodes without steps, fields of other names ------------------------------------------------------ */

/* A field of a protobuf message whose value are bytes (fewer than 16384, numbered below 16). */
static void put_field(struct strbuf *out, int number, const void *bytes, size_t n)
{
    strbuf_addc(out, (char)(number << 3 | 2));
    strbuf_addc(out, (char)(0x80 | (n & 0x7f)));
    strbuf_addc(out, (char)(n >> 7));
    strbuf_add(out, bytes, n);
}

/* A feature of an Example: a list of kind TF_BYTES with n times `one`, or TF_FLOATS with it once, packed. */
static void put_feature(struct strbuf *features, const char *name, enum tf_kind kind, int n, const void *one, size_t size)
{
    struct strbuf list = STRBUF_INIT, feature = STRBUF_INIT, entry = STRBUF_INIT;

    for (int i = 0; i < n; i++)
        put_field(&list, 1, one, size);
    put_field(&feature, (int)kind, list.text, list.length);
    put_field(&entry, 1, name, strlen(name));
    put_field(&entry, 2, feature.text, feature.length);
    put_field(features, 1, entry.text, entry.length);
    strbuf_release(&list);
    strbuf_release(&feature);
    strbuf_release(&entry);
}

static void put_checked(struct strbuf *out, const void *bytes, size_t n)
{
    uint32_t crc = crc32c(0, bytes, n);

    crc = (crc >> 15 | crc << 17) + 0xa282ead8u;
    strbuf_add(out, bytes, n);
    strbuf_add(out, &crc, sizeof crc);
}

/* A record of an episode of so many equal steps. */
static void put_record(struct strbuf *out, int steps, const char *instruction_field)
{
    static const float action[7] = {.5f};
    static const uint8_t black[PICTURE];
    _cleanup_free_ uint8_t *png = NULL;
    struct strbuf features = STRBUF_INIT, example = STRBUF_INIT;
    uint64_t length;
    float *all = calloc((size_t)steps + 1, sizeof action);
    size_t n;

    assert_int_equal(image_encode_png(black, SIDE, SIDE, &png, &n), 0);
    for (int t = 0; t < steps; t++)
        memcpy(all + 7 * t, action, sizeof action);
    put_feature(&features, "steps/action", TF_FLOATS, steps > 0, all, (size_t)steps * sizeof action);
    put_feature(&features, "steps/observation/image", TF_BYTES, steps, png, n);
    put_feature(&features, instruction_field, TF_BYTES, steps, "go there", 8);
    put_field(&example, 1, features.text, features.length);
    length = example.length;
    put_checked(out, &length, sizeof length);
    put_checked(out, example.text, example.length);
    strbuf_release(&features);
    strbuf_release(&example);
    free(all);
}

static void put_npz(const char *path, size_t steps, const char *instruction_field)
{
    static const float action[2 * 7] = {.5f};
    static const uint8_t image[2 * PICTURE];
    struct error error = {0};
    struct npz npz;

    assert_int_equal(npz_create(path, &npz, &error), 0);
    assert_int_equal(npz_add(&npz, "action", "<f4", (size_t[]){steps, 7}, 2, action, &error), 0);
    assert_int_equal(npz_add(&npz, "image", "|u1", (size_t[]){steps, SIDE, SIDE, 3}, 4, image, &error), 0);
    assert_int_equal(npz_add_text(&npz, instruction_field, "go there", &error), 0);
    assert_int_equal(npz_close(&npz, &error), 0);
}

static void note(void *arg, const char *where)
{
    struct strbuf *said = arg;

    strbuf_addf(said, "%s\n", where);
}

static void without_steps_is_left_out_and_told(void **state)
{
    struct strbuf records = STRBUF_INIT, said = STRBUF_INIT;
    struct import_options rlds = options_of("rlds"), npz = options_of("npz");
    struct dataset_dir *dir;

    (void)state;
    put_record(&records, 0, "steps/language_instruction");
    put_record(&records, 2, "steps/language_instruction");
    put_record(&records, 0, "steps/language_instruction");
    assert_int_equal(file_write(in_root("a.tfrecord"), records.text, records.length), 0);
    put_npz(in_root("1.npz"), 2, "instruction");
    put_npz(in_root("2.npz"), 0, "instruction");
    rlds.left_out = npz.left_out = note;
    rlds.arg = npz.arg = &said;

    dir = import("rlds", scratch_dir, in_root("from-rlds"), &rlds);
    assert_int_equal(dir->info.episodes, 1);
    assert_int_equal(dir->info.empty, 2);
    assert_non_null(strstr(said.text, "a.tfrecord: episode 0\n"));
    assert_non_null(strstr(said.text, "a.tfrecord: episode 2\n"));
    dataset_close(dir);

    strbuf_reset(&said);
    dir = import("npz", scratch_dir, in_root("from-npz"), &npz);
    assert_int_equal(dir->info.episodes, 1);
    assert_int_equal(dir->info.empty, 1);
    assert_int_equal(strcmp(said.text + said.length - strlen("/2.npz\n"), "/2.npz\n"), 0);
    dataset_close(dir);

    refused("npz", in_root("2.npz"), NULL, "of 1 episodes none is left: 0 did not succeed or did nothing, 1 have no steps");
    strbuf_release(&records);
    strbuf_release(&said);
}

static void instruction_of_another_field(void **state)
{
    struct strbuf records = STRBUF_INIT;
    struct import_options o = options_of("rlds");

    (void)state;
    put_record(&records, 2, "steps/observation/natural_language_instruction");
    assert_int_equal(file_write(in_root("a.tfrecord"), records.text, records.length), 0);
    put_npz(in_root("1.npz"), 2, "natural_language_instruction");
    refused("rlds", scratch_dir, NULL, "episode 0: no feature language_instruction (--images, --action, --state, --instruction name");
    for (int i = 0; i < 2; i++) {
        const char *format = i ? "npz" : "rlds";
        Gantry__Trajectory *t;
        struct dataset_dir *dir;

        o = options_of(format);
        o.source.instruction = "natural_language_instruction";
        dir = import(format, scratch_dir, in_root(i ? "from-npz" : "from-rlds"), &o);
        assert_int_equal(dataset_get(dir, 0, &t, NULL, NULL, NULL), 0);
        assert_string_equal(t->instruction, "go there");
        gantry__trajectory__free_unpacked(t, NULL);
        dataset_close(dir);
    }
    o = options_of("libero-hdf5");
    o.source.instruction = "text";
    refused("libero-hdf5", SET "/hdf5", &o, "--instruction names none");
    strbuf_release(&records);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(three_formats_one_data_set, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(out_and_in_again_is_the_same, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(other_sizes_are_resized_or_refused, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(damaged_records_are_named, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(damaged_hdf5_is_named, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(text_cut_inside_a_character, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(wrong_arrays_are_named, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(more_numbers_than_a_policy_has, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(without_steps_is_left_out_and_told, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(instruction_of_another_field, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
