/* jpeg.c - RGB pictures in and out of JPEG, by libjpeg-turbo. */
#include <errno.h>

#include <turbojpeg.h>

#include "image/image.h"

static void destroyp(tjhandle *handle)
{
    if (*handle)
        tjDestroy(*handle);
}

static void tj_freep(unsigned char **bytes)
{
    tjFree(*bytes);
}

int image_encode_jpeg(const uint8_t *rgb, int height, int width, int quality, uint8_t **ret_bytes, size_t *ret_n)
{
    _cleanup_(destroyp) tjhandle handle = NULL;
    _cleanup_(tj_freep) unsigned char *bytes = NULL;
    unsigned long n = 0;
    uint8_t *copy;

    if (height < 1 || width < 1 || MAX(height, width) > IMAGE_MAX_SIDE || quality < 1 || quality > 100)
        return -EINVAL;
    handle = tjInitCompress();
    if (!handle)
        return -ENOMEM;
    if (tjCompress2(handle, rgb, width, 0, height, TJPF_RGB, &bytes, &n, TJSAMP_420, quality, TJFLAG_ACCURATEDCT) < 0)
        return -EIO;
    copy = malloc(n);           /* the library's memory is freed by the library */
    if (!copy)
        return -ENOMEM;
    memcpy(copy, bytes, n);
    *ret_bytes = copy;
    *ret_n = n;
    return 0;
}

int image_decode_jpeg(const void *bytes, size_t n, bool fast, const char *name, struct image *ret, struct error *error)
{
    _cleanup_(destroyp) tjhandle handle = tjInitDecompress();
    _cleanup_free_ uint8_t *rgb = NULL;
    int width, height, subsampling, colours, flags = TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS, r;

    if (!handle)
        return error_set(error, ENOMEM, "out of memory");
    if (tjDecompressHeader3(handle, bytes, n, &width, &height, &subsampling, &colours) < 0)
        return error_set(error, EINVAL, "%s: %s", name, tjGetErrorStr2(handle));
    r = image_check_size(height, width, name, error);
    if (r < 0)
        return r;
    if (colours == TJCS_CMYK || colours == TJCS_YCCK)
        return error_set(error, EINVAL, "%s: a CMYK picture; convert it to RGB", name);
    rgb = malloc((size_t)width * (size_t)height * 3);
    if (!rgb)
        return error_set(error, ENOMEM, "%s: %dx%d pixels do not fit into memory", name, width, height);
    flags |= fast ? TJFLAG_FASTDCT : TJFLAG_ACCURATEDCT;
    if (tjDecompress2(handle, bytes, n, rgb, width, 0, height, TJPF_RGB, flags) < 0)
        return error_set(error, EINVAL, "%s: %s", name, tjGetErrorStr2(handle));
    *ret = (struct image){.height = height, .width = width, .rgb = TAKE_PTR(rgb)};
    return 0;
}
