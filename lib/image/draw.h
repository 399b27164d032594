/* draw.h - boxes, lines and small capitals on a picture; what lies outside is left out. Pure. */
#pragma once

#include "image/image.h"

struct rgb {
    uint8_t r, g, b;
};

enum { DRAW_ADVANCE = 8, DRAW_LINE = 10 }; /* pixels from letter to letter; height of a letter */

/* A filled box; x, y: upper left. */
void draw_box(struct image *image, int x, int y, int w, int h, struct rgb color);
/* thick: pixels. */
void draw_line(struct image *image, int x0, int y0, int x1, int y1, int thick, struct rgb color);
/* x, y: upper left. Letters are drawn as capitals; unknown characters as '?'. */
void draw_text(struct image *image, int x, int y, const char *text, struct rgb color);
