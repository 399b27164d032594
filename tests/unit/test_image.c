/* Bicubic resize against digests of Pillow 13.0.0's output on an arithmetic picture; PNG there and back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/sha256.h"
#include "image/image.h"

/* A picture with smooth and noisy parts, the same in every language: 32-bit arithmetic only. */
static void formula_picture(int height, int width, uint8_t *rgb)
{
    for (uint32_t y = 0; y < (uint32_t)height; y++)
        for (uint32_t x = 0; x < (uint32_t)width; x++)
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t k = x * 374761393 + y * 668265263 + c * 2246822519, t = (x * (3 + c) + y * (5 - c)) % 511;

                k = (k ^ k >> 13) * 1274126177;
                k ^= k >> 16;
                t = t > 255 ? 510 - t : t;
                rgb[(y * (uint32_t)width + x) * 3 + c] = (uint8_t)(((x >> 4) + (y >> 4) + c) & 3 ? t : k & 255);
            }
}

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

        formula_picture(cases[i].height, cases[i].width, in);
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
    formula_picture(5, 7, in);
    assert_int_equal(image_resize_bicubic(in, 5, 7, 5, 7, out), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(image_resize_bicubic(in, 0, 7, 5, 7, out), -EINVAL);
}

static void test_png_round_trip(void **state)
{
    char path[] = "/tmp/gantry_test_XXXXXX";
    uint8_t rgb[9 * 13 * 3];
    struct image image = {0};
    struct error error = {0};

    (void)state;
    close(mkstemp(path));
    formula_picture(9, 13, rgb);
    assert_int_equal(image_write_png(path, rgb, 9, 13), 0);
    if (image_read_png(path, &image, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(image.height, 9);
    assert_int_equal(image.width, 13);
    assert_memory_equal(image.rgb, rgb, sizeof(rgb));
    free(image.rgb);

    assert_int_equal(truncate(path, 40), 0);        /* a torn file is an error with the path in it */
    assert_int_equal(image_read_png(path, &image, &error), -EINVAL);
    assert_non_null(strstr(error.text, path));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_equals_pillow),
        cmocka_unit_test(test_same_size_is_a_copy),
        cmocka_unit_test(test_png_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
