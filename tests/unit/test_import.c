/* Demonstrations of others: the same two from LIBERO's HDF5, RLDS and npz become the same data set, with numpy's statistics; out
 * and in again it is the same to the byte; what fields are called is said. What is refused: test_import_refused.c. */
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
#include "data/tf_example.h"
#include "image/tf_image.h"
#include "tests/harness/import_lab.h"
#include "tests/harness/scratch.h"

enum { STEPS = 13 };

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
    json_t *want = json_load_file(IMPORT_SET "/expected.json", 0, NULL), *got, *mine;

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
static void drawn(int t, bool wrist, uint8_t ret[IMPORT_PICTURE])
{
    for (int i = 0; i < IMPORT_SIDE * IMPORT_SIDE; i++) {
        int x = i % IMPORT_SIDE, y = wrist ? IMPORT_SIDE - 1 - i / IMPORT_SIDE : i / IMPORT_SIDE;
        uint8_t c[3] = {(uint8_t)(x * 7 + t * 5), (uint8_t)(y * 7), (uint8_t)(x + y + t * 9)};

        for (int k = 0; k < 3; k++)
            ret[3 * i + (wrist ? 2 - k : k)] = c[k];
    }
}

static void check_pictures(const struct dataset_dir *dir, bool camera)
{
    static const int kept[] = {0, 1, 4, 5, 6, 7, 8, 8}; /* the steps that do something, and the last one again */
    Gantry__Trajectory *t = NULL;
    uint8_t *frames = NULL, plain[IMPORT_PICTURE], want[IMPORT_PICTURE];
    size_t n;

    assert_int_equal(dataset_get(dir, 0, &t, &frames, &n, NULL), 0);
    assert_int_equal(n, 8 * 2 * IMPORT_PICTURE);
    for (int i = 0; i < 8; i++)
        for (int wrist = 0; wrist < 2; wrist++) {
            drawn(kept[i], wrist, plain);
            memcpy(want, plain, IMPORT_PICTURE);
            if (camera)
                assert_int_equal(tf_evaluation_picture(plain, IMPORT_SIDE, IMPORT_SIDE, IMPORT_SIDE, IMPORT_SIDE, want), 0);
            assert_memory_equal(frames + (2 * i + wrist) * IMPORT_PICTURE, want, IMPORT_PICTURE);
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
        {"libero-hdf5", IMPORT_SET "/hdf5", true, 1e-12},
        {"rlds", IMPORT_SET "/rlds", false, 1e-6},
        {"npz", IMPORT_SET "/npz", false, 1e-12},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *to = scratch_at(cases[i].format);
        struct dataset_dir *dir = import_into(to, cases[i].format, cases[i].from, NULL);

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
    struct dataset_dir *first = import_into(scratch_at("first"), "libero-hdf5", IMPORT_SET "/hdf5", NULL), *second;
    struct import_options back = import_options_of("npz");
    uint8_t digest[2][SHA256_SIZE];
    struct export_result result;
    struct error error = {0};

    (void)state;
    if (dataset_export(first->journal, first->entries, 2, scratch_at("out"), &(struct export_options){0}, &result, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(result.episodes, 2);
    assert_int_equal(result.steps, STEPS);
    back.chain = TF_EVALUATION_CHAIN;
    second = import_into(scratch_at("second"), "npz", scratch_at("out"), &back);
    dataset_digest(first, digest[0]);
    dataset_digest(second, digest[1]);
    assert_memory_equal(digest[0], digest[1], SHA256_SIZE);
    dataset_close(first);
    dataset_close(second);
}

static void other_sizes_are_resized_or_refused(void **state)
{
    struct import_options o = import_options_of("npz");
    struct dataset_info info;
    struct error error = {0};
    uint8_t plain[IMPORT_PICTURE], want[12 * 12 * 3], *frames;
    Gantry__Trajectory *t;
    struct dataset_dir *dir;
    size_t n;

    (void)state;
    o.size = 12;
    assert_int_equal(dataset_import(IMPORT_SET "/npz", scratch_at("refused"), &o, &info, &error), -EINVAL);
    assert_non_null(strstr(error.text, "episode_0.npz: camera 0: pictures of 16x16, wanted 12x12; the chain render resizes where "
                                       "--size"));
    assert_int_not_equal(access(scratch_at("refused"), F_OK), 0); /* nothing is left behind */
    o.chain = "plain";
    o.resize = true;
    import_refused("npz", IMPORT_SET "/npz", &o, "the chain plain does not resize");
    drawn(1, false, plain);
    for (int lanczos = 0; lanczos < 2; lanczos++) { /* render: as the suite remote does it with what a simulator shows */
        o.chain = lanczos ? CHAIN_LANCZOS : "render";
        dir = import_into(scratch_at(lanczos ? "lanczos" : "bicubic"), "npz", IMPORT_SET "/npz", &o);
        assert_int_equal(dataset_get(dir, 0, &t, &frames, &n, NULL), 0);
        assert_int_equal(lanczos ? tf_resize_lanczos3(plain, IMPORT_SIDE, IMPORT_SIDE, 12, 12, want)
                                 : image_resize_bicubic(plain, IMPORT_SIDE, IMPORT_SIDE, 12, 12, want), 0);
        assert_memory_equal(frames + 2 * sizeof want, want, sizeof want);
        gantry__trajectory__free_unpacked(t, NULL);
        free(frames);
        dataset_close(dir);
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
    static const uint8_t black[IMPORT_PICTURE];
    _cleanup_free_ uint8_t *png = NULL;
    struct strbuf features = STRBUF_INIT, example = STRBUF_INIT;
    uint64_t length;
    float *all = calloc((size_t)steps + 1, sizeof action);
    size_t n;

    assert_int_equal(image_encode_png(black, IMPORT_SIDE, IMPORT_SIDE, &png, &n), 0);
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
    static const uint8_t image[2 * IMPORT_PICTURE];
    struct error error = {0};
    struct npz npz;

    assert_int_equal(npz_create(path, &npz, &error), 0);
    assert_int_equal(npz_add(&npz, "action", "<f4", (size_t[]){steps, 7}, 2, action, &error), 0);
    assert_int_equal(npz_add(&npz, "image", "|u1", (size_t[]){steps, IMPORT_SIDE, IMPORT_SIDE, 3}, 4, image, &error), 0);
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
    struct import_options rlds = import_options_of("rlds"), npz = import_options_of("npz");
    struct dataset_dir *dir;

    (void)state;
    put_record(&records, 0, "steps/language_instruction");
    put_record(&records, 2, "steps/language_instruction");
    put_record(&records, 0, "steps/language_instruction");
    assert_int_equal(file_write(scratch_at("a.tfrecord"), records.text, records.length), 0);
    put_npz(scratch_at("1.npz"), 2, "instruction");
    put_npz(scratch_at("2.npz"), 0, "instruction");
    rlds.left_out = npz.left_out = note;
    rlds.arg = npz.arg = &said;

    dir = import_into(scratch_at("from-rlds"), "rlds", scratch_dir, &rlds);
    assert_int_equal(dir->info.episodes, 1);
    assert_int_equal(dir->info.empty, 2);
    assert_non_null(strstr(said.text, "a.tfrecord: episode 0\n"));
    assert_non_null(strstr(said.text, "a.tfrecord: episode 2\n"));
    dataset_close(dir);

    strbuf_reset(&said);
    dir = import_into(scratch_at("from-npz"), "npz", scratch_dir, &npz);
    assert_int_equal(dir->info.episodes, 1);
    assert_int_equal(dir->info.empty, 1);
    assert_int_equal(strcmp(said.text + said.length - strlen("/2.npz\n"), "/2.npz\n"), 0);
    dataset_close(dir);

    import_refused("npz", scratch_at("2.npz"), NULL,
                   "of 1 episodes none is left: 0 did not succeed or did nothing, 1 have no steps");
    strbuf_release(&records);
    strbuf_release(&said);
}

static void instruction_of_another_field(void **state)
{
    struct strbuf records = STRBUF_INIT;
    struct import_options o = import_options_of("rlds");

    (void)state;
    put_record(&records, 2, "steps/observation/natural_language_instruction");
    assert_int_equal(file_write(scratch_at("a.tfrecord"), records.text, records.length), 0);
    put_npz(scratch_at("1.npz"), 2, "natural_language_instruction");
    import_refused("rlds", scratch_dir, NULL,
                   "episode 0: no feature language_instruction (--images, --action, --state, --instruction name");
    for (int i = 0; i < 2; i++) {
        const char *format = i ? "npz" : "rlds";
        Gantry__Trajectory *t;
        struct dataset_dir *dir;

        o = import_options_of(format);
        o.source.instruction = "natural_language_instruction";
        dir = import_into(scratch_at(i ? "from-npz" : "from-rlds"), format, scratch_dir, &o);
        assert_int_equal(dataset_get(dir, 0, &t, NULL, NULL, NULL), 0);
        assert_string_equal(t->instruction, "go there");
        gantry__trajectory__free_unpacked(t, NULL);
        dataset_close(dir);
    }
    o = import_options_of("libero-hdf5");
    o.source.instruction = "text";
    import_refused("libero-hdf5", IMPORT_SET "/hdf5", &o, "--instruction names none");
    strbuf_release(&records);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(three_formats_one_data_set, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(out_and_in_again_is_the_same, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(other_sizes_are_resized_or_refused, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(without_steps_is_left_out_and_told, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(instruction_of_another_field, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
