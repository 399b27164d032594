/* tf_image.h - picture operations with TensorFlow's numbers, and the picture chain of the OpenVLA evaluations built from them.
 *
 * All arithmetic is float32 in TensorFlow's order. The evaluation of OpenVLA and its fine-tunes on LIBERO shows the policy
 *     camera (bottom row first) -> turned by 180 degrees -> JPEG of quality 95 and back -> lanczos3 to the policy's size
 * and, when it was trained with random crops, a centre crop of .9 of the area stretched back (tf_center_crop). That last step is
 * the policy's own affair (openvla.h): data sets keep the picture before it. Pure functions, any thread. -ENOMEM. */
#pragma once

#include "image/image.h"

/* tf.image.resize(method="lanczos3", antialias=True) before rounding: columns first, then rows. ret (out_height,out_width,3). */
int tf_resize_lanczos3_float(const uint8_t *rgb, int height, int width, int out_height, int out_width, float *ret);
/* The same rounded to nearest even and clipped. */
int tf_resize_lanczos3(const uint8_t *rgb, int height, int width, int out_height, int out_width, uint8_t *ret_rgb);

struct tf_box { float y1, x1, y2, x2; };        /* parts of the picture: 0,0,1,1 is all of it */
/* tf.image.crop_and_resize, bilinear, corners aligned; `in` (height,width,3). Points outside become 0. */
void tf_crop_and_resize(const float *in, int height, int width, struct tf_box box, int out_height, int out_width, float *ret);
/* The middle `area` (0..1] of a picture, sides scaled alike, stretched back to its size. */
int tf_center_crop(const uint8_t *rgb, int height, int width, float area, uint8_t *ret_rgb);

/* The chain above, without the crop. */
int tf_evaluation_picture(const uint8_t *rendered, int height, int width, int out_height, int out_width, uint8_t *ret_rgb);

/* Its name in checkpoints and journals; another chain's pictures are refused (openvla.h). */
#define TF_EVALUATION_CHAIN "rot180+jpeg95+lanczos3"
