/* decode.c - a picture file from outside: which kind it is, and how large it may be. */
#include <errno.h>

#include "base/atomic_file.h"
#include "image/image.h"

enum { MAX_FILE = 256 << 20 };

int image_check_size(int64_t height, int64_t width, const char *name, struct error *error)
{
    if (MIN(height, width) < 1 || MAX(height, width) > IMAGE_MAX_SIDE || height * width > IMAGE_MAX_PIXELS)
        return error_set(error, EINVAL, "%s: %lldx%lld pixels; sides of 1 to %d and at most %d pixels are read", name,
                         (long long)width, (long long)height, IMAGE_MAX_SIDE, IMAGE_MAX_PIXELS);
    return 0;
}

int image_decode(const void *bytes, size_t n, const char *name, struct image *ret, struct error *error)
{
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, jpeg[3] = {0xff, 0xd8, 0xff};

    if (n >= sizeof(png) && !memcmp(bytes, png, sizeof(png)))
        return image_decode_png(bytes, n, name, ret, error);
    if (n >= sizeof(jpeg) && !memcmp(bytes, jpeg, sizeof(jpeg)))
        return image_decode_jpeg(bytes, n, false, name, ret, error);
    return error_set(error, EINVAL, "%s: neither a PNG nor a JPEG picture", name);
}

int image_read(const char *path, struct image *ret, struct error *error)
{
    _cleanup_free_ char *bytes = NULL;
    size_t n;
    int r = file_read(path, MAX_FILE, &bytes, &n);

    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    return image_decode(bytes, n, path, ret, error);
}
