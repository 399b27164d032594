/* A PNG or JPEG file from anyone: what is accepted has a sane size and can be read to the last pixel. */
#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct image image = {0};
    struct error error = {0};
    volatile unsigned sum = 0;

    if (image_decode(bytes, n, "fuzz", &image, &error) < 0) {
        if (!error.text[0] || image.rgb)
            abort();            /* a refusal says why and hands nothing out */
        return 0;
    }
    if (image.height < 1 || image.width < 1 || (int64_t)image.height * image.width > IMAGE_MAX_PIXELS)
        abort();
    for (size_t i = 0; i < (size_t)image.height * (size_t)image.width * 3; i++)
        sum += image.rgb[i];
    free(image.rgb);
    return 0;
}
