/* Bicubic resize against digests of Pillow 13.0.0's output on an arithmetic picture; resize strategies; random changes of
 * training; files there and back, and files that lie. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/sha256.h"
#include "image/augment.h"
#include "image/formula.h"
#include "image/prepare.h"
#include "tests/harness/scratch.h"

static void test_resize_equals_pillow(void **state)
{
    static const struct { int width, height, out_width, out_height; const char *in, *out; } cases[] = {
        {100, 130, 224, 224, "6baf42e7d8ebdde0aff7e15c0377965a6b873eee1c370761f9067f669b59e76f",
         "2d57dd7f84c0fdd7b6e280e32465acacc62dcac485698dde083f5084bca80169"},
        {200, 17, 64, 64, "6cfe4cb45c56c08db6548274eb76803b477473e5b48d23ceb2490a7cd00e08e5",
         "9b6b1aa8f65a8aee85d879688e2f0d9411c815d366c3c24d2571d5a1085c8cbc"},
        {33, 33, 64, 64, "802295319db979b83ac470a044c9cf6fd45a5a09acc33e91626b10d73e5c6b9e",
         "0c89110af6de279749bf365548c2bc2bd370cc479a0e7619424c43eb7cedf483"},
        {512, 512, 224, 224, "53c2f2af811c8a8f00470111f477c4865fb13c8faf977172252feb9595a1d078",
         "985d7e3265da0fc25cd485ad023212ba672af86be8ca80c55339e0c6f9264fdb"},
        {640, 480, 224, 224, "ad7e90928a31292ff306ebeb8e3d2dc54022cd366aed1245b8d5b8f438490f37",
         "de4476963c290412a5c3933b263d87d466218499859c723f2fe23e6fa265f7cb"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_free_ uint8_t *in = malloc((size_t)(cases[i].width * cases[i].height * 3));
        size_t n = (size_t)(cases[i].out_width * cases[i].out_height * 3);
        _cleanup_free_ uint8_t *out = malloc(n);
        uint8_t digest[SHA256_SIZE];
        char hex[SHA256_HEX];

        image_formula(cases[i].height, cases[i].width, in);
        sha256_of(in, (size_t)(cases[i].width * cases[i].height * 3), digest);
        sha256_hex(digest, hex);
        assert_string_equal(hex, cases[i].in);
        assert_int_equal(image_resize_bicubic(in, cases[i].height, cases[i].width, cases[i].out_height, cases[i].out_width, out),
                         0);
        sha256_of(out, n, digest);
        sha256_hex(digest, hex);
        assert_string_equal(hex, cases[i].out);
    }
}

static void test_same_size_is_a_copy(void **state)
{
    uint8_t in[5 * 7 * 3], out[sizeof(in)] = {0};

    (void)state;
    image_formula(5, 7, in);
    assert_int_equal(image_resize_bicubic(in, 5, 7, 5, 7, out), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(image_resize_bicubic(in, 0, 7, 5, 7, out), -EINVAL);
}

static void test_png_round_trip(void **state)
{
    char dir[SCRATCH_PATH], path[SCRATCH_PATH + 16];
    uint8_t rgb[9 * 13 * 3];
    struct image image = {0};
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    snprintf(path, sizeof path, "%s/picture.png", dir);
    image_formula(9, 13, rgb);
    assert_int_equal(image_write_png(path, rgb, 9, 13), 0);
    if (image_read(path, &image, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(image.height, 9);
    assert_int_equal(image.width, 13);
    assert_memory_equal(image.rgb, rgb, sizeof(rgb));
    free(image.rgb);

    assert_int_equal(truncate(path, 40), 0);        /* a torn file is an error with the path in it */
    assert_int_equal(image_read(path, &image, &error), -EINVAL);
    assert_non_null(strstr(error.text, path));
    assert_int_equal(remove_tree(dir), 0);
}

/* Width and height of a PNG are bytes 16 to 23, big-endian, under a checksum that no one looks at before the size. */
static void test_decode_refuses(void **state)
{
    static const struct { uint32_t width, height; const char *text; } sizes[] = {
        {0, 9, "p.png: "}, {20000, 9, "p.png: 20000x9 pixels"}, {9, 20000, "p.png: 9x20000 pixels"},
        {16384, 16384, "p.png: 16384x16384 pixels"},
    };
    uint8_t rgb[9 * 13 * 3];
    struct image image = {0};

    (void)state;
    image_formula(9, 13, rgb);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint32_t side[2] = {sizes[i].width, sizes[i].height}, crc = 0xffffffff;
        _cleanup_free_ uint8_t *bytes = NULL;
        struct error error = {0};
        size_t n;

        assert_int_equal(image_encode_png(rgb, 9, 13, &bytes, &n), 0);
        for (int k = 0; k < 8; k++)
            bytes[16 + k] = (uint8_t)(side[k / 4] >> (24 - 8 * (k % 4)));
        for (int k = 12; k < 29; k++) {         /* the header's own checksum */
            crc ^= bytes[k];
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
        for (int k = 0; k < 4; k++)
            bytes[29 + k] = (uint8_t)(~crc >> (24 - 8 * k));
        assert_int_equal(image_decode(bytes, n, "p.png", &image, &error), -EINVAL);
        assert_non_null(strstr(error.text, sizes[i].text));
        assert_null(image.rgb);
    }
}

