/* film.h - an episode as one picture: frames in a row, the reward model's progress drawn beneath.
 *
 * What `gantry replay` writes and the report shows:
 *
 *     pick up the red block - success in 14 steps          <- title
 *     [o_0] [o_2] [o_4] ... [o_14]                         <- at most `columns` frames, first and last always
 *       0     2     4         14
 *     1 |            ____/                                 <- progress after seeing o_0..o_t; dots at the frames shown
 *     0 |______/----
 *
 * Pure: no files, no clock (film_write_png aside). Letters are drawn as capitals; unknown characters as '?'. */
#pragma once

#include "image/image.h"

struct film {
    const uint8_t *frames;      /* (n, cameras, height, width, 3); the first camera's are shown */
    int n, height, width;
    int cameras;                /* 0: 1 */
    const float *progress;      /* (n) in [0,1]; NULL: no curve is drawn */
    const char *title;          /* one line; NULL: none */
    const int *numbers;         /* (n) written beneath the frames; NULL: 0, 1, ... */
    int columns;                /* 0: 10 */
    int cell;                   /* pixels a frame is shown in, square; rounded to the nearest multiple of its size; 0: 128 */
};

/* -EINVAL: no frames or nonsense sizes; -ENOMEM. The caller frees ret->rgb. */
int film_draw(const struct film *film, struct image *ret);
int film_write_png(const char *path, const struct film *film);

/* The index of the frame shown in column c of k, of n frames: first and last always, evenly between. */
int film_frame_of(int c, int k, int n);
