/* png.c - RGB pictures in and out of PNG, by libpng's simplified interface. */
#include <errno.h>

#include <png.h>

#include "base/atomic_file.h"
#include "image/image.h"

int image_encode_png(const uint8_t *rgb, int height, int width, uint8_t **ret_bytes, size_t *ret_n)
{
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = (png_uint_32)width, .height = (png_uint_32)height, .format = PNG_FORMAT_RGB};
    _cleanup_free_ uint8_t *bytes = NULL;
    png_alloc_size_t n;

    if (height < 1 || width < 1 || MAX(height, width) > IMAGE_MAX_SIDE)
        return -EINVAL;
    n = PNG_IMAGE_PNG_SIZE_MAX(image);
    bytes = malloc(n);
    if (!bytes)
        return -ENOMEM;
    if (!png_image_write_to_memory(&image, bytes, &n, 0, rgb, 0, NULL))
        return -EIO;
    *ret_bytes = TAKE_PTR(bytes);
    *ret_n = n;
    return 0;
}

int image_write_png(const char *path, const uint8_t *rgb, int height, int width)
{
    _cleanup_free_ uint8_t *bytes = NULL;
    size_t n;
    int r;

    r = image_encode_png(rgb, height, width, &bytes, &n);
    if (r < 0)
        return r;
    return atomic_file_write_through(path, bytes, n);
}

int image_decode_png(const void *bytes, size_t n, const char *name, struct image *ret, struct error *error)
{
    static const png_color black = {0, 0, 0};
    png_image image = {.version = PNG_IMAGE_VERSION};
    _cleanup_free_ uint8_t *rgb = NULL;
    int r;

    if (!png_image_begin_read_from_memory(&image, bytes, n))
        return error_set(error, EINVAL, "%s: %s", name, image.message);
    image.format = PNG_FORMAT_RGB;
    r = image_check_size(image.height, image.width, name, error);
    if (r < 0) {
        png_image_free(&image);
        return r;
    }
    rgb = malloc(PNG_IMAGE_SIZE(image));
    if (!rgb) {
        png_image_free(&image);
        return error_set(error, ENOMEM, "%s: %ux%u pixels do not fit into memory", name, image.width, image.height);
    }
    if (!png_image_finish_read(&image, &black, rgb, 0, NULL))
        return error_set(error, EINVAL, "%s: %s", name, image.message);
    *ret = (struct image) {.height = (int)image.height, .width = (int)image.width, .rgb = TAKE_PTR(rgb)};
    return 0;
}
