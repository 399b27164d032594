/* test_film: which frames a strip shows, that they are shown unchanged, and that nonsense is refused or harmless. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "image/film.h"

static void test_first_and_last_are_shown(void **state _unused_)
{
    int n, k, c;

    for (n = 1; n < 60; n++)
        for (k = 1; k <= n && k <= 12; k++) {
            assert_int_equal(film_frame_of(k - 1, k, n), n - 1);
            if (k > 1)
                assert_int_equal(film_frame_of(0, k, n), 0);
            for (c = 1; c < k; c++)
                assert_true(film_frame_of(c, k, n) > film_frame_of(c - 1, k, n));
        }
}

static int count(const struct image *image, uint8_t r, uint8_t g, uint8_t b)
{
    const uint8_t *p = image->rgb;
    int i, n = 0;

    for (i = 0; i < image->height * image->width; i++, p += 3)
        n += p[0] == r && p[1] == g && p[2] == b;
    return n;
}

static void test_frames_are_shown_unchanged(void **state _unused_)
{
    enum { N = 3, SIZE = 8 };
    static uint8_t frames[N][SIZE][SIZE][3];
    static const float progress[N] = { 0, NAN, 7 };     /* what a broken model might say */
    struct film film = { .frames = &frames[0][0][0][0], .n = N, .height = SIZE, .width = SIZE, .progress = progress,
                         .title = "pick up the red block ~ \xff", .cell = 16 };
    struct image image;
    int i;

    for (i = 0; i < N * SIZE * SIZE; i++)
        (&frames[0][0][0][0])[3 * i] = (uint8_t)(100 + i / (SIZE * SIZE));      /* three dark reds */
    assert_int_equal(film_draw(&film, &image), 0);
    for (i = 0; i < N; i++)
        assert_int_equal(count(&image, (uint8_t)(100 + i), 0, 0), 16 * 16);
    assert_true(count(&image, 30, 90, 200) > 50);       /* the curve */
    free(image.rgb);

    film.progress = NULL;
    assert_int_equal(film_draw(&film, &image), 0);
    assert_int_equal(count(&image, 30, 90, 200), 0);
    free(image.rgb);

    film.n = 0;
    assert_int_equal(film_draw(&film, &image), -EINVAL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_and_last_are_shown),
        cmocka_unit_test(test_frames_are_shown_unchanged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