static void test_decode_jpeg_cut_short(void **state)
{
    uint8_t rgb[40 * 24 * 3];
    _cleanup_free_ uint8_t *bytes = NULL;
    struct image image = {0};
    struct error error = {0};
    size_t n;

    (void)state;
    image_formula(40, 24, rgb);
    assert_int_equal(image_encode_jpeg(rgb, 40, 24, 95, &bytes, &n), 0);
    assert_int_equal(image_decode(bytes, n, "p.jpg", &image, &error), 0);
    assert_int_equal(image.height * image.width, 40 * 24);
    free(image.rgb);
    image.rgb = NULL;
    for (size_t cut = 0; cut < n; cut += 37) {
        error.text[0] = '\0';
        assert_int_equal(image_decode(bytes, cut, "p.jpg", &image, &error), -EINVAL);
        assert_non_null(strstr(error.text, "p.jpg: "));
        assert_null(image.rgb);
    }
}

/* A square of colour in a wide picture: where it is afterwards says what was done. */
static void test_strategies(void **state)
{
    struct image_prepare how = {.height = 8, .width = 8};
    uint8_t in[8 * 17 * 3], out[8 * 8 * 3], direct[8 * 8 * 3], black[3] = {0, 0, 0};

    (void)state;
    image_formula(8, 17, in);
    assert_int_equal(image_prepare(in, 8, 17, &how, out), 0);
    assert_int_equal(image_resize_bicubic(in, 8, 17, 8, 8, direct), 0);
    assert_memory_equal(out, direct, sizeof(out));

    how.short_side = 8;         /* the height fits: columns 4 to 11, (17-8)/2 = 4.5 rounded to even */
    assert_int_equal(image_prepare(in, 8, 17, &how, out), 0);
    for (int y = 0; y < 8; y++)
        assert_memory_equal(out + y * 8 * 3, in + (y * 17 + 4) * 3, 8 * 3);

    how.letterbox = true;       /* 4 rows above and below: 16 high, 17 wide, to 8x8.5 */
    assert_int_equal(image_prepare(in, 8, 17, &how, out), 0);
    assert_memory_equal(out, black, 3);
    assert_memory_equal(out + 7 * 8 * 3, black, 3);
    assert_memory_not_equal(out + (4 * 8 + 4) * 3, black, 3);

    how = (struct image_prepare){.height = 9, .width = 8, .short_side = 8};
    assert_int_equal(image_prepare(in, 8, 17, &how, out), -EINVAL);         /* a crop larger than the picture */
    assert_int_equal(image_prepare(in, 0, 17, &how, out), -EINVAL);
}

static void assert_near(const float *x, const float *want, int n)
{
    for (int i = 0; i < n; i++)
        assert_true(x[i] - want[i] < 1e-6f && want[i] - x[i] < 1e-6f);
}

static void test_colours(void **state)
{
    const float start[] = {0.9f, 0.3f, 0.1f, 0.2f, 0.6f, 0.4f, 0.5f, 0.5f, 0.5f};
    const float turned[] = {0.1f, 0.9f, 0.3f, 0.4f, 0.2f, 0.6f, 0.5f, 0.5f, 0.5f};  /* a third of a circle: r g b to b r g */
    const float grey[] = {0.9f, 0.9f, 0.9f, 0.6f, 0.6f, 0.6f, 0.5f, 0.5f, 0.5f};    /* without saturation the value stays */
    const float flat[] = {1.6f / 3, 1.4f / 3, 1.0f / 3, 1.6f / 3, 1.4f / 3, 1.0f / 3, 1.6f / 3, 1.4f / 3, 1.0f / 3};
    float x[9];

    (void)state;
    memcpy(x, start, sizeof(x));
    augment_hue(x, 3, 0.0f);
    augment_saturation(x, 3, 1.0f);
    augment_contrast(x, 3, 1.0f);
    assert_near(x, start, 9);
    augment_hue(x, 3, 1.0f / 3.0f);
    assert_near(x, turned, 9);
    augment_hue(x, 3, -1.0f / 3.0f);
    assert_near(x, start, 9);
    augment_saturation(x, 3, 0.0f);
    assert_near(x, grey, 9);
    memcpy(x, start, sizeof(x));
    augment_contrast(x, 3, 0.0f);
    assert_near(x, flat, 9);
}

/* The same counter gives the same picture, another one another; with nothing to draw only the crop is left. */
static void test_augment(void **state)
{
    enum { H = 20, W = 20, N = H * W * 3 };
    const struct augment none = {.area = 1.0f, .contrast = {1.0f, 1.0f}, .saturation = {1.0f, 1.0f}};
    uint8_t in[N], a[N], b[N];
    struct philox first = philox_at(7, PHILOX_TEST, 1, 0, 0), again = first, other = philox_at(7, PHILOX_TEST, 2, 0, 0);

    (void)state;
    image_formula(H, W, in);
    assert_int_equal(augment_picture(&augment_openvla, &first, in, H, W, a), 0);
    assert_int_equal(augment_picture(&augment_openvla, &again, in, H, W, b), 0);
    assert_memory_equal(a, b, N);
    assert_int_equal(augment_picture(&augment_openvla, &other, in, H, W, b), 0);
    assert_memory_not_equal(a, b, N);
    assert_int_equal(augment_picture(&none, &other, in, H, W, b), 0);
    for (int i = 0; i < N; i++)                 /* u/255*255 may fall short of u */
        assert_in_range(in[i] - b[i], 0, 1);
    assert_int_equal(augment_picture(&none, &other, in, 0, W, b), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_equals_pillow),
        cmocka_unit_test(test_same_size_is_a_copy),
        cmocka_unit_test(test_png_round_trip),
        cmocka_unit_test(test_decode_refuses),
        cmocka_unit_test(test_decode_jpeg_cut_short),
        cmocka_unit_test(test_strategies),
        cmocka_unit_test(test_colours),
        cmocka_unit_test(test_augment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
