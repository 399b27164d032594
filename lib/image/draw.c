#include "image/draw.h"

enum { LETTER_W = 3, LETTER_H = 5, ZOOM = 2 };

/* Letters of 3 x 5 dots: five octal digits, one per row from the top, 4 = left dot, 1 = right dot. */
static const char *const capitals[26] = {
    "25755", "65656", "34443", "65556", "74647", "74644", "34553", "55755", "72227", "11152", "55655", "44447", "57755",
    "65555", "25552", "65644", "25573", "65655", "34216", "72222", "55557", "55552", "55775", "55255", "55222", "71247",
};
static const char *const digits[10] = {
    "75557", "26227", "71747", "71717", "55711", "74717", "74757", "71122", "75757", "75717",
};
static const struct {
    char c;
    const char *rows;
} signs[] = {
    {' ', "00000"}, {'.', "00002"},  {',', "00024"}, {':', "02020"}, {'-', "00700"}, {'/', "11244"},
    {'%', "51245"}, {'(', "12221"},  {')', "42224"}, {'^', "25000"}, {'=', "07070"}, {'_', "00007"},
    {'+', "02720"}, {'\'', "22000"}, {'>', "42124"}, {'<', "12421"}, {'#', "57575"}, {'!', "22202"},
    {'"', "55000"}, {'*', "05250"},  {'[', "64446"}, {']', "31113"},
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

void draw_box(struct image *image, int x, int y, int w, int h, struct rgb color)
{
    int i, j;

    for (j = 0; j < h; j++)
        for (i = 0; i < w; i++)
            dot(image, x + i, y + j, color);
}

void draw_text(struct image *image, int x, int y, const char *text, struct rgb color)
{
    int row, column;

    for (; *text && x + LETTER_W * ZOOM <= image->width; text++, x += DRAW_ADVANCE) {
        const char *rows = letter(*text);

        for (row = 0; row < LETTER_H; row++)
            for (column = 0; column < LETTER_W; column++)
                if ((rows[row] - '0') & (4 >> column))
                    draw_box(image, x + column * ZOOM, y + row * ZOOM, ZOOM, ZOOM, color);
    }
}

/* Bresenham. */
void draw_line(struct image *image, int x0, int y0, int x1, int y1, int thick, struct rgb color)
{
    int dx = abs(x1 - x0), dy = -abs(y1 - y0), sx = x0 < x1 ? 1 : -1, sy = y0 < y1 ? 1 : -1, err = dx + dy, twice;

    for (;;) {
        draw_box(image, x0, y0, thick, thick, color);
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
