#include "image/formula.h"

/* 32-bit arithmetic only, as the README of the goldens has it. */
void image_formula(int height, int width, uint8_t *rgb)
{
    for (uint32_t y = 0; y < (uint32_t)height; y++)
        for (uint32_t x = 0; x < (uint32_t)width; x++)
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t k = x * 374761393 + y * 668265263 + c * 2246822519, t = (x * (3 + c) + y * (5 - c)) % 511;

                k = (k ^ k >> 13) * 1274126177;
                k ^= k >> 16;
                t = t > 255 ? 510 - t : t;
                *rgb++ = (uint8_t)(((x >> 4) + (y >> 4) + c) & 3 ? t : k & 255);
            }
}
