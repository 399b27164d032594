/* rope_table.h - cos and sin of rotary angles by position, computed once and kept with the tape.
 *
 * Angles as Hugging Face's Llama has them: inv_freq_i = theta^(-2i/dim) rounded to float, angle = position * inv_freq in
 * float, its cos and sin rounded from double (so a libm's last bit does not show). */
#pragma once

#include "base/macro.h"

struct rope_table {
    float theta;
    int64_t dim;                /* of a head */
    int64_t positions;
    float *table;               /* [positions][dim]: cos (dim/2), sin (dim/2) */
    float *on_device;           /* the same there, or NULL */
    const struct device_kernels *k;     /* whose memory that is */
};
struct device_kernels;
struct device_stream;

/* Make *table cover positions 0..last. -ENOMEM. */
int rope_table_cover(struct rope_table **table, float theta, int64_t dim, int64_t last);
/* The table in the device's memory, sent when it has grown. NULL: no room. */
const float *rope_table_on(struct rope_table *table, struct device_stream *s);
struct rope_table *rope_table_free(struct rope_table *table);
