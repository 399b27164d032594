/* Qwen's picture sizes and patches: a table of the original's sizes; every size, picture and pixel value of the goldens. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/strbuf.h"
#include "image/smart_resize.h"
#include "nn/hf.h"

enum { FACTOR = 28, PATCH = 14, MERGE = 2 };

static const double clip_mean[3] = {0.48145466, 0.4578275, 0.40821073}, clip_std[3] = {0.26862954, 0.26130258, 0.27577711};

static const char *goldens(void)
{
    const char *dir = getenv("GANTRY_GOLDENS");

    if (!dir) {
        print_message("GANTRY_GOLDENS is not set: no reference pictures\n");
        skip();
    }
    return dir;
}

static void test_sizes(void **state)
{
    static const struct {
        int h, w;
        int64_t max;
        int want_h, want_w;
    } cases[] = {
        {70, 70, 28224, 56, 56} /* 2.5 rounds to even */,
        {126, 70, 28224, 112, 56},
        {98, 98, 28224, 112, 112},
        {200, 170, 28224, 168, 140},
        {480, 640, 12845056, 476, 644},
        {30, 40, 28224, 56, 84},
        {4032, 3024, 1003520, 1148, 840},
        {28, 1400, 28224, 0, 0} /* a side would vanish */,
        {27, 100, 28224, 0, 0},
        {28, 5628, 28224, 0, 0} /* 201:1 */,
        {0, 28, 28224, 0, 0},
        {28, 28, 100, 0, 0} /* limits the wrong way round */,
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct error error = {0};
        int h = 0, w = 0, r = image_smart_resize(cases[i].h, cases[i].w, FACTOR, 3136, cases[i].max, &h, &w, &error);

        assert_int_equal(r, cases[i].want_h ? 0 : -EINVAL);
        assert_int_equal(h, cases[i].want_h);
        assert_int_equal(w, cases[i].want_w);
        assert_int_equal(!error.text[0], r == 0);
    }
}

static void test_sizes_of_the_original(void **state)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    _cleanup_json_ json_t *list = NULL;

    (void)state;
    strbuf_addf(&path, "%s/prm/common/smart_resize.json", goldens());
    list = json_load_file(path.text, 0, NULL);
    assert_true(json_array_size(list) > 0);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i), *result = json_object_get(e, "result");
        int want_h = (int)json_integer_value(json_array_get(result, 0)),
            want_w = (int)json_integer_value(json_array_get(result, 1));
        int h = 0, w = 0;
        int r =
            image_smart_resize((int)json_integer_value(json_object_get(e, "h")), (int)json_integer_value(json_object_get(e, "w")),
                               FACTOR, json_integer_value(json_object_get(e, "min_pixels")),
                               json_integer_value(json_object_get(e, "max_pixels")), &h, &w, NULL);

        if (!json_is_array(result) || want_h == 0 || want_w == 0) {
            assert_int_equal(r, -EINVAL);
            continue;
        }
        assert_int_equal(r, 0);
        assert_int_equal(h, want_h);
        assert_int_equal(w, want_w);
    }
}

static void test_merge_order(void **state)
{
    static const int32_t want[] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
    int32_t order[16];

    (void)state;
    assert_int_equal(image_merge_order(4, 4, 2, order), 0);
    assert_memory_equal(order, want, sizeof(want));
    assert_int_equal(image_merge_order(3, 4, 2, order), -EINVAL);
}

/* Every resized.NAME beside its source.NAME. */
static void check_resized(const struct safetensors *file)
{
    for (int i = 0; i < file->count; i++) {
        const struct st_tensor *out = &file->list[i], *in;
        _cleanup_(strbuf_release) struct strbuf name = STRBUF_INIT;
        _cleanup_free_ uint8_t *rgb = NULL;

        if (strncmp(out->name, "resized.", 8) != 0)
            continue;
        strbuf_addf(&name, "source.%s", out->name + 8);
        in = safetensors_find(file, name.text);
        assert_non_null(in);
        rgb = malloc(out->bytes);
        assert_int_equal(
            image_resize_bicubic(in->data, (int)in->dim[0], (int)in->dim[1], (int)out->dim[0], (int)out->dim[1], rgb), 0);
        assert_memory_equal(rgb, out->data, out->bytes);
    }
}

static struct safetensors *open_common(const char *name)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    struct safetensors *file = NULL;
    struct error error = {0};

    strbuf_addf(&path, "%s/prm/common/%s", goldens(), name);
    if (safetensors_open(path.text, &file, &error) < 0)
        fail_msg("%s", error.text);
    return file;
}

static void test_pictures_of_the_original(void **state)
{
    _cleanup_(safetensors_closep) struct safetensors *images = NULL, *extra = NULL;
    const struct st_tensor *want, *grid;
    float lut[3][256];
    int64_t row = 0;

    (void)state;
    images = open_common("images.safetensors");
    extra = open_common("resize_extra.safetensors");
    check_resized(images);
    check_resized(extra);
    want = safetensors_find(images, "pixel_values_half");
    grid = safetensors_find(images, "image_grid_thw");
    image_qwen_lut(clip_mean, clip_std, lut);
    for (int64_t i = 0; i < grid->dim[0]; i++) {
        const int32_t *thw = (const int32_t *)grid->data + 3 * i;
        size_t n = (size_t)thw[1] * (size_t)thw[2] * 3 * PATCH * PATCH;
        _cleanup_free_ float *values = calloc(n, sizeof(*values));
        const struct st_tensor *resized;
        char name[32];

        snprintf(name, sizeof(name), "resized.%02d", (int)i);
        resized = safetensors_find(images, name);
        assert_int_equal(image_qwen_patches(resized->data, thw[1] * PATCH, thw[2] * PATCH, PATCH, MERGE, lut, values), 0);
        assert_memory_equal(values, (const float *)want->data + row * want->dim[1], n * sizeof(*values));
        row += (int64_t)thw[1] * thw[2];
    }
    assert_int_equal(row, want->dim[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_sizes_of_the_original),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_pictures_of_the_original),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
