/* formula.h - a picture that every language can compute: what resizers are held against one another with. */
#pragma once

#include <stdint.h>

/* Smooth slopes and noise in a chequered pattern. rgb: (height, width, 3). */
void image_formula(int height, int width, uint8_t *rgb);
