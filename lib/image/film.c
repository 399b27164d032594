#include "image/film.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "image/draw.h"

enum { MARGIN = 8, ADVANCE = DRAW_ADVANCE, LINE = DRAW_LINE, CURVE_H = 72 };

static const struct rgb ink = {40, 40, 40}, pale = {215, 215, 215}, blue = {30, 90, 200}, white = {255, 255, 255};

int film_frame_of(int c, int k, int n)
{
    return k < 2 ? n - 1 : (int)(((int64_t)c * (n - 1) + (k - 1) / 2) / (k - 1));
}

/* Nearest neighbour into a cell of zoom * size, or down to every `1/zoom`-th pixel: frames are shown as they are. */
static void paste(struct image *image, int x, int y, const uint8_t *frame, int height, int width, int cell_h, int cell_w)
{
    int i, j;

    for (j = 0; j < cell_h; j++)
        for (i = 0; i < cell_w; i++) {
            const uint8_t *p = frame + 3 * ((size_t)(j * height / cell_h) * (size_t)width + (size_t)(i * width / cell_w));

            draw_box(image, x + i, y + j, 1, 1, (struct rgb) { p[0], p[1], p[2] });
        }
}

/* w: of all k cells, each `cell` wide. */
static void draw_curve(struct image *image, const struct film *film, int x, int y, int w, int k, int cell)
{
    int t, c, px = 0, py = 0;
    double p;

    for (t = 0; t <= 2; t++)
        draw_box(image, x, y + t * CURVE_H / 2, w, 1, pale);
    draw_text(image, x - ADVANCE - 2, y - LINE / 2, "1", ink);
    draw_text(image, x - ADVANCE - 2, y + CURVE_H - LINE / 2, "0", ink);

    for (t = 0; t < film->n; t++) {
        int at_x = x + (film->n > 1 ? (int)((int64_t)t * (w - cell) / (film->n - 1)) : 0) + cell / 2, at_y; /* under its frame */

        p = isfinite(film->progress[t]) ? CLAMP((double)film->progress[t], 0.0, 1.0) : 0.0;
        at_y = y + (int)lround((1 - p) * CURVE_H);
        if (t > 0)
            draw_line(image, px, py, at_x, at_y, 2, blue);
        for (c = 0; c < k; c++)
            if (film_frame_of(c, k, film->n) == t)
                draw_box(image, at_x - 2, at_y - 2, 6, 6, blue);
        px = at_x;
        py = at_y;
    }
}

int film_draw(const struct film *film, struct image *ret)
{
    int cell = film->cell > 0 ? film->cell : 128, columns = film->columns > 0 ? film->columns : 10, k = MIN(columns, film->n);
    int cell_w, cell_h, left = MARGIN + ADVANCE + 2, y = MARGIN, c, row;
    struct image image;
    char number[16];

    if (!film->frames || film->n < 1 || film->height < 1 || film->width < 1 || film->height > 8192 || film->width > 8192 ||
        columns > 256 || cell > 1024)
        return -EINVAL;

    cell_w = film->width * MAX((cell + film->width / 2) / film->width, 1);
    cell_h = film->height * MAX((cell + film->height / 2) / film->height, 1);
    if (cell_w > 2 * cell || cell_h > 2 * cell)
        cell_w = cell_h = cell;         /* big frames are shown small */
    image.width = left + MAX(k * (cell_w + 4), film->title ? (int)strlen(film->title) * ADVANCE : 0) + MARGIN;
    image.height = MARGIN + (film->title ? LINE + 8 : 0) + cell_h + 4 + LINE + 8 + (film->progress ? CURVE_H + 12 : 0) + MARGIN;
    image.rgb = malloc((size_t)image.width * (size_t)image.height * 3);
    if (!image.rgb)
        return -ENOMEM;
    draw_box(&image, 0, 0, image.width, image.height, white);

    if (film->title) {
        draw_text(&image, left, y, film->title, ink);
        y += LINE + 8;
    }
    for (c = 0; c < k; c++) {
        row = film_frame_of(c, k, film->n);
        paste(&image, left + c * (cell_w + 4), y,
              film->frames + 3 * (size_t)row * (size_t)MAX(film->cameras, 1) * (size_t)film->height * (size_t)film->width,
              film->height, film->width, cell_h, cell_w);
        snprintf(number, sizeof(number), "%d", film->numbers ? film->numbers[row] : row);
        draw_text(&image, left + c * (cell_w + 4), y + cell_h + 4, number, ink);
    }
    y += cell_h + 4 + LINE + 8;
    if (film->progress)
        draw_curve(&image, film, left, y, k * (cell_w + 4) - 4, k, cell_w);
    *ret = image;
    return 0;
}

int film_write_png(const char *path, const struct film *film)
{
    struct image image;
    int r = film_draw(film, &image);

    if (r < 0)
        return r;
    r = image_write_png(path, image.rgb, image.height, image.width);
    free(image.rgb);
    return r;
}
