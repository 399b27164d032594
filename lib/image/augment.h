/* augment.h - the random changes under which OpenVLA and its fine-tunes were trained.
 *
 * In this order, each followed by clipping to [0,1]: a crop of `area` of the picture at a random place, stretched back;
 * brightness + d; contrast by a factor around each channel's mean; saturation by a factor; hue turned by part of a circle.
 * The operations have TensorFlow's semantics. What is drawn differs from the original on purpose: there one seed served every
 * operation, so that a picture moved to the lower right was also the brighter and the redder one; here each draws its own.
 * A policy trained so must see the middle `area` of a picture when it acts: tf_center_crop. Pure, any thread. */
#pragma once

#include "base/philox.h"
#include "image/image.h"

struct augment {
    float area;                 /* of the crop, (0,1] */
    float brightness;           /* d in [-brightness, brightness] */
    float contrast[2], saturation[2];   /* factor in [low, high] */
    float hue;                  /* in [-hue, hue] of a full turn */
};
extern const struct augment augment_openvla;    /* .9, .2, .8-1.2, .8-1.2, .05 */

/* ret_rgb (height,width,3). -ENOMEM; -EINVAL: no picture. */
int augment_picture(const struct augment *how, struct philox *random, const uint8_t *rgb, int height, int width,
                    uint8_t *ret_rgb);

/* The steps, in place on n pixels of float RGB. */
void augment_contrast(float *rgb, size_t n, float factor);
void augment_saturation(float *rgb, size_t n, float factor);
void augment_hue(float *rgb, size_t n, float turn);
