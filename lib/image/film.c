#include "image/film.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

enum { MARGIN = 8, LETTER_W = 3, LETTER_H = 5, ZOOM = 2, ADVANCE = (LETTER_W + 1) * ZOOM, LINE = LETTER_H * ZOOM, CURVE_H = 72 };

struct rgb { uint8_t r, g, b; };
static const struct rgb ink = {40, 40, 40}, pale = {215, 215, 215}, blue = {30, 90, 200}, white = {255, 255, 255};

/* Letters of 3 x 5 dots: five octal digits, one per row from the top, 4 = left dot, 1 = right dot. */
static const char *const capitals[26] = {
    "25755", "65656", "34443", "65556", "74647", "74644", "34553", "55755", "72227", "11152", "55655", "44447", "57755",
    "65555", "25552", "65644", "25573", "65655", "34216", "72222", "55557", "55552", "55775", "55255", "55222", "71247",
};
static const char *const digits[10] = {
    "75557", "26227", "71747", "71717", "55711", "74717", "74757", "71122", "75757", "75717",
};
static const struct { char c; const char *rows; } signs[] = {
    { ' ', "00000" }, { '.', "00002" }, { ',', "00024" }, { ':', "02020" }, { '-', "00700" }, { '/', "11244" }, { '%', "51245" },
    { '(', "12221" }, { ')', "42224" }, { '=', "07070" }, { '_', "00007" }, { '+', "02720" }, { '\'', "22000" }, { '>', "42124" },
    { '<', "12421" }, { '#', "57575" }, { '!', "22202" }, { '"', "55000" }, { '*', "05250" }, { '[', "64446" }, { ']', "31113" },
};

static const char *letter(char c)
{
    size_t i;

    if (c >= 'a' && c <= 'z')
        return capitals[c - 'a'];
    if (c >= 'A' && c <= 'Z')
        return capitals[c - 'A'];
    if (c >= '0' && c <= '9')
        return digits[c - '0'];
    for (i = 0; i < ARRAY_SIZE(signs); i++)
        if (signs[i].c == c)
            return signs[i].rows;
    return "71202";
}

static void dot(struct image *image, int x, int y, struct rgb color)
{
    uint8_t *p;

    if (x < 0 || y < 0 || x >= image->width || y >= image->height)
        return;
    p = image->rgb + 3 * ((size_t)y * (size_t)image->width + (size_t)x);
    p[0] = color.r;
    p[1] = color.g;
    p[2] = color.b;
}

static void box(struct image *image, int x, int y, int w, int h, struct rgb color)
{
    int i, j;

    for (j = 0; j < h; j++)
        for (i = 0; i < w; i++)
            dot(image, x + i, y + j, color);
}

static void write_text(struct image *image, int x, int y, const char *text)
{
    int row, column;

    for (; *text && x + LETTER_W * ZOOM <= image->width; text++, x += ADVANCE) {
        const char *rows = letter(*text);

        for (row = 0; row < LETTER_H; row++)
            for (column = 0; column < LETTER_W; column++)
                if ((rows[row] - '0') & (4 >> column))
                    box(image, x + column * ZOOM, y + row * ZOOM, ZOOM, ZOOM, ink);
    }
}

/* Bresenham, two dots thick. */
static void line(struct image *image, int x0, int y0, int x1, int y1, struct rgb color)
{
    int dx = abs(x1 - x0), dy = -abs(y1 - y0), sx = x0 < x1 ? 1 : -1, sy = y0 < y1 ? 1 : -1, err = dx + dy, twice;

    for (;;) {
        box(image, x0, y0, 2, 2, color);
        if (x0 == x1 && y0 == y1)
            return;
        twice = 2 * err;
        if (twice >= dy) {
            err += dy;
            x0 += sx;
        }
        if (twice <= dx) {
            err += dx;
            y0 += sy;
        }
    }
}

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

            dot(image, x + i, y + j, (struct rgb) { p[0], p[1], p[2] });
        }
}

static void draw_curve(struct image *image, const struct film *film, int x, int y, int w, int k)
{
    int t, c, px = 0, py = 0;
    double p;

    for (t = 0; t <= 2; t++)
        box(image, x, y + t * CURVE_H / 2, w, 1, pale);
    write_text(image, x - ADVANCE - 2, y - LINE / 2, "1");
    write_text(image, x - ADVANCE - 2, y + CURVE_H - LINE / 2, "0");

    for (t = 0; t < film->n; t++) {
        int at_x = film->n > 1 ? x + (int)((int64_t)t * (w - 2) / (film->n - 1)) : x, at_y;

        p = isfinite(film->progress[t]) ? CLAMP((double)film->progress[t], 0.0, 1.0) : 0.0;
        at_y = y + (int)lround((1 - p) * CURVE_H);
        if (t > 0)
            line(image, px, py, at_x, at_y, blue);
        for (c = 0; c < k; c++)
            if (film_frame_of(c, k, film->n) == t)
                box(image, at_x - 2, at_y - 2, 6, 6, blue);
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
    image.width = left + k * (cell_w + 4) + MARGIN;
    image.height = MARGIN + (film->title ? LINE + 8 : 0) + cell_h + 4 + LINE + 8 + (film->progress ? CURVE_H + 12 : 0) + MARGIN;
    image.rgb = malloc((size_t)image.width * (size_t)image.height * 3);
    if (!image.rgb)
        return -ENOMEM;
    box(&image, 0, 0, image.width, image.height, white);

    if (film->title) {
        write_text(&image, left, y, film->title);
        y += LINE + 8;
    }
    for (c = 0; c < k; c++) {
        row = film_frame_of(c, k, film->n);
        paste(&image, left + c * (cell_w + 4), y, film->frames + 3 * (size_t)row * (size_t)MAX(film->cameras, 1) * (size_t)film->height * (size_t)film->width,
              film->height, film->width, cell_h, cell_w);
        snprintf(number, sizeof(number), "%d", row);
        write_text(&image, left + c * (cell_w + 4), y + cell_h + 4, number);
    }
    y += cell_h + 4 + LINE + 8;
    if (film->progress)
        draw_curve(&image, film, left, y, k * (cell_w + 4) - 4, k);
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
