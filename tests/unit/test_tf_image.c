/* The pictures of the OpenVLA evaluation against TensorFlow 2.15.1's: a rendered camera picture (camera.png), its JPEG
 * (camera.jpg), and what is left of it at 224 pixels (camera_224.png, digest of the crop). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/sha256.h"
#include "image/tf_image.h"

enum { CAMERA = 256, SIDE = 224, N = SIDE * SIDE * 3, MAX_FILE = 1 << 20 };

static struct image read_image(const char *name)
{
    char path[128];
    struct image image = {0};
    struct error error = {0};

    snprintf(path, sizeof(path), "tests/golden/images/%s", name);
    if (image_read(path, &image, &error) < 0)
        fail_msg("%s", error.text);
    return image;
}

static void assert_digest(const uint8_t *bytes, size_t n, const char *want)
{
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX];

    sha256_of(bytes, n, digest);
    sha256_hex(digest, hex);
    assert_string_equal(hex, want);
}

static void test_jpeg(void **state)
{
    _cleanup_free_ char *file = NULL;
    _cleanup_free_ uint8_t *bytes = NULL;
    struct image camera = read_image("camera.png"), decoded = {0};
    uint8_t *turned = malloc(CAMERA * CAMERA * 3);
    struct error error = {0};
    size_t n, n_file;

    (void)state;
    for (size_t i = 0; i < CAMERA * CAMERA; i++)
        memcpy(turned + i * 3, camera.rgb + (CAMERA * CAMERA - 1 - i) * 3, 3);
    assert_int_equal(file_read("tests/golden/images/camera.jpg", MAX_FILE, &file, &n_file), 0);
    assert_int_equal(image_encode_jpeg(turned, CAMERA, CAMERA, 95, &bytes, &n), 0);
    assert_int_equal(n, n_file);
    assert_memory_equal(bytes, file, 13);               /* bytes 13 to 17 say pixels per inch: nothing that is seen */
    assert_memory_equal(bytes + 18, file + 18, n - 18);
    if (image_decode_jpeg(bytes, n, true, "camera.jpg", &decoded, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(decoded.height, CAMERA);
    assert_int_equal(decoded.width, CAMERA);
    assert_digest(decoded.rgb, CAMERA * CAMERA * 3, "610fa95625838824192393c7173a35ad176a12eb385642cefac2109242d12ee6");
    free(decoded.rgb);
    free(camera.rgb);
    free(turned);
}

/* Off by one in at most 0.01 % of the values is what another order of float32 sums may do to lanczos3. */
static void test_evaluation_picture(void **state)
{
    struct image camera = read_image("camera.png"), want = read_image("camera_224.png");
    _cleanup_free_ uint8_t *out = malloc(N);
    int differ = 0;

    (void)state;
    assert_int_equal(tf_evaluation_picture(camera.rgb, CAMERA, CAMERA, SIDE, SIDE, out), 0);
    for (int i = 0; i < N; i++) {
        assert_in_range(out[i] - want.rgb[i] + 1, 0, 2);
        differ += out[i] != want.rgb[i];
    }
    assert_true(differ <= N / 10000);
    free(camera.rgb);
    free(want.rgb);
}

static void test_center_crop(void **state)
{
    struct image picture = read_image("camera_224.png");
    _cleanup_free_ uint8_t *out = malloc(N);

    (void)state;
    assert_int_equal(tf_center_crop(picture.rgb, SIDE, SIDE, 0.9f, out), 0);
    assert_digest(out, N, "dfb670e378e05474704a18a42261becef21ae4de4ebe385d1d3baa36e3ec55da");
    assert_int_equal(tf_center_crop(picture.rgb, SIDE, SIDE, 1.0f, out), 0);
    assert_memory_equal(out, picture.rgb, N);
    assert_int_equal(tf_center_crop(picture.rgb, SIDE, SIDE, 0.0f, out), -EINVAL);
    assert_int_equal(tf_center_crop(picture.rgb, 0, SIDE, 0.9f, out), -EINVAL);
    free(picture.rgb);
}

static void test_crop_outside_is_black(void **state)
{
    float in[4 * 4 * 3], out[2 * 2 * 3];

    (void)state;
    for (int i = 0; i < 4 * 4 * 3; i++)
        in[i] = 1.0f;
    tf_crop_and_resize(in, 4, 4, (struct tf_box){0.0f, 0.0f, 1.0f, 1.5f}, 2, 2, out);
    assert_true(out[0] == 1.0f && out[3] == 0.0f && out[6] == 1.0f && out[9] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_evaluation_picture),
        cmocka_unit_test(test_center_crop),
        cmocka_unit_test(test_crop_outside_is_black),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
