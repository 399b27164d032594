/* prepare.h - any picture to the size a policy takes, by the strategy of its preprocessor_config.json.
 *
 *   resize-naive    both sides forced
 *   letterbox       borders of one colour make it square, then as resize-crop
 *   resize-crop     the shorter side to `short_side`, then the middle of it
 * All by Pillow's bicubic resize, sides and borders rounded as torchvision rounds them: across, then down, as Pillow up to 12
 * does it. (Pillow 13 goes down first where the height shrinks much more than the width; its bytes then differ.)
 * Pure, any thread. */
#pragma once

#include "image/image.h"

struct image_prepare {
    int height, width;          /* of the result */
    int short_side;             /* 0: both sides forced */
    bool letterbox;
    uint8_t fill[3];            /* the borders' colour */
};

/* ret_rgb: (height,width,3). A picture that has the size already is copied. -EINVAL: sizes that make no picture; -ENOMEM. */
int image_prepare(const uint8_t *rgb, int height, int width, const struct image_prepare *how, uint8_t *ret_rgb);
